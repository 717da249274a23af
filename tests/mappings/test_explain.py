"""Every element that is written says where it comes from, and every field of the event arrives somewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

import golden
from mappings import resources
from mappings.explain import CODED, CONSTANT, COPIED, DERIVED, UNIT, explain, map_version
from strategies import ANY_EVENT


def leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [x for k, v in node.items() for x in leaves(v, f"{path}.{k}" if path else k)]
    if isinstance(node, list):
        return [x for i, v in enumerate(node) for x in leaves(v, f"{path}[{i}]")]
    return [(path, node)]


@settings(max_examples=100, deadline=None)
@given(ANY_EVENT)
def test_each_element_is_explained_once_and_as_it_is_written(event: Any) -> None:
    wanted = [(path, value) for resource in resources(event) for path, value in leaves(resource)]
    told = explain(event)
    assert [(o.path, o.value) for o in told] == wanted
    assert {type(o.value) for o in told} <= {type(value) for _, value in wanted}
    assert {o.how for o in told} <= {COPIED, CODED, UNIT, DERIVED, CONSTANT}


@settings(max_examples=100, deadline=None)
@given(ANY_EVENT)
def test_a_copied_element_equals_its_field(event: Any) -> None:
    fields = dict(leaves(event))
    copied = [o for o in explain(event) if o.how == COPIED]
    assert copied
    for origin in copied:
        (field,) = origin.source
        assert str(fields[field]) == str(origin.value)


KNOWN_OTHERWISE = {"type", "kind", "status"}
"""Said by which resource it is, and by its status."""


@settings(max_examples=200, deadline=None)
@given(ANY_EVENT)
def test_no_field_of_an_event_is_dropped(event: Any) -> None:
    sources = {field for origin in explain(event) for field in origin.source}
    for path, _ in leaves(event):
        plain = path.replace("[", ".[")
        parts = plain.split(".")
        ways = {".".join(parts[: n + 1]).replace(".[", "[") for n in range(len(parts))}
        bare = {".".join(p for p in way.replace("[", ".[").split(".") if p[0] != "[") for way in ways}
        assert (ways | bare) & sources or path in KNOWN_OTHERWISE, path


@pytest.mark.parametrize(
    ("case", "path", "source", "how"),
    [
        ("refill/everything", "dosage.dose.value", ("volume_instilled.value",), COPIED),
        ("refill/everything", "dosage.dose.code", ("volume_instilled",), UNIT),
        ("refill/everything", "dosage.route.coding[0].code", (), CONSTANT),
        ("refill/everything", "status", ("status", "stopped_because"), DERIVED),
        ("assessment/five-scales", "effectiveDateTime", ("occurred_at",), COPIED),
    ],
)
def test_examples(case: str, path: str, source: tuple[str, ...], how: str) -> None:
    event = golden.events(golden.FIXTURES / f"golden/{case}.event.json")[-1]
    found = next(o for o in explain(event) if o.path == path)
    assert (found.source, found.how) == (source, how)
    assert found.rule == f"mappings/{case.partition('/')[0]}.py"


def test_the_map_has_a_version_of_its_own() -> None:
    assert map_version() == map_version() and len(map_version()) == 12
