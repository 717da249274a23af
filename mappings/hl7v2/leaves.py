"""The leaves of an event: every value of it under its path, and how OBX writes each by its kind.

`after.steps[0].dose` is the leaf (`after.steps[].dose`, 0). What a kind is follows from the event's schema,
so that a field added there travels in HL7 v2 from the same day on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from marshmallow import Schema

from mappings.event import MAPPINGS
from mappings.fields import Code, Day, Flag, Moment, Part, Prose, Quantity, Whole, Words
from mappings.paths import Json
from mappings.rows import Issue, MappingError, Refused

from .values import (
    DAY,
    FLAG,
    MOMENT,
    TEXT,
    WHOLE,
    WORD,
    WORDS,
    Codec,
    Context,
    Leaf,
    Leaves,
    Texts,
    in_units,
    number_in,
    unit_in,
    unit_out,
)

Key = tuple[str, int]
Flat = dict[Key, Leaf]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a leaf stands in OBX: its type (OBX-2), and the codec of OBX-5 and OBX-6."""

    type: str
    codec: Codec


def _measured(units: tuple[str, ...]) -> Codec:
    def out(leaves: Leaves, c: Context) -> Texts:
        return format(leaves[0]["value"], "f"), unit_out(leaves[0]["unit"], c)

    def read(texts: Texts, c: Context) -> Leaves:
        if not texts[0]:
            return (None,)
        return (in_units(number_in(texts[0]), unit_in(texts[1], c), units, c),)

    return Codec(out, read)


def _without_unit(codec: Codec) -> Codec:
    def read(texts: Texts, c: Context) -> Leaves:
        if texts[1]:
            raise Refused("unit", "has a unit where there is none")
        return codec.from_hl7(texts[:1], c)

    return Codec(lambda leaves, c: (*codec.to_hl7(leaves, c), ""), read)


SIMPLE = (
    (Moment, Kind("DTM", _without_unit(MOMENT))),
    (Day, Kind("DT", _without_unit(DAY))),
    (Code, Kind("CWE", _without_unit(WORD))),
    (Flag, Kind("CWE", _without_unit(FLAG))),
    (Whole, Kind("NM", _without_unit(WHOLE))),
    (Words, Kind("CWE", _without_unit(WORDS))),
    (Prose, Kind("TX", _without_unit(TEXT))),
)
AS_TEXT = Kind("ST", _without_unit(TEXT))
"""For a line, and for a time or date that its own type cannot hold exactly."""


@lru_cache(None)
def leaves_of(type: str) -> dict[str, Kind]:
    """Pattern and kind of every leaf that an event of this type may have, in the order of its schema."""
    found: dict[str, Kind] = {}
    _walk(MAPPINGS[type].SCHEMA, "", found)
    del found["type"]
    return found


def _walk(schema: Schema, under: str, found: dict[str, Kind]) -> None:
    for name, field in schema.load_fields.items():
        path = f"{under}{name}"
        if isinstance(field, Part):
            _walk(field.schema, f"{path}[]." if field.many else f"{path}.", found)
        elif isinstance(field, Quantity):
            found[path] = Kind("NM", _measured(field.units))
        else:
            found[path] = next((kind for of, kind in SIMPLE if isinstance(field, of)), AS_TEXT)


def code_of(pattern: str) -> str:
    """OBX-3.1 of a leaf: its path without the marks of lists."""
    return pattern.replace("[]", "")


@lru_cache(None)
def by_code(type: str) -> dict[str, str]:
    """Pattern of every code of a type."""
    found = {code_of(pattern): pattern for pattern in leaves_of(type)}
    assert len(found) == len(leaves_of(type))
    return found


def flat(event: Json) -> Flat:
    """The leaves of an event, in its order."""
    found: Flat = {}
    for name, value in event.items():
        if name != "type":
            _flatten(value, name, 0, found)
    return found


def _flatten(value: Json, path: str, at: int, found: Flat) -> None:
    if isinstance(value, dict) and "unit" not in value:
        for name, inner in value.items():
            _flatten(inner, f"{path}.{name}", at, found)
    elif isinstance(value, list) and isinstance(value[0], dict):
        for index, item in enumerate(value):
            _flatten(item, f"{path}[]", index, found)
    else:
        found[path, at] = value


@lru_cache(None)
def _steps(pattern: str) -> tuple[tuple[tuple[str, bool], ...], str]:
    """The parts above a leaf, each with whether it is a list, and the leaf's own name."""
    *above, last = pattern.split(".")
    return tuple((name.removesuffix("[]"), name.endswith("[]")) for name in above), last


def unflat(type: str, leaves: Flat) -> Json:
    """The event (not yet checked) of these leaves; raises `MappingError` where a list has a hole."""
    event: Json = {"type": type}
    lists: dict[str, tuple[Json, str]] = {}
    for (pattern, at), value in leaves.items():
        node = event
        above, last = _steps(pattern)
        for name, listed in above:
            holder, node = node, node.get(name)
            if node is None:
                node = holder[name] = {}
                if listed:
                    lists[pattern.partition("[]")[0]] = holder, name
            if listed:
                node = node.setdefault(at, {})
        node[last] = value
    for path, (holder, name) in lists.items():
        items = holder[name]
        if sorted(items) != list(range(len(items))):
            raise MappingError([Issue(path, "list", "its items are not numbered 1, 2, 3, …")])
        holder[name] = [items[at] for at in range(len(items))]
    return event


__all__ = ["AS_TEXT", "Flat", "Key", "Kind", "by_code", "code_of", "flat", "leaves_of", "unflat"]
