"""The R4 validator: every invariant broken and put right, every kind of defect, and HAPI's own verdict."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import golden
from mappings.r4_rules import BEYOND, NOT_CHECKED, RULES
from mappings.r4_table import table
from mappings.validate import is_plainly_valid, thoroughly, validate
from r4_cases import CASES, SHAPES

Json = Any
WHOLE = {"dom-2", "dom-3", "dom-4", "dom-5", "ref-1"}


def cleaned(resource: Json) -> Json:
    return {key: value for key, value in resource.items() if value is not None}


def test_every_error_level_invariant_of_r4_is_checked_or_its_absence_explained() -> None:
    checked = {rule[1] for rule in RULES} - BEYOND
    assert checked | WHOLE | NOT_CHECKED.keys() == set(table()["invariants"])
    assert set(CASES) == {rule[1] for rule in RULES} | WHOLE


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


# --- beside HAPI ------------------------------------------------------------------------------------------


def places(node: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


WRONG = ["x y", "", 3, True, [], {}, "2025-02-30", "nonsense", {"reference": "Location/1"}]


def mutated(resource: Json, chance: random.Random) -> tuple[str, Json]:
    """The resource with one thing wrong (or harmless), and what was done."""
    made = copy.deepcopy(resource)
    path = chance.choice([p for p in places(made) if p[0] not in ("resourceType", "text")])
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    what = chance.choice(["delete", "change", "unknown", "list"])
    if what == "delete":
        del holder[path[-1]]
    elif what == "unknown" and isinstance(holder, dict):
        holder["colour"] = "red"
    elif what == "list":
        holder[path[-1]] = [holder[path[-1]]]
    else:
        holder[path[-1]] = chance.choice(WRONG)
    return f"{what} {resource['resourceType']}.{'.'.join(map(str, path))}", made


NOT_OURS = {
    "Error processing unit": "units are checked where a row reads them, against the few that are written",
    "#null'": "a coding without a code, where the binding is not required",
}
"""What HAPI says where we see nothing wrong, and why that is so."""


def test_hapi_gives_the_same_verdict(hapi_validate: Callable[[Any], list[Any]]) -> None:
    """Generated mutations of every golden resource: no false alarm, and what is missed is explained."""
    chance = random.Random(7)
    corpus = [e["resource"] for path in golden.GOLDEN for e in golden.bundle(path)["entry"]]
    missed: list[Any] = []
    explained: set[str] = set()
    for _ in range(300):
        what, made = mutated(chance.choice(corpus), chance)
        ours, theirs = thoroughly(made), hapi_validate(made)
        assert theirs or not ours, f"false alarm: {what}: {ours[0]}"
        if theirs and not ours:
            reason = next((r for r in NOT_OURS if r in str(theirs[0])), None)
            explained.add(str(reason))
            missed += [] if reason else [(what, theirs[0])]
    assert missed == []
    assert explained == set(NOT_OURS), "an explanation that is no longer needed"
