"""NDJSON in, NDJSON out: converts a stream line by line; a bad line is an error of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from mappings import Issue, MappingError, explain, load_event, read_fhir
from mappings.exact_json import dumps, lines, loads
from mappings.stream import Converter
from mappings.validate import validate


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one line: output lines, the issues that stopped it (or part of it), and notes."""

    line: int
    out: tuple[bytes, ...]
    errors: tuple[Issue, ...] = ()
    notes: tuple[Issue, ...] = ()


def to_fhir(stream: Iterable[bytes], after: int = 0) -> Iterator[Converted]:
    """Events to transaction Bundles, each checked by the strict R4 validator before it leaves.

    Lines up to `after` were converted before: only what they teach about a pump is taken from them.
    """
    converter = Converter()
    for number, line in lines(stream):
        if number > after:
            yield line_to_fhir(converter, number, line)
        elif teaches(line):
            line_to_fhir(converter, number, line)


class _Kind(msgspec.Struct):
    type: str = ""


_kind = msgspec.json.Decoder(_Kind).decode
TEACHING = frozenset({"device", "dose-change"})
"""What `Converter` learns from."""


def teaches(line: bytes) -> bool:
    """True for a line that may change how later ones are converted."""
    try:
        return _kind(line).type in TEACHING
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def line_to_fhir(converter: Converter, number: int, line: bytes) -> Converted:
    """One line of `to_fhir`."""
    try:
        bundle = converter.to_fhir(load_event(loads(line)))
        issues = validate(bundle)
    except MappingError as error:
        return Converted(number, (), tuple(error.issues))
    return Converted(number, () if issues else (dumps(bundle),), tuple(issues))


def explained(stream: Iterable[bytes], *, table: bool) -> Iterator[Converted]:
    """Where each element of each event's FHIR comes from: a table, or a JSON object an event."""
    for number, line in lines(stream):
        try:
            yield Converted(number, told_in([explain.shown(load_event(loads(line)))], table=table))
        except MappingError as error:
            yield Converted(number, (), tuple(error.issues))


def told_in(explained: Iterable[Any], *, table: bool) -> tuple[bytes, ...]:
    """What `explain.shown` says of events, as tables or as JSON objects."""
    return tuple(line for told in explained for line in (_rows(told) if table else (dumps(told),)))


def _rows(told: Any) -> Iterator[bytes]:
    yield f"# {told['source']} {told['id']}, map {told['map_version']}".encode()
    last = None
    for element in told["elements"]:
        if element["resource"] != last:
            last = element["resource"]
            yield f"## {last}".encode()
        where = ", ".join(element["from"]) or "-"
        value = dumps(element["value"]).decode()
        row = f"{element['path']}\t{value}\t{where}\t{element['how']}"
        if "hl7" in element:
            row += "\t" + (", ".join(dict.fromkeys(one["place"] for one in element["hl7"])) or "-")
        yield row.encode()


def from_fhir(stream: Iterable[bytes], source: str, after: int = 0) -> Iterator[Converted]:
    """Resources or Bundles to events; the R4 rules that they break are notes: reading is lenient."""
    for number, line in lines(stream):
        if number > after:
            yield line_from_fhir(source, number, line)


def line_from_fhir(source: str, number: int, line: bytes) -> Converted:
    """One line of `from_fhir`."""
    try:
        content = loads(line)
        reading = read_fhir(content, source=source)
    except MappingError as error:
        return Converted(number, (), tuple(error.issues))
    out = tuple(dumps(event) for event in reading.events)
    return Converted(number, out, tuple(reading.errors), (*reading.notes, *validate(content)))


def events_of(stream: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """(line, canonical event or the `MappingError` that refused it) of an NDJSON stream."""
    for number, line in lines(stream):
        try:
            yield number, load_event(loads(line))
        except MappingError as error:
            yield number, error
