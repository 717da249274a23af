"""The ledger: what `accept` adds to it, and how it is read back.

An event is never changed: a correction is a row with a later version, and the current version of a
record is the row with its highest version. A row that is not what was written (service/chain.py) is never
read as an event: every question that meets one raises `Damaged`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from mappings import exact_json
from mappings.event import Event, identity, occurred, pump_of, version
from service.chain import Damaged, check_event

from . import audit, chains, deliveries
from .endpoints import Endpoint
from .tables import events
from .times import stamp


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of an event: accepted, replayed, corrected or conflict; `seq` is None for a conflict."""

    outcome: str
    seq: int | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One version of one record; `event` is its canonical content."""

    seq: int
    version: int
    event: Event
    content_hash: str
    received_at: str
    origin: str | None


def content_hash(event: Event) -> str:
    """sha256 of the canonical JSON, digit for digit."""
    return hashlib.sha256(exact_json.dumps(event)).hexdigest()


def accept(
    c: Connection,
    tenant_id: int,
    event: Event,
    *,
    received_at: datetime,
    actor: str,
    endpoints: Sequence[Endpoint],
    origin: str | None = None,
) -> Accepted:
    """Add a canonical event, a pending delivery for each enabled endpoint but `origin`, and an audit row.

    Same content: replayed, nothing added. Other content: corrected with a later version, else a conflict,
    of which only the audit row is kept.
    """
    done = accept_many(
        c, tenant_id, [event], received_at=received_at, actor=actor, endpoints=endpoints, origin=origin
    )
    return done[0]


def accept_many(
    c: Connection,
    tenant_id: int,
    added: Sequence[Event],
    *,
    received_at: datetime,
    actor: str,
    endpoints: Sequence[Endpoint],
    origin: str | None = None,
) -> list[Accepted]:
    """`accept` each, in order; they are of different records."""
    at = stamp(received_at)
    known = versions_of(c, tenant_id, [identity(event) for event in added])
    hashes = [content_hash(event) for event in added]
    done = [
        _outcome(event, hashed, known.get(identity(event), ()))
        for event, hashed in zip(added, hashes, strict=True)
    ]
    new = [n for n, one in enumerate(done) if one.outcome in ("accepted", "corrected")]
    seqs = _insert(c, tenant_id, [(added[n], hashes[n]) for n in new], at, origin)
    for n, seq in zip(new, seqs, strict=True):
        done[n] = replace(done[n], seq=seq)
    targets = [e.id for e in endpoints if e.enabled and e.name != origin]
    deliveries.add(c, tenant_id, [(seq, added[n]) for n, seq in zip(new, seqs, strict=True)], targets, at=at)
    rows = [_audited(event, one, at, actor) for event, one in zip(added, done, strict=True)]
    audit.write_many(c, tenant_id, [row for row in rows if row["action"] != "replayed"])
    return done


def _outcome(event: Event, hashed: str, known: Sequence[tuple[int, int, str]]) -> Accepted:
    """What becomes of an event whose record has these versions; what is added has no number yet."""
    if (same := next((seq for seq, _, other in known if other == hashed), None)) is not None:
        return Accepted("replayed", same)
    newest = known[-1][1] if known else 0
    if version(event) > newest:
        return Accepted("corrected" if known else "accepted", None)
    reason = (
        f"version {newest} of this record is stored with other content; "
        f"a correction needs a version above {newest}, this one has {version(event)}"
    )
    return Accepted("conflict", None, reason)


def _audited(event: Event, done: Accepted, at: str, actor: str) -> dict[str, str]:
    return {
        "at": at,
        "actor": actor,
        "action": done.outcome,
        "subject": "/".join(identity(event)),
        "detail": done.reason or f"version {version(event)}",
    }


def _insert(
    c: Connection, tenant_id: int, added: Sequence[tuple[Event, str]], received_at: str, origin: str | None
) -> list[int]:
    """Rows of events with their content hashes; their numbers."""
    rows = [
        {
            "source": event["source"],
            "event_id": event["id"],
            "version": version(event),
            "type": event["type"],
            "status": event.get("status", "final"),
            "patient_system": event["patient"]["system"],
            "patient_value": event["patient"]["value"],
            "pump": pump_of(event),
            "occurred_at": event["occurred_at"],
            "occurred_utc": stamp(occurred(event)),
            "content": exact_json.dumps(event).decode(),
            "content_hash": hashed,
            "received_at": received_at,
            "origin": origin,
        }
        for event, hashed in added
    ]
    return chains.append(c, "events", tenant_id, rows)


def versions(c: Connection, tenant_id: int, source: str, event_id: str) -> list[tuple[int, int, str]]:
    """(seq, version, content hash) of each stored version, ascending."""
    return versions_of(c, tenant_id, [(source, event_id)]).get((source, event_id), [])


def versions_of(
    c: Connection, tenant_id: int, names: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[tuple[int, int, str]]]:
    """`versions` of each of these records (source, id) that is known."""
    ids: dict[str, set[str]] = {}
    for source, event_id in names:
        ids.setdefault(source, set()).add(event_id)
    found: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
    for source, wanted in ids.items():
        asked = {"tenant_id": tenant_id, "source": source, "event_ids": sorted(wanted)}
        for row in c.execute(_VERSIONS, asked):
            found.setdefault((source, row.event_id), []).append((row.seq, row.version, row.content_hash))
    return found


def find(c: Connection, tenant_id: int, source: str, event_id: str) -> list[StoredEvent]:
    """Every version of a record, ascending; the last one is current."""
    rows = c.execute(select(events).where(_record(tenant_id, source, event_id)).order_by(events.c.version))
    return [_stored(row) for row in rows]


def by_seq(c: Connection, tenant_id: int, seq: int) -> StoredEvent | None:
    """The event with this ledger number."""
    row = c.execute(select(events).where(events.c.tenant_id == tenant_id, events.c.seq == seq)).first()
    return _stored(row) if row is not None else None


def by_seqs(c: Connection, tenant_id: int, seqs: Sequence[int]) -> dict[int, StoredEvent | Damaged]:
    """The events with these ledger numbers; one that is damaged hides no other."""
    found = c.execute(_BY_SEQS, {"seqs": list(seqs)})
    return {row.seq: _if_whole(row) for row in found if row.tenant_id == tenant_id}


def _if_whole(row: Row[Any]) -> StoredEvent | Damaged:
    try:
        return _stored(row)
    except Damaged as error:
        return error


def other_versions(
    c: Connection, tenant_id: int, seqs: Sequence[int]
) -> dict[int, list[StoredEvent | Damaged]]:
    """The other versions, ascending, of the records that these ledger numbers are versions of."""
    found: dict[int, list[StoredEvent | Damaged]] = {}
    for row in c.execute(_OTHER_VERSIONS, {"seqs": list(seqs)}):
        if row.tenant_id == tenant_id:
            found.setdefault(row.of_seq, []).append(_if_whole(row))
    return found


def search(
    c: Connection,
    tenant_id: int,
    *,
    limit: int,
    after_seq: int = 0,
    pump: str | None = None,
    patient: tuple[str, str] | None = None,
    type: str | None = None,
    since: datetime | None = None,
    up_to: int | None = None,
) -> list[StoredEvent]:
    """Current versions in ledger order, from `after_seq`; `since` is the earliest `occurred_at`.

    `up_to` is the last number of the ledger that counts: what was current when that one came.
    """
    query = _current(tenant_id, up_to).where(events.c.seq > after_seq)
    if pump is not None:
        query = query.where(events.c.pump == pump)
    if patient is not None:
        query = query.where(events.c.patient_system == patient[0], events.c.patient_value == patient[1])
    if type is not None:
        query = query.where(events.c.type == type)
    if since is not None:
        query = query.where(events.c.occurred_utc >= stamp(since))
    return [_stored(row) for row in c.execute(query.order_by(events.c.seq).limit(limit))]


def timeline(c: Connection, tenant_id: int, pump: str, *, type: str | None = None) -> list[StoredEvent]:
    """Current versions of a pump's events (of one type), retracted ones too, as they happened.

    Of one instant, the record that came first goes first: a correction keeps its record's place.
    """
    first = events.alias("first")
    came = (
        select(func.min(first.c.seq))
        .where(
            first.c.tenant_id == events.c.tenant_id,
            first.c.source == events.c.source,
            first.c.event_id == events.c.event_id,
        )
        .scalar_subquery()
    )
    query = _current(tenant_id).where(events.c.pump == pump).order_by(events.c.occurred_utc, came)
    if type is not None:
        query = query.where(events.c.type == type)
    return [_stored(row) for row in c.execute(query)]


def beside(
    c: Connection, tenant_id: int, *, pump: str, patient: tuple[str, str], types: Sequence[str]
) -> list[StoredEvent]:
    """Current versions, of `types`, about the patient but not about this pump, as they happened.

    A device that names no pump is none: nothing tells which pump it belongs to.
    """
    query = _current(tenant_id).where(
        events.c.patient_system == patient[0],
        events.c.patient_value == patient[1],
        events.c.type.in_(types),
        or_(events.c.pump != pump, and_(events.c.pump.is_(None), events.c.type != "device")),
    )
    return [_stored(row) for row in c.execute(query.order_by(events.c.occurred_utc, events.c.seq))]


def current(c: Connection, tenant_id: int, *, pump: str, limit: int) -> list[StoredEvent]:
    """Current versions about a pump that are not retracted, as they happened."""
    asked = {"tenant_id": tenant_id, "pump": pump, "most": limit}
    return [_stored(row) for row in c.execute(_OF_PUMP, asked)]


def devices_of(
    c: Connection, tenant_id: int, pumps: Collection[str]
) -> dict[str, list[StoredEvent | Damaged]]:
    """Current device records of these pumps that are not retracted, as they happened."""
    found: dict[str, list[StoredEvent | Damaged]] = {}
    for row in c.execute(_DEVICES, {"tenant_id": tenant_id, "pumps": sorted(pumps)}):
        found.setdefault(row.pump, []).append(_if_whole(row))
    return found


def knows_patient(c: Connection, tenant_id: int, system: str, value: str) -> bool:
    """Whether any event names this patient."""
    named = (events.c.patient_system == system, events.c.patient_value == value)
    return (
        c.execute(select(events.c.seq).where(events.c.tenant_id == tenant_id, *named).limit(1)).first()
        is not None
    )


def patients(
    c: Connection, tenant_id: int, *, limit: int, after: tuple[str, str] = ("", "")
) -> list[tuple[str, str]]:
    """(system, value) of the patients that events name, in text order, after `after`."""
    system, value = events.c.patient_system, events.c.patient_value
    later = or_(system > after[0], and_(system == after[0], value > after[1]))
    query = select(system, value).where(events.c.tenant_id == tenant_id, later).distinct()
    return [(row[0], row[1]) for row in c.execute(query.order_by(system, value).limit(limit))]


def pumps(c: Connection, tenant_id: int, *, limit: int, after: str = "") -> list[str]:
    """The serials of the pumps that current versions name, in text order, after `after`."""
    query = (
        select(events.c.pump)
        .where(events.c.tenant_id == tenant_id, events.c.pump > after, ~_superseded())
        .distinct()
        .order_by(events.c.pump)
        .limit(limit)
    )
    return [row.pump for row in c.execute(query)]


def _record(tenant_id: Any, source: Any, event_id: Any) -> ColumnElement[bool]:
    return and_(events.c.tenant_id == tenant_id, events.c.source == source, events.c.event_id == event_id)


def _superseded(up_to: int | None = None) -> ColumnElement[bool]:
    later = events.alias("later")
    found = exists().where(
        later.c.tenant_id == events.c.tenant_id,
        later.c.source == events.c.source,
        later.c.event_id == events.c.event_id,
        later.c.version > events.c.version,
    )
    return found if up_to is None else found.where(later.c.seq <= up_to)


def _current(tenant_id: Any, up_to: int | None = None) -> Select[Any]:
    query = select(events).where(events.c.tenant_id == tenant_id, ~_superseded(up_to))
    return query if up_to is None else query.where(events.c.seq <= up_to)


# What is asked for every event is built once: building it takes longer than SQLite's answer.
# Of numbers the tenant is looked at afterwards: asked for here, SQLite walks through all that the tenant has.
_BY_SEQS = select(events).where(events.c.seq.in_(bindparam("seqs", expanding=True)))
_OF = events.alias("of")
_OTHER_VERSIONS = (
    select(events, _OF.c.seq.label("of_seq"))
    .join(
        _OF,
        and_(
            _OF.c.tenant_id == events.c.tenant_id,
            _OF.c.source == events.c.source,
            _OF.c.event_id == events.c.event_id,
            _OF.c.version != events.c.version,
        ),
    )
    .where(_OF.c.seq.in_(bindparam("seqs", expanding=True)))
    .order_by(events.c.version)
)
_VERSIONS = (
    select(events.c.event_id, events.c.seq, events.c.version, events.c.content_hash)
    .where(
        events.c.tenant_id == bindparam("tenant_id"),
        events.c.source == bindparam("source"),
        events.c.event_id.in_(bindparam("event_ids", expanding=True)),
    )
    .order_by(events.c.event_id, events.c.version)
)
_OF_PUMP = (
    _current(bindparam("tenant_id"))
    .where(events.c.pump == bindparam("pump"), events.c.status == "final")
    .order_by(events.c.occurred_utc)
    .limit(bindparam("most"))
)
_DEVICES = (
    _current(bindparam("tenant_id"))
    .where(
        events.c.pump.in_(bindparam("pumps", expanding=True)),
        events.c.type == literal_column("'device'"),  # a word of the index: it holds the devices only
        events.c.status == "final",
    )
    .order_by(events.c.occurred_utc)
)


def _stored(row: Row[Any]) -> StoredEvent:
    check_event(row._mapping)
    return StoredEvent(
        seq=row.seq,
        version=row.version,
        event=_decimals(exact_json.reread(row.content.encode())),  # its hash says that it is our own text
        content_hash=row.content_hash,
        received_at=row.received_at,
        origin=row.origin,
    )


def _decimals(node: Any) -> Any:
    """The same, quantity values as Decimal, as `load_event` gives them: JSON reads `20` as an int."""
    for item in node.values() if type(node) is dict else node:
        if type(item) in (dict, list):
            _decimals(item)
    if type(node) is dict and "unit" in node and type(node.get("value")) is int:
        node["value"] = Decimal(node["value"])
    return node
