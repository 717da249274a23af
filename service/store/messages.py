"""HL7 v2 messages as they came, how each was answered, and which events it became.

A message is known by its `key` (sender, MSH-3, MSH-4, MSH-10): a second one with the same key is never added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from mappings import exact_json
from mappings.rows import Issue

from .tables import message_events, messages
from .times import stamp

Json = Any
Told = tuple[int, str]
STATUSES = ("taken", "parked", "refused")
"""In the ledger; kept until the sender's file is mended; not readable, or it contradicts the ledger."""


@dataclass(frozen=True, slots=True)
class New:
    """A message to keep; `told` are (ledger number, content hash) of its events."""

    key: str
    sender: str
    application: str
    facility: str
    control_id: str
    type: str
    status: str
    content_hash: str
    raw: bytes
    answer: bytes
    issues: Sequence[Issue] = ()
    told: Sequence[Told] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What was answered to a message that was sent before; `id` is None within the same transaction."""

    id: int | None
    key: str
    content_hash: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A kept message; `answer` is framed, empty where the sender asked for none."""

    id: int
    sender: str
    application: str
    facility: str
    control_id: str
    type: str
    status: str
    raw: bytes
    answer: bytes
    issues: tuple[Issue, ...]
    received_at: str
    updated_at: str


def known(c: Connection, tenant_id: int, keys: Collection[str]) -> dict[str, Known]:
    """Those of the keys that are taken already."""
    columns = (messages.c.id, messages.c.key, messages.c.content_hash, messages.c.answer)
    query = select(*columns).where(messages.c.tenant_id == tenant_id, messages.c.key.in_(keys))
    return {row.key: Known(row.id, row.key, row.content_hash, row.answer) for row in c.execute(query)}


def add(c: Connection, tenant_id: int, new: Sequence[New], *, now: datetime) -> None:
    """Keep messages, in their order, and link each to its events."""
    if not new:
        return
    at = stamp(now)
    rows = [
        {name: getattr(one, name) for name in _PLAIN}
        | {"tenant_id": tenant_id, "issues": _dumped(one.issues), "received_at": at, "updated_at": at}
        for one in new
    ]
    made = c.execute(insert(messages).returning(messages.c.id, sort_by_parameter_order=True), rows)
    ids = [row.id for row in made]
    _link(c, tenant_id, ((id, told) for id, one in zip(ids, new, strict=True) for told in one.told))


_PLAIN = ("key", "sender", "application", "facility", "control_id", "type", "status") + (
    "content_hash",
    "raw",
    "answer",
)


def _link(c: Connection, tenant_id: int, pairs: Iterable[tuple[int, Told]]) -> None:
    rows = [
        {"tenant_id": tenant_id, "message_id": id, "event_seq": seq, "content_hash": hashed}
        for id, (seq, hashed) in dict.fromkeys(pairs)
    ]
    if rows:
        c.execute(insert(message_events), rows)


def decide(
    c: Connection,
    tenant_id: int,
    id: int,
    *,
    status: str,
    answer: bytes,
    issues: Sequence[Issue],
    told: Sequence[Told],
    now: datetime,
) -> None:
    """What a kept message came to when it was tried again; a resend gets the new answer."""
    assert status in STATUSES
    c.execute(
        update(messages)
        .where(messages.c.tenant_id == tenant_id, messages.c.id == id)
        .values(status=status, answer=answer, issues=_dumped(issues), updated_at=stamp(now))
    )
    _link(c, tenant_id, ((id, one) for one in told))


def find(c: Connection, tenant_id: int, id: int) -> Stored | None:
    """The message with this number."""
    query = select(messages).where(messages.c.tenant_id == tenant_id, messages.c.id == id)
    row = c.execute(query).first()
    return _stored(row) if row is not None else None


def search(
    c: Connection,
    tenant_id: int,
    *,
    limit: int,
    after_id: int = 0,
    status: str | None = None,
    sender: str | None = None,
    source_message: str | None = None,
) -> list[Stored]:
    """Messages in the order of arrival.

    `source_message` is the sha256 of an event's content, which its Provenance.entity names.
    """
    query = select(messages).where(messages.c.tenant_id == tenant_id, messages.c.id > after_id)
    if status is not None:
        query = query.where(messages.c.status == status)
    if sender is not None:
        query = query.where(messages.c.sender == sender)
    if source_message is not None:
        told = select(message_events.c.message_id).where(
            message_events.c.tenant_id == tenant_id, message_events.c.content_hash == source_message
        )
        query = query.where(messages.c.id.in_(told))
    return [_stored(row) for row in c.execute(query.order_by(messages.c.id).limit(limit))]


def seqs(c: Connection, tenant_id: int, id: int) -> list[int]:
    """The ledger numbers of the events of a message."""
    query = select(message_events.c.event_seq).where(
        message_events.c.tenant_id == tenant_id, message_events.c.message_id == id
    )
    return [row.event_seq for row in c.execute(query.order_by(message_events.c.event_seq))]


def of_event(c: Connection, tenant_id: int, seq: int) -> list[int]:
    """The numbers of the messages that told an event."""
    query = select(message_events.c.message_id).where(
        message_events.c.tenant_id == tenant_id, message_events.c.event_seq == seq
    )
    return [row.message_id for row in c.execute(query.order_by(message_events.c.message_id))]


def held(c: Connection) -> dict[str, int]:
    """How many messages wait for a person, by status."""
    waiting = [status for status in STATUSES if status != "taken"]
    query = (
        select(messages.c.status, func.count().label("number"))
        .where(messages.c.status.in_(waiting))
        .group_by(messages.c.status)
    )
    return dict.fromkeys(waiting, 0) | {row.status: row.number for row in c.execute(query)}


def _dumped(issues: Sequence[Issue]) -> str:
    return exact_json.dumps([{"path": i.path, "rule": i.rule, "message": i.message} for i in issues]).decode()


def _stored(row: Row[Any]) -> Stored:
    found: Json = exact_json.loads(row.issues)
    return Stored(
        id=row.id,
        sender=row.sender,
        application=row.application,
        facility=row.facility,
        control_id=row.control_id,
        type=row.type,
        status=row.status,
        raw=row.raw,
        answer=row.answer,
        issues=tuple(Issue(i["path"], i["rule"], i["message"]) for i in found),
        received_at=row.received_at,
        updated_at=row.updated_at,
    )
