"""A message to events and an event to a message: `read`, `write`, and the answer to a sender, `ack`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mappings.envelope import Event
from mappings.rows import Issue, MappingError

from .catalogue import map_for, map_of, message_name
from .leaves import Key
from .message import CODECS, Message, Segment, escape
from .rows import Group, MessageMap, decode, encode, message_of
from .sender import SenderMap
from .updates import KINDS as UPDATES
from .updates import TRIGGERS, Update, read_update, update_segments
from .values import Context, Texts, joined, moment_out

ANYONE = SenderMap()
"""A sender of whom nothing is known: only what a message says itself is read."""


Came = tuple[MessageMap, dict[Key, tuple[str, Texts]]]
"""How an event was read: by which map, and each of its leaves from which place and texts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: the events, why others could not be, and what was converted on the way."""

    events: list[Event]
    errors: list[Issue] = field(default_factory=list)
    notes: list[Issue] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    """What a message tells that is no event (updates.py)."""


def read(message: Message, sender: SenderMap = ANYONE, came: list[Came] | None = None) -> Reading:
    """The events of a message, one for each of its orders or observations; never raises.

    `came` gets, for each event, by which map and from which places it was read.
    """
    c = Context(sender, message.separators)
    events: list[Event] = []
    errors: list[Issue] = []
    if message.codec != "ascii" and message.codec not in CODECS.values():
        errors.append(Issue("MSH[1]-18", "charset", "is not a character set of HL7 v2"))
    name = message_name(message.field("MSH", 9), c)
    if name in UPDATES and not errors:
        try:
            return Reading([], [], c.notes, [read_update(message, UPDATES[name], c)])
        except MappingError as error:
            return Reading([], error.issues, c.notes)
    groups, split = _groups(message.segments)
    errors += split
    for segments in groups if not errors else ():
        group = Group(segments)
        c.came = None if came is None else {}
        try:
            m = map_of(name, group, c)
            events.append(decode(group, m, c))
            if came is not None and c.came is not None:
                came.append((m, c.came))
        except MappingError as error:
            errors.extend(error.issues)
    return Reading(events, errors, c.notes)


def _groups(segments: list[Segment]) -> tuple[list[list[Segment]], list[Issue]]:
    """The segments of each order or observation, each with those that belong to all."""
    shared: list[Segment] = []
    groups: list[list[Segment]] = []
    observed = False
    for segment in segments:
        name = segment[0]
        if name == "PID" and groups:
            return [], [Issue("PID[2]-3", "repeated", "a message about several patients is not read")]
        if name == "ORC" or (name == "OBR" and (not groups or observed)):
            groups.append([])
            observed = False
        observed = observed or name == "OBR"
        (groups[-1] if groups else shared).append(segment)
    return [[*shared, *group] for group in groups] or [shared], []


@dataclass(frozen=True, slots=True)
class Header:
    """MSH-10 and MSH-7: who this message is, and when it was made (as HL7 v2 writes a time)."""

    control_id: str
    made_at: str


def _seal(trigger: str, version: str, made_at: str, body: list[Segment]) -> str:
    """A control id that follows from what the message says: a resend has the same, a changed one another."""
    said = "\r".join([trigger, version, made_at, *("|".join(segment) for segment in body)])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def write(
    event: Event, sender: SenderMap = ANYONE, *, message: str = "", made: Header | None = None
) -> Message:
    """The message of a canonical event, for a receiver; `message` names another than its type's own.

    Without `made` its time is that of the event, and its control id follows from what it says.
    """
    c = Context(sender)
    m = map_for(event, message)
    body = encode(event, m, c)
    trigger = m.trigger(event)
    if made is None:
        made_at = moment_out(event["occurred_at"], c)
        made = Header(_seal(trigger, sender.version, made_at, body), made_at)
    return message_of([_msh(trigger, sender, made, m.profile, c), *body], c, sender.write_charset)


def write_update(update: Update, sender: SenderMap = ANYONE, *, made: Header | None = None) -> Message:
    """The message of an update, as `write` does of an event; one about a patient has its id as control id."""
    c = Context(sender)
    body, trigger = update_segments(update, c), TRIGGERS[update["kind"]]
    if made is None:
        made_at = moment_out(update["occurred_at"], c)
        named = update["kind"].startswith("patient")
        made = Header(update["id"] if named else _seal(trigger, sender.version, made_at, body), made_at)
    return message_of([_msh(trigger, sender, made, "", c), *body], c, sender.write_charset)


def is_ours(message: Message, sender: SenderMap) -> bool:
    """Whether `write` made it, for this receiver, and nobody has changed it since: its control id says so."""
    head, last = message.segments[0], message.segments[-1]
    if (
        last != [""]
        or message.codec != CODECS[sender.write_charset]
        or message.ending != "\r"
        or len(head) < 19
    ):
        return False
    if head[10] != _seal(head[9], head[12], head[7], message.segments[1:-1]):
        return False
    profile = head[21] if len(head) > 21 else ""
    return head == _msh(head[9], sender, Header(head[10], head[7]), profile, Context(sender))


def _msh(trigger: str, sender: SenderMap, made: Header, profile: str, c: Context) -> Segment:
    ours, theirs = sender.sending, sender.receiving
    names = [escape(name, c.separators) for name in (*ours, *theirs)]
    msh = [
        "MSH",
        "|",
        "^~\\&",
        *names,
        made.made_at,
        "",
        trigger,
        escape(made.control_id, c.separators),
        "P",
        sender.version,
    ]
    msh += ["", "", sender.accept_ack, sender.application_ack, "", sender.write_charset]
    return [*msh, "", "", profile] if profile else msh


# --- answers --------------------------------------------------------------------------------------------

_AT = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?(?:-(\d+)(?:\.(\d+))?)?")
ERROR_CODES = {
    "required": "101^Required field missing^HL70357",
    "number": "102^Data type error^HL70357",
    "time": "102^Data type error^HL70357",
    "date": "102^Data type error^HL70357",
    "format": "102^Data type error^HL70357",
    "code": "103^Table value not found^HL70357",
    "message-type": "200^Unsupported message type^HL70357",
    "patient": "204^Unknown key identifier^HL70357",
    "duplicate": "205^Duplicate key identifier^HL70357",
    "control-id": "101^Required field missing^HL70357",
    "control-id-used": "205^Duplicate key identifier^HL70357",
    "conflict": "205^Duplicate key identifier^HL70357",
    "processing-id": "202^Unsupported processing id^HL70357",
    "unavailable": "206^Application record locked^HL70357",  # "e.g., database locked" (table 0357)
}
OTHER_ERROR = "207^Application internal error^HL70357"


def ack(
    message: Message | None,
    code: str,
    issues: Iterable[Issue] = (),
    *,
    control_id: str,
    made_at: str,
    sender: SenderMap = ANYONE,
) -> Message:
    """The answer to a message: `AA`, `AE`, `AR`, `CA`, `CE` or `CR`, an ERR for each issue.

    None for a message of which not even the MSH could be read (`head`): its control id is not known then.
    """
    c = Context(sender)
    ours = message.separators if message is not None else c.separators
    asked = [message.field("MSH", n) if message is not None else "" for n in (3, 4, 5, 6, 9, 10, 11, 12)]
    asked = [_respelt(text, ours, c) for text in asked]
    event = asked[4].split("^")[1:2] or [""]
    trigger = f"ACK^{event[0]}^ACK" if event[0] else "ACK"
    msh = ["MSH", "|", "^~\\&", asked[2], asked[3], asked[0], asked[1], made_at, "", trigger, control_id]
    msh += [asked[6] or "P", asked[7] or sender.version, "", "", "", "", "", "UNICODE UTF-8"]
    segments = [msh, ["MSA", code, asked[5] or "UNKNOWN"]]
    return message_of([*segments, *(_err(issue, c) for issue in issues)], c)


def _respelt(text: str, theirs: Any, c: Context) -> str:
    """A field of theirs with our separators, where the sender chose others."""
    if theirs == c.separators:
        return text
    pairs = zip(
        (theirs.component, theirs.repetition, theirs.escape, theirs.subcomponent), "^~\\&", strict=True
    )
    return text.translate(str.maketrans(dict(pairs)))


def _err(issue: Issue, c: Context) -> Segment:
    """Where (segment, its number, field, repetition, component), which rule, and what to do about it."""
    found = _AT.match(issue.path)
    where = ""
    if found:
        segment, number, at, component = found.groups()
        where = joined(c, segment, number or "1", at or "", "1" if component else "", component or "")
    code = ERROR_CODES.get(issue.rule, OTHER_ERROR)
    words = escape(f"{issue.path}: {issue.message}"[:250], c.separators)
    return ["ERR", "", where, code, "E", joined(c, issue.rule, "", "99ITB"), "", "", words]
