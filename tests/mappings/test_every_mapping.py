"""What every mapping promises, checked for each event type without a line of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
from mappings import EVENT_TYPES, MAPPINGS, MappingError, from_fhir, load_event, read_fhir, to_fhir
from mappings.exact_json import dumps, loads
from mappings.fields import Part
from mappings.validate import validate
from strategies import ANY_EVENT, EVENTS


def test_every_type_has_a_strategy_and_a_module() -> None:
    assert set(EVENTS) == set(EVENT_TYPES) == set(MAPPINGS)


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_an_event_comes_back_byte_for_byte(type: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(EVENTS[type])
    def check(event: dict[str, Any]) -> None:
        wire = dumps(to_fhir(event))
        assert [dumps(back) for back in from_fhir(loads(wire))] == [dumps(event)]

    check()


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_every_resource_is_strict_r4(type: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(EVENTS[type])
    def check(event: dict[str, Any]) -> None:
        bundle = to_fhir(event)
        assert validate(bundle) == []
        for entry in bundle["entry"]:
            assert validate(entry["resource"]) == []

    check()


@settings(max_examples=60, deadline=None)
@given(ANY_EVENT)
def test_loading_a_canonical_event_changes_nothing(event: dict[str, Any]) -> None:
    assert dumps(load_event(loads(dumps(event)))) == dumps(event)


@settings(max_examples=60, deadline=None)
@given(ANY_EVENT)
def test_the_same_event_gives_the_same_bytes(event: dict[str, Any]) -> None:
    assert dumps(to_fhir(event)) == dumps(to_fhir(copy.deepcopy(event)))


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


def _set(node: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just([[]]),
)


@settings(max_examples=400, deadline=None)
@given(ANY_EVENT, st.data())
def test_damaged_fhir_raises_nothing_but_its_own_error(event: dict[str, Any], data: st.DataObject) -> None:
    bundle = to_fhir(event)
    path = data.draw(st.sampled_from(list(_places(bundle))))
    _set(bundle, path, data.draw(JUNK))
    try:
        reading = read_fhir(bundle)
    except MappingError as error:
        assert error.issues
    else:
        assert reading.events or reading.errors


@settings(max_examples=400, deadline=None)
@given(ANY_EVENT, st.data())
def test_a_damaged_event_raises_nothing_but_its_own_error(event: dict[str, Any], data: st.DataObject) -> None:
    damaged = copy.deepcopy(event)
    path = data.draw(st.sampled_from(list(_places(damaged))))
    _set(damaged, path, data.draw(JUNK))
    try:
        load_event(damaged)
    except MappingError as error:
        assert all(issue.path and issue.rule and issue.message for issue in error.issues)


@settings(max_examples=100, deadline=None)
@given(ANY_EVENT, st.text(min_size=1, max_size=5))
def test_foreign_content_is_residue_and_never_a_value(event: dict[str, Any], word: str) -> None:
    bundle = to_fhir(event)
    foreign = {"url": "http://other.invalid/x", "valueString": word}
    for entry in bundle["entry"]:
        entry["resource"].setdefault("extension", []).append(dict(foreign))
        entry["resource"]["language"] = "en"
    assert from_fhir(bundle) == [event]


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_an_unknown_modifier_extension_refuses_the_whole(path: Path) -> None:
    bundle = golden.bundle(path)
    told = bundle["entry"][-2]["resource"]
    told["modifierExtension"] = [{"url": "http://other.invalid/not", "valueBoolean": True}]
    reading = read_fhir(bundle)
    assert "modifier-extension" in {issue.rule for issue in reading.errors}


def _leaves(schema: Any, path: str = "") -> Iterator[str]:
    for name, field in schema.load_fields.items():
        yield from _leaves(field.schema, f"{path}{name}.") if isinstance(field, Part) else [f"{path}{name}"]


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_every_schema_field_has_a_row_and_no_two_rows_share_a_place(type: str) -> None:
    mapping = MAPPINGS[type]
    rows = [
        (inner + name, resource, place) for resource, inner, m in mapping.MAPPED for name, place in m.places()
    ]
    held = {path for path, _, _ in rows}
    for leaf in _leaves(mapping.SCHEMA):
        holders = {leaf} | {leaf[:at] for at, char in enumerate(leaf) if char == "."}
        assert leaf in mapping.DERIVED or holders & held, f"{leaf} has no row"
    for resource, _, m in mapping.MAPPED:
        one_each = [path.text for _, _, path in m.rows]
        assert len(one_each) == len(set(one_each)), resource
