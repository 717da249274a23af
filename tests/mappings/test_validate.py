"""The R4 validator: every invariant broken and put right, and every kind of defect."""

from __future__ import annotations

from typing import Any

import pytest

from mappings.r4_rules import BEYOND, NOT_CHECKED, RULES
from mappings.r4_table import table
from mappings.validate import is_plainly_valid, validate
from r4_cases import CASES, SHAPES

Json = Any
WHOLE = {"dom-2", "dom-3", "dom-4", "dom-5", "ref-1"}
MORE = {"contained-id"}
"""Rules over what is contained: R4's invariants, and one more of its text."""


def cleaned(resource: Json) -> Json:
    return {key: value for key, value in resource.items() if value is not None}


def test_every_error_level_invariant_of_r4_is_checked_or_its_absence_explained() -> None:
    checked = {rule[1] for rule in RULES} - BEYOND
    assert checked | WHOLE | NOT_CHECKED.keys() == set(table()["invariants"])
    assert set(CASES) == {rule[1] for rule in RULES} | WHOLE | MORE
    assert {rule[1] for rule in RULES} - set(table()["invariants"]) | MORE == BEYOND


@pytest.mark.parametrize("id", CASES)
def test_an_invariant_is_broken_and_put_right(id: str) -> None:
    broken, right = map(cleaned, CASES[id])
    assert id in {issue.rule for issue in validate(broken)}
    assert not is_plainly_valid(broken)
    assert validate(right) == []


@pytest.mark.parametrize("defect", SHAPES)
def test_a_defect_is_named_with_its_place(defect: str) -> None:
    resource, path, rule = SHAPES[defect]
    assert (path, rule) in [(issue.path, issue.rule) for issue in validate(resource)]


@pytest.mark.parametrize("text", [" ", "\n", "\u00a0"])
def test_a_blank_string_is_no_error(text: str) -> None:
    """R4: strings SHOULD hold more than white space; HAPI accepts them too."""
    assert validate({"resourceType": "Patient", "name": [{"text": text}]}) == []
    assert validate({"resourceType": "Patient", "name": [{"text": ""}]}) != []
