"""What a received message says, and what is wrong with it, before the ledger is asked. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mappings.event import Event
from mappings.hl7v2 import Message, head, parse, read
from mappings.hl7v2.catalogue import message_name
from mappings.hl7v2.updates import KINDS as UPDATES
from mappings.hl7v2.values import Context
from mappings.rows import Issue, MappingError

from .framing import END, START, is_clean
from .senders import Peer, Sender, find

PARKED = frozenset({"time-zone", "intrathecal-refill", "patient", "source", "code", "unit", "internal"}) | {
    "ledger-damaged"
}
"""Rules that a change on our side may mend, most of them a line in the sender's file: kept for a retry."""
REJECTED = frozenset({"sender", "processing-id", "charset", "separators", "framing", "size", "segment"}) | {
    "segment-end",
    "message-type",
    "control-id",
    "control-id-used",
}
"""Rules about the message as such (`AR`, `CR`); the others are about its content (`AE`, `CE`)."""
LONGEST_ID = 199  # HL7 v2.8, MSH-10


@dataclass(frozen=True, slots=True)
class Received:
    """The bytes between two framing marks, and who sent them; not `whole`: their beginning, of too many."""

    content: bytes
    peer: Peer
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Understood:
    """A message with all of its events, or with the issues for which none is taken.

    `key` is what it is known by when it is sent again, "" for what is not kept at all; `message` is None
    where not even its MSH could be read.
    """

    content: bytes
    content_hash: str
    message: Message | None = None
    sender: Sender | None = None
    key: str = ""
    events: tuple[Event, ...] = ()
    issues: tuple[Issue, ...] = ()
    notes: tuple[Issue, ...] = ()

    def field(self, number: int) -> str:
        """A field of MSH."""
        return self.message.field("MSH", number) if self.message is not None else ""


def understand(received: Received, senders: Sequence[Sender]) -> Understood:
    """Read a message by its sender's file; never raises for what a sender can send."""
    content = received.content
    hashed = hashlib.sha256(content.rstrip(b"\r\n")).hexdigest()  # the last segment's end says nothing
    clean = content.replace(START, b"").replace(END[:1], b"")
    first = head(clean)
    if first is None:
        return Understood(content, hashed, issues=tuple(_why_no_head(clean)))
    sender = find(senders, first.field("MSH", 3), first.field("MSH", 4), received.peer)
    if sender is None:
        why = "no sender with this MSH-3 and MSH-4 may send from here"
        return Understood(content, hashed, first, issues=(Issue("MSH[1]-3", "sender", why),))
    if not received.whole:
        issue = Issue("$", "size", "is longer than what is accepted")
        return Understood(content, hashed, first, sender, issues=(issue,))
    odd = _key("content", sender, first, hashed)
    if not is_clean(content):
        issue = Issue("$", "framing", "holds a framing byte (0x0B, 0x1C): two messages run into one?")
        return Understood(content, hashed, first, sender, odd, issues=(issue,))
    try:
        message = parse(content, charset=sender.map.charset)
    except MappingError as error:
        return Understood(content, hashed, first, sender, odd, issues=tuple(error.issues))
    return _read(Understood(content, hashed, message, sender, odd))


def _why_no_head(content: bytes) -> list[Issue]:
    try:
        parse(content[:4096])
    except MappingError as error:
        return error.issues
    return [Issue("MSH", "segment", "cannot be read")]


def _read(it: Understood) -> Understood:
    assert it.sender is not None and it.message is not None
    control_id = it.field(10)
    if not control_id or len(control_id) > LONGEST_ID:
        why = f"is required, and at most {LONGEST_ID} characters long"
        return _with(it, issues=[Issue("MSH[1]-10", "control-id", why)])
    key = _key("id", it.sender, it.message, control_id)
    if it.field(11).partition(it.message.separators.component)[0] != it.sender.processing:
        why = f"is not {it.sender.processing}, which is what this sender sends"
        return _with(it, key=key, issues=[Issue("MSH[1]-11", "processing-id", why)])
    if message_name(it.field(9), Context(it.sender.map, it.message.separators)) in UPDATES:
        why = "tells no event of a pump, and an update of the record is not kept here"
        return _with(it, key=key, issues=[Issue("MSH[1]-9", "message-type", why)])
    try:
        reading = read(it.message, it.sender.map)
    except Exception as error:  # a bug of ours with this content: kept, and read again by a later version
        why = f"internal error: {type(error).__name__}"
        return _with(it, key=key, issues=[Issue("$", "internal", why)])
    issues = list(reading.errors)
    if not issues and not reading.events:
        issues = [Issue("MSH[1]-9", "message-type", "tells no event")]
    return _with(it, key=key, events=() if issues else reading.events, issues=issues, notes=reading.notes)


def _with(
    it: Understood,
    *,
    issues: Sequence[Issue],
    key: str = "",
    events: Sequence[Event] = (),
    notes: Sequence[Issue] = (),
) -> Understood:
    return Understood(
        it.content,
        it.content_hash,
        it.message,
        it.sender,
        key or it.key,
        tuple(events),
        tuple(issues),
        tuple(notes),
    )


def other_key(it: Understood) -> str:
    """What it is known by when its control id belongs to another message already."""
    assert it.sender is not None and it.message is not None
    return _key("content", it.sender, it.message, it.content_hash)


def _key(kind: str, sender: Sender, message: Message, last: str) -> str:
    """One line of fixed width for (sender, MSH-3, MSH-4, control id or content)."""
    named = (kind, sender.name, message.field("MSH", 3), message.field("MSH", 4), last)
    return hashlib.sha256("\x1f".join(named).encode("utf-8", "surrogatepass")).hexdigest()


def status_of(issues: Sequence[Issue]) -> str:
    """`refused`, or `parked` where all that is wrong may be mended on our side."""
    return "parked" if all(issue.rule in PARKED for issue in issues) else "refused"
