"""What is compiled for speed says what the careful code says: the encoder, and the validator's schema."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
from mappings import MAPPINGS, MappingError, to_fhir
from mappings.event import _plainly, _thoroughly
from mappings.exact_json import dumps
from mappings.rows import Mapping
from mappings.validate import is_plainly_valid, thoroughly, validate
from strategies import ANY_EVENT

ROWS = [(name, rows) for name, module in MAPPINGS.items() for _, _, rows in module.MAPPED]


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [p for key, child in children for p in [(*path, key), *places(child, (*path, key))]]


def holder(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        node = node[key]
    return node


def made(encode: Any, event: Any) -> Any:
    """The bytes, or the issues, or the class of what else went wrong."""
    try:
        return dumps(encode(copy.deepcopy(event)))
    except MappingError as error:
        return sorted((i.path, i.rule, i.message) for i in error.issues)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        return type(error)


def whole(event: Any) -> Any:
    """An event as the rows of its primary resource get it."""
    return {"status": "final", **event}


@settings(max_examples=150, deadline=None)
@given(ANY_EVENT)
def test_the_compiled_encoder_writes_the_same_bytes(event: Any) -> None:
    _, _, rows = MAPPINGS[event["type"]].MAPPED[0]
    assert made(rows.encode, whole(event)) == made(rows.encode_slowly, whole(event))


@settings(max_examples=150, deadline=None)
@given(ANY_EVENT, st.data())
def test_the_compiled_encoder_refuses_with_the_same_words(event: Any, data: st.DataObject) -> None:
    _, _, rows = MAPPINGS[event["type"]].MAPPED[0]
    damaged = whole(event)
    path = data.draw(st.sampled_from(places(damaged)))
    if isinstance(path[-1], str) and data.draw(st.booleans()):
        del holder(damaged, path)[path[-1]]
    else:
        wrong = st.sampled_from(["x", {"value": 1, "unit": "furlong"}])
        holder(damaged, path)[path[-1]] = data.draw(wrong)
    assert made(rows.encode, damaged) == made(rows.encode_slowly, damaged)


def test_every_mapping_can_be_compiled() -> None:
    for _, rows in ROWS:
        assert isinstance(rows, Mapping)
        with pytest.raises((MappingError, KeyError, AttributeError, TypeError)):
            rows.encode({})


@settings(max_examples=100, deadline=None)
@given(ANY_EVENT)
def test_the_schema_knows_all_that_is_written(event: Any) -> None:
    """Else the fast path would be of no use."""
    bundle = to_fhir(event)
    for resource in [bundle, *(entry["resource"] for entry in bundle["entry"])]:
        assert is_plainly_valid(resource)
        assert thoroughly(resource) == []


OTHER = st.one_of(
    st.sampled_from(
        ["", " ", "x", "2025-02-30", "2025-13-01T00:00:00Z", "#nothing", "Patient/1", "mg", "final"]
    ),
    st.sampled_from([-1, 0, 1.5, True, None, [], {}, [None], [{}], {"reference": "Device/1"}, {"id": "x"}]),
    st.just({"start": "2025-02-02T00:00:00Z", "end": "2025-02-01T00:00:00Z"}),
    st.sampled_from(["urn:oid:x", "urn:uuid:X", "urn:x:y", "StructureDefinition/x", "http:", "Device/a b"]),
    st.sampled_from(
        [
            {"reference": "Patient/1", "type": "Device"},
            {"reference": "Device/1", "type": "Device"},
            {"reference": "Device?identifier=a b"},
            {"reference": "#nowhere"},
            {"reference": "urn:x: y", "type": "Patient"},
        ]
    ),
)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(golden.GOLDEN), st.data())
def test_the_schema_never_says_yes_to_what_the_validator_refuses(path: Any, data: st.DataObject) -> None:
    bundle = golden.bundle(path)
    target = data.draw(st.sampled_from([bundle, *(e["resource"] for e in bundle["entry"])]))
    damaged = copy.deepcopy(target)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places(damaged)))
        inside, key = holder(damaged, place), place[-1]
        what = data.draw(st.sampled_from(["delete", "change", "add", "double", "rename"]))
        if what == "delete":
            del inside[key]
        elif what == "double" and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        elif what == "rename" and isinstance(inside, dict):
            inside[data.draw(st.sampled_from(["valueString", "extension", "other", "_status"]))] = inside.pop(
                key
            )
        elif what == "add" and isinstance(inside, dict):
            name = st.sampled_from(
                ["id", "extension", "period", "valueCode", "reference", "end", "contained"]
            )
            inside[data.draw(name)] = copy.deepcopy(data.draw(OTHER))
        else:
            inside[key] = copy.deepcopy(data.draw(OTHER))
    if is_plainly_valid(damaged):
        assert thoroughly(damaged) == []
    assert validate(damaged) == thoroughly(damaged)


def spelled(event: Any, data: st.DataObject) -> Any:
    """The event as a sender may write it: other units, whole numbers, keys in another order."""
    if isinstance(event, dict):
        if set(event) == {"value", "unit"} and event["unit"] != "mg":
            unit = data.draw(st.sampled_from([event["unit"], event["unit"].replace("ug", "mcg")]))
            value = event["value"]
            whole_number = value == value.to_integral_value() and data.draw(st.booleans())
            return {"unit": unit.replace("/d", "/day"), "value": int(value) if whole_number else value}
        keys = list(event)
        if data.draw(st.booleans()):
            keys.reverse()
        return {key: spelled(event[key], data) for key in keys}
    if isinstance(event, list):
        return [spelled(item, data) for item in event]
    return event


def told(load: Any, raw: Any) -> Any:
    try:
        return dumps(load(raw))
    except MappingError as error:
        return sorted((i.path, i.rule, i.message) for i in error.issues)


WRONG = st.one_of(
    st.sampled_from(
        ["", " x", "x ", "a\nb", "a\u2028b", "a\x85b", "\u00a0", "2025-02-30", "2025-02-03T12:00:00"]
    ),
    st.sampled_from(
        ["2025-02-03T12:00:60Z", "2025-02-03T12:00:00+14:30", "9" * 300, "24:00", "mg", "mcg/mL"]
    ),
    st.sampled_from([None, True, 0, -1, 10**20, Decimal("-0.0"), Decimal("1E+20"), Decimal("0.1"), [], {}]),
    st.sampled_from(
        [{"value": 1}, {"value": Decimal("1.0"), "unit": "mL"}, [[]], ["mon", "mon"], Decimal("NaN")]
    ),
)


@settings(max_examples=300, deadline=None)
@given(ANY_EVENT, st.data())
def test_the_compiled_loader_loads_the_same_event(event: Any, data: st.DataObject) -> None:
    raw = spelled(event, data)
    plainly, schema = _plainly(event["type"]), MAPPINGS[event["type"]].SCHEMA
    assert dumps(plainly(raw)) == told(lambda r: _thoroughly(schema, r), raw)


@settings(max_examples=1500, deadline=None)
@given(ANY_EVENT, st.data())
def test_the_compiled_loader_takes_nothing_that_is_refused(event: Any, data: st.DataObject) -> None:
    damaged = copy.deepcopy(event)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places(damaged)))
        inside, key = holder(damaged, place), place[-1]
        if data.draw(st.booleans()):
            inside[key] = copy.deepcopy(data.draw(WRONG))
        elif isinstance(inside, dict) and data.draw(st.booleans()):
            inside[data.draw(st.sampled_from(["surprise", "note", "performer"]))] = copy.deepcopy(
                data.draw(WRONG)
            )
        else:
            del inside[key]
    plain = _plainly(event["type"])(damaged)
    if plain is not None:
        schema = MAPPINGS[event["type"]].SCHEMA
        assert dumps(plain) == told(lambda r: _thoroughly(schema, r), damaged)


@pytest.mark.parametrize("white", ["\x85", "\x1c", "\x1f", "\ufeff", "\u2028", "\u00a0"])
def test_white_space_that_not_every_pattern_language_knows(white: str) -> None:
    event = golden.events(golden.FIXTURES / "golden/alarm/sounding.event.json")[-1]
    schema = MAPPINGS["alarm"].SCHEMA
    for field in ("pump", "id", "note"):
        damaged = event | {field: f"a{white}b"}
        plain = _plainly("alarm")(damaged)
        assert plain is None or dumps(plain) == told(lambda r: _thoroughly(schema, r), damaged)
    for patient in ({"language": white}, {"name": [{"text": white}]}, {"implicitRules": f"u:{white}"}):
        resource = {"resourceType": "Patient", "active": True, **patient}
        assert not is_plainly_valid(resource) or thoroughly(resource) == []
