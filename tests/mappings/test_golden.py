"""Each golden event gives its golden Bundle and comes back; each refused input names path and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

import golden
from mappings import EVENT_TYPES, from_fhir
from mappings.exact_json import dumps, loads
from mappings.validate import validate


def test_every_type_has_golden_and_refused_cases() -> None:
    assert {p.parent.name for p in golden.GOLDEN} == set(EVENT_TYPES)
    assert {p.parent.name for p in golden.REFUSED} == {*EVENT_TYPES, "fhir"}


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_the_golden_event_gives_the_golden_bundle(path: Path) -> None:
    wanted = golden.sibling(path, ".fhir.json").read_text(encoding="utf-8")
    assert golden.pretty(golden.bundle(path)) == wanted


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_the_golden_bundle_gives_the_golden_event(path: Path) -> None:
    bundle = loads(golden.sibling(path, ".fhir.json").read_bytes())
    assert [dumps(e) for e in from_fhir(bundle)] == [dumps(golden.events(path)[-1])]


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_the_golden_bundle_is_strict_r4(path: Path) -> None:
    assert validate(loads(golden.sibling(path, ".fhir.json").read_bytes())) == []


@pytest.mark.parametrize("path", golden.REFUSED, ids=golden.case)
def test_the_refused_input_is_refused_in_these_words(path: Path) -> None:
    said = golden.problem(path)
    assert said, "this input was accepted"
    assert said == loads(golden.sibling(path, ".problem.json").read_bytes())
