"""HL7 v2 messages in a stream to events or FHIR, and back; a bad one is an error of its own.

Pure but for what the caller reads and writes. `Losses` is told what is lost there and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mappings import MappingError, load_event
from mappings.exact_json import dumps, lines, loads
from mappings.hl7v2 import Message, Reading, SenderMap, explain, parse, read, write, write_update
from mappings.hl7v2.fhir import from_fhir, to_fhir
from mappings.hl7v2.framing import Framed, framed
from mappings.hl7v2.rewrite import lost
from mappings.stream import Converter
from mappings.validate import validate

from .conversion import TEACHING, Converted, told_in

Json = Any
Losses = Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How messages are read and written: whose they are, how they stand in a stream, which ones are made."""

    sender: SenderMap
    frame: str = "text"
    message: str = ""
    source: str = "fhir"
    original: bool = True


def hl7_to_events(
    found: Iterable[Framed], way: Way, losses: Losses | None = None, after: int = 0
) -> Iterator[Converted]:
    """Messages (behind the first `after`) to events; `losses` is told what of one its events do not hold."""
    for number, message, errors in _read(found, way):
        if number <= after:
            continue
        if message is None:
            yield errors
            continue
        reading = read(message, way.sender)
        if losses is not None:
            losses(_account(number, message, _written(reading, way.sender)))
        out = tuple(dumps(told) for told in (*reading.events, *reading.updates))
        yield Converted(number, out, tuple(reading.errors), tuple(reading.notes))


def hl7_to_fhir(
    found: Iterable[Framed], way: Way, losses: Losses | None = None, after: int = 0
) -> Iterator[Converted]:
    """Messages to transaction Bundles; `losses` is told what of a message does not come back.

    The first `after` were converted before: only what they teach about a pump is taken from them.
    """
    converter = Converter()
    for number, message, errors in _read(found, way):
        if number <= after:
            if message is not None:
                _learn(converter, message, way)
            continue
        if message is None:
            yield errors
            continue
        made = to_fhir(message, way.sender, converter, original=way.original)
        bad = [*made.errors, *(issue for bundle in made.bundles for issue in validate(bundle))]
        if losses is not None:
            back = [m for bundle in made.bundles for m in from_fhir(bundle, way.sender).messages]
            losses(_account(number, message, back))
        yield Converted(number, tuple(dumps(b) for b in made.bundles), tuple(bad), tuple(made.notes))


def _learn(converter: Converter, message: Message, way: Way) -> None:
    for event in read(message, way.sender).events:
        if event["type"] in TEACHING:
            with suppress(MappingError):
                converter.to_fhir(event)


def explained(found: Iterable[Framed], way: Way, *, table: bool) -> Iterator[Converted]:
    """Where each element of the FHIR of each message comes from, down to the field of the message."""
    for number, message, errors in _read(found, way):
        if message is None:
            yield errors
            continue
        told, reading = explain.shown(message, way.sender)
        yield Converted(number, told_in(told, table=table), tuple(reading.errors), tuple(reading.notes))


def events_to_hl7(stream: Iterable[bytes], way: Way, after: int = 0) -> Iterator[Converted]:
    """Events (a line each, behind the first `after` lines) to messages."""
    for number, line in lines(stream):
        if number <= after:
            continue
        try:
            message = write(load_event(loads(line)), way.sender, message=way.message)
            yield Converted(number, (framed(message, way.frame),))
        except MappingError as error:
            yield Converted(number, (), tuple(error.issues))


def fhir_to_hl7(stream: Iterable[bytes], way: Way, after: int = 0) -> Iterator[Converted]:
    """Bundles or resources (a line each, behind the first `after` lines) to messages."""
    for number, line in lines(stream):
        if number <= after:
            continue
        try:
            made = from_fhir(loads(line), way.sender, source=way.source, message=way.message)
            out = tuple(framed(message, way.frame) for message in made.messages)
            yield Converted(number, out, tuple(made.errors), tuple(made.notes))
        except MappingError as error:
            yield Converted(number, (), tuple(error.issues))


def _read(found: Iterable[Framed], way: Way) -> Iterator[tuple[int, Message | None, Converted]]:
    for number, data in found:
        try:
            if isinstance(data, MappingError):
                raise data
            yield number, parse(data, charset=way.sender.charset), Converted(number, ())
        except MappingError as error:
            yield number, None, Converted(number, (), tuple(error.issues))


def _written(reading: Reading, sender: SenderMap) -> list[Message]:
    written = [write(event, sender) for event in reading.events]
    return written + [write_update(update, sender) for update in reading.updates]


def _account(number: int, message: Message, written: list[Message]) -> Json:
    """What of the message stands in none of those that were written for it."""
    missing = [{(i.path, i.rule) for i in lost(message, one)} for one in written]
    gone = set.intersection(*missing) if missing else {("$", "lost")}
    return {
        "message": number,
        "control_id": message.field("MSH", 10),
        "lost": [{"path": path, "rule": rule} for path, rule in sorted(gone)],
    }
