"""Merging by field: the table is complete, and no verdict depends on anything but base, ours and theirs."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from mappings import load_event
from mappings.event import MAPPINGS
from mappings.exact_json import loads
from mappings.fields import Part
from mappings.paths import copy
from samples import REFILL
from service.sync import merge as module
from service.sync.merge import TABLE, Changed, Verdict, differences, merge, needs_two, same
from service.sync.owners import OWNERS, Owner

Json = Any


def leaves(schema: Any, at: str = "") -> list[str]:
    """Every field of a schema by its path; a list is one field."""
    found = []
    for name, field in schema.load_fields.items():
        if isinstance(field, Part) and not field.many:
            found += leaves(field.schema, f"{at}{name}.")
        else:
            found.append(f"{at}{name}")
    return found


@pytest.mark.parametrize("type", MAPPINGS)
def test_every_field_has_exactly_one_owner(type: str) -> None:
    rows = OWNERS[type]
    for path in leaves(MAPPINGS[type].SCHEMA):
        over = [row for row in rows if path == row or path.startswith(f"{row}.")]
        assert len(over) == (0 if path == "version" else 1), (type, path, over)


@pytest.mark.parametrize("type", MAPPINGS)
def test_no_owner_is_named_for_a_field_that_is_not_there(type: str) -> None:
    paths = leaves(MAPPINGS[type].SCHEMA)
    for row in OWNERS[type]:
        assert any(path == row or path.startswith(f"{row}.") for path in paths), (type, row)


@pytest.mark.parametrize("type", MAPPINGS)
def test_what_is_a_dose_or_a_strength_is_never_merged_silently(type: str) -> None:
    """Every quantity of drug and every strength, wherever it stands, found by its unit."""
    for path, units in quantities(MAPPINGS[type].SCHEMA):
        if {"ug", "ug/d", "ug/mL", "mg"} & set(units):
            (owner,) = {o for row, o in OWNERS[type].items() if path == row or path.startswith(f"{row}.")}
            assert owner is Owner.DOSE, (type, path)


def quantities(schema: Any, at: str = "") -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for name, field in schema.load_fields.items():
        if isinstance(field, Part):
            found += quantities(field.schema, f"{at}{name}.")
        elif hasattr(field, "units"):
            found.append((f"{at}{name}", field.units))
    return found


def test_the_table_has_a_verdict_for_every_case() -> None:
    assert set(TABLE) == set(product(Owner, Changed))


def test_a_dose_of_theirs_is_never_taken_by_the_table() -> None:
    assert {TABLE[Owner.DOSE, Changed.THEIRS], TABLE[Owner.DOSE, Changed.BOTH]} == {Verdict.ASK}


BASE = load_event(loads(json.dumps(REFILL).encode()))


def changed(**fields: Json) -> Json:
    """The sample refill with other values; a dotted name is written with two underscores."""
    event = copy(BASE)
    for name, value in fields.items():
        node = event
        *above, last = name.split("__")
        for step in above:
            node = node[step]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return load_event(event)


def ml(value: str) -> Json:
    return {"value": Decimal(value), "unit": "mL"}


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ({"drug__lot": "B1"}, {}, {"drug__lot": "B1"}),
        ({}, {"drug__lot": "B1"}, {"drug__lot": "B1"}),
        ({"note": "x"}, {"drug__lot": "B1"}, {"note": "x", "drug__lot": "B1"}),
        ({"drug__lot": "B1"}, {"drug__lot": "B1"}, {"drug__lot": "B1"}),
        ({"volume_removed": ml("3.4")}, {"volume_removed": ml("9")}, {"volume_removed": ml("3.4")}),
        ({"volume_instilled": ml("19")}, {"note": "x"}, {"volume_instilled": ml("19"), "note": "x"}),
        ({}, {"volume_removed": ml("3.00")}, {}),
        ({}, {"occurred_at": "2025-05-05T15:00:00Z"}, {}),
        ({}, {"status": "entered-in-error"}, {"status": "entered-in-error"}),
        (
            {"status": "entered-in-error"},
            {"drug__lot": "B1"},
            {"status": "entered-in-error", "drug__lot": "B1"},
        ),
    ],
)
def test_what_merges(ours: Json, theirs: Json, wanted: Json) -> None:
    found = merge(BASE, changed(**ours), changed(**theirs))
    assert found.asked == ()
    assert load_event(found.event) == changed(**wanted)


@pytest.mark.parametrize(
    ("ours", "theirs", "path", "two"),
    [
        ({"drug__lot": "B1"}, {"drug__lot": "B2"}, "drug.lot", False),
        ({"note": "x"}, {"note": "y"}, "note", False),
        ({}, {"note": None}, "note", False),  # nothing said is no word against what was said
        ({}, {"volume_removed": ml("9")}, "volume_removed", False),
        ({}, {"volume_instilled": ml("19")}, "volume_instilled", True),
        ({}, {"drug__concentration": {"value": 500, "unit": "ug/mL"}}, "drug.concentration", True),
        ({}, {"pump": "NGP9"}, "pump", True),
        ({}, {"patient": {"system": "http://hospital.invalid/mrn", "value": "MRN2"}}, "patient", True),
        ({"note": "x"}, {"status": "entered-in-error"}, "status", True),
    ],
)
def test_what_a_person_is_asked(ours: Json, theirs: Json, path: str, two: bool) -> None:
    found = merge(BASE, changed(**ours), changed(**theirs))
    assert [one.path for one in found.asked] == [path]
    assert needs_two("refill", found.asked) is two


def test_a_retraction_is_not_taken_back_by_the_other_side() -> None:
    gone = changed(status="entered-in-error")
    found = merge(gone, gone, changed())
    assert [one.path for one in found.asked] == ["status"]


def test_without_a_base_every_difference_is_asked() -> None:
    found = merge(None, changed(note="x"), changed(drug__lot="B1"))
    assert {one.path for one in found.asked} == {"note", "drug.lot"}


def test_a_record_of_the_ehr_may_be_edited_there_as_long_as_nobody_did_here() -> None:
    theirs = changed(volume_instilled=ml("19"), note=None)
    found = merge(BASE, BASE, theirs, their_record=True)
    assert load_event(found.event) == theirs
    ours = changed(volume_instilled=ml("18"))
    assert [one.path for one in merge(BASE, ours, theirs, their_record=True).asked] == ["volume_instilled"]


def test_a_persons_choices_decide() -> None:
    ours, theirs = changed(note="x", drug__lot="B1"), changed(note="y", drug__lot="B2")
    found = merge(BASE, ours, theirs, choices={"note": "theirs", "drug.lot": "ours"})
    assert (found.asked, load_event(found.event)) == ((), changed(note="y", drug__lot="B1"))


@st.composite
def three(draw: st.DrawFn) -> tuple[Json, Json, Json]:
    """Three versions of a record: of the fields that vary, each side has its own mixture."""
    versions = [draw(strategies.EVENTS["refill"]) for _ in range(3)]
    base = versions[0]
    paths = [path for path in OWNERS["refill"] if path not in ("type", "source", "id")]
    sides = []
    for other in versions[1:]:
        side = copy(base)
        for path in draw(st.sets(st.sampled_from(paths), max_size=6)):
            module._take_over(side, path, other)
        sides.append(side)
    return base, sides[0], sides[1]


@given(three())
def test_no_edit_is_lost_unseen(versions: tuple[Json, Json, Json]) -> None:
    """Whatever either side changed stands in the result, or is named: asked, or overruled by its owner."""
    base, ours, theirs = versions
    found = merge(base, ours, theirs)
    named = {one.path for one in (*found.asked, *found.overruled)}
    for side in (ours, theirs):
        for one in differences(base, base, side):
            if one.path not in named:
                assert same(module._value(found.event, one.path), one.theirs), one.path
    dose = {one.path for one in found.taken if one.owner is Owner.DOSE}
    assert dose == set()


@given(three())
def test_merging_with_what_was_agreed_changes_nothing(versions: tuple[Json, Json, Json]) -> None:
    base, ours, _ = versions
    assert merge(base, ours, base).asked == ()
    assert differences(None, merge(base, ours, base).event, ours) == []
