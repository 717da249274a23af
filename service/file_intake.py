"""What a file holds (HL7 v2 messages, events or FHIR), and taking all of it into the ledger.

One bad item stops no other. Taking a file again changes nothing, so that a file that failed can be mended, or
the sender's file can, and it is put in again whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO

from mappings import MappingError, read_fhir
from mappings.exact_json import lines, loads
from mappings.hl7v2 import framing
from mappings.rows import Issue
from service.mllp import intake as mllp
from service.mllp.reading import Received, understand
from service.mllp.senders import Peer, Sender, anywhere
from service.store import messages
from service.store.engine import Store
from service.store.keys import Caller

from .intake import Loaded, load, take

CHUNK = 1 << 20
PER_TRANSACTION = 64
MOST_LINE = 16_000_000
MOST_DOCUMENT = 50_000_000
"""Bytes of a JSON document that is not one line an item: it is read whole."""
HL7 = (framing.START, b"MSH", b"FHS", b"BHS", b'"')
"""How a file of messages begins: framed, as text, or a JSON string a line."""
FORMATS = ("hl7", "events", "fhir")


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that was not taken: its number in the file, from 1, and why."""

    item: int
    issues: tuple[Issue, ...]


@dataclass
class Contents:
    """What was in a file: `format` (one of `FORMATS`, or empty), items by outcome, those that failed."""

    format: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, item: int, outcome: str, issues: Sequence[Issue]) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        if issues:
            self.failures.append(Failure(item, tuple(issues)))


@dataclass(frozen=True, slots=True)
class Taking:
    """Where files go: the ledger and whose records they are; `source` names those of foreign FHIR."""

    store: Store
    caller: Caller
    senders: Sequence[Sender]
    source: str
    clock: Callable[[], datetime]


def take_file(to: Taking, stream: BinaryIO) -> Contents:
    """Take everything in a file; what is on the disk when this returns is all that counts as taken."""
    first = stream.read(4096).lstrip(b" \t\r\n")
    stream.seek(0)
    found = Contents()
    if first.startswith(HL7):
        found.format = "hl7"
        _take_hl7(to, stream, found)
    elif first[:1] in (b"{", b"["):
        _take_json(to, stream, found)
    else:
        why = "is neither HL7 v2 (MSH) nor JSON"
        found.add(1, "rejected", [Issue("$", "format", why if first else "is empty")])
    return found


def _take_hl7(to: Taking, stream: BinaryIO, found: Contents) -> None:
    senders = [anywhere(sender) for sender in to.senders]
    cut = framing.messages(iter(lambda: stream.read(CHUNK), b""))
    while batch := list(islice(cut, PER_TRANSACTION)):
        for item, data in batch:
            if isinstance(data, MappingError):
                found.add(item, "refused", data.issues)
        whole = [(item, data) for item, data in batch if isinstance(data, bytes)]
        read = [understand(Received(data, Peer("")), senders) for _, data in whole]
        done = mllp.take(to.store, to.caller.tenant_id, read, to.clock)
        for (item, _), taken in zip(whole, done, strict=True):
            if taken.outcome == "unavailable":
                raise OSError("the database cannot be written now")
            found.add(
                item, *_again(to, taken) if taken.outcome == "repeated" else (taken.outcome, taken.issues)
            )


def _again(to: Taking, taken: mllp.Taken) -> tuple[str, Sequence[Issue]]:
    """A message that was sent before; one that waits is read again by its sender's file as it is now."""
    if taken.id is None:
        return taken.outcome, ()
    with to.store.read() as c:
        known = messages.find(c, to.caller.tenant_id, taken.id)
    if known is None or known.status == "taken":
        return taken.outcome, ()
    issues = mllp.retry(to.store, to.caller.tenant_id, known, to.senders, to.clock, to.caller.name)
    return ("taken", ()) if not issues else (known.status, issues)


def _take_json(to: Taking, stream: BinaryIO, found: Contents) -> None:
    try:
        items = _items(stream)
        first = next(items, None)
    except MappingError as error:
        found.add(1, "rejected", error.issues)
        return
    if first is None:
        return
    is_fhir = isinstance(first[1], dict) and "resourceType" in first[1]
    found.format = "fhir" if is_fhir else "events"
    read = _read_fhir if is_fhir else _read_event
    numbers: list[int] = []

    def loaded() -> Iterator[Loaded]:
        for number, value in _chained(first, items):
            for one in read(to, value):
                numbers.append(number)
                yield one

    for at, result in enumerate(take(to.store, to.caller, loaded(), clock=to.clock)):
        bad = result.outcome in ("rejected", "conflict")
        found.add(numbers[at], result.outcome, result.issues if bad else ())


def _chained(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest


Item = tuple[int, Any]


def _items(stream: BinaryIO) -> Iterator[Item]:
    """The values of NDJSON by their line, a bad one as its `MappingError`; or those of one document."""
    start = stream.readline(MOST_LINE)
    stream.seek(0)
    try:
        is_line = not isinstance(loads(start), list)
    except MappingError:
        is_line = False
    if is_line:
        for number, line in lines(stream):
            try:
                yield number, loads(line)
            except MappingError as error:
                yield number, error
        return
    data = stream.read(MOST_DOCUMENT + 1)
    if len(data) > MOST_DOCUMENT:
        raise MappingError([Issue("$", "size", f"a document of more than {MOST_DOCUMENT} bytes: use NDJSON")])
    value = loads(data)
    yield from enumerate(value if isinstance(value, list) else [value], start=1)


def _read_event(to: Taking, value: Any) -> list[Loaded]:
    if isinstance(value, MappingError):
        return [Loaded(None, None, None, tuple(value.issues))]
    return [load(value)]


def _read_fhir(to: Taking, value: Any) -> list[Loaded]:
    if isinstance(value, MappingError):
        return [Loaded(None, None, None, tuple(value.issues))]
    try:
        reading = read_fhir(value, source=to.source)
    except MappingError as error:
        return [Loaded(None, None, None, tuple(error.issues))]
    made = [Loaded(event["source"], event["id"], event, (), tuple(reading.notes)) for event in reading.events]
    if reading.errors:
        made.append(Loaded(None, None, None, tuple(reading.errors)))
    return made
