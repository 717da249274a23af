"""What is still to be sent to which EHR, in which order, and what came of it.

A lane is (endpoint, pump or patient). Its head is its oldest delivery that waits; only a pending head that
is due may be worked on, so one that waits for a person holds its own lane and no other (`lanes`). One that
was parked for a conflict is passed over: the conflict holds its record, not the lane.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

from sqlalchemy import Connection, Row, Select, bindparam, exists, func, insert, select, update

from mappings import exact_json
from mappings.event import Event, lane_key

from . import lanes
from .endpoints import Endpoint
from .lanes import WAITING, Lease, in_line
from .listing import Wanted, listed
from .tables import deliveries, events
from .times import stamp

STATUSES = ("pending", "sent", "failed", "parked", "paused", "skipped", "cancelled")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one EHR; `reason` says why it waits, failed or was parked.

    `failure` is the class of its last failure (a row of sync/retry.py), which the last `repeats` tries had.
    """

    id: int
    tenant_id: int
    endpoint_id: int
    event_seq: int
    lane: str
    status: str
    attempts: int
    next_try_at: str
    last_status: int | None
    reason: str | None
    created_at: str
    updated_at: str
    failure: str | None
    repeats: int
    conflict_id: int | None = None
    rung: str | None = None
    loss: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try of a delivery came to; `next_try_at` is a stamp, `last_status` that of the EHR's answer.

    `conflict_id`: parked until that conflict is closed. `is_try` False: nothing was tried, it is not counted.
    """

    delivery: Delivery
    status: str
    reason: str | None = None
    failure: str | None = None
    last_status: int | None = None
    next_try_at: str | None = None
    conflict_id: int | None = None
    is_try: bool = True
    rung: str | None = None
    loss: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a person may do with a delivery: from which statuses, and of a whole endpoint from which."""

    starts: tuple[str, ...]
    of_endpoint: tuple[str, ...]
    to: str
    needs_reason: bool = False


CHANGES: dict[str, Change] = {
    "pause": Change(("pending",), (), "paused"),
    "resume": Change(("paused",), (), "pending"),
    "retry": Change(("pending", "failed", "parked", "skipped", "cancelled"), ("failed", "parked"), "pending"),
    "cancel": Change(WAITING, WAITING, "cancelled", needs_reason=True),
    "skip": Change(WAITING, ("failed", "parked"), "skipped", needs_reason=True),
}
"""cancel: it is not to go to this EHR. skip: it should have, cannot, and the lane goes on without it."""


def add(
    c: Connection, tenant_id: int, sent: Sequence[tuple[int, Event]], endpoint_ids: Sequence[int], *, at: str
) -> None:
    """One pending delivery of each event (ledger number, content) for each endpoint, due at once (`at`)."""
    lane_of = {seq: lane_key(event) for seq, event in sent}
    _insert(c, tenant_id, [(id, seq, lane) for seq, lane in lane_of.items() for id in endpoint_ids], at)
    for endpoint_id in endpoint_ids:
        lanes.touch(c, tenant_id, endpoint_id, set(lane_of.values()))


def _insert(c: Connection, tenant_id: int, made: Sequence[tuple[int, int, str]], at: str) -> None:
    """Of (endpoint, ledger number, lane)."""
    rows = [
        {
            "tenant_id": tenant_id,
            "endpoint_id": endpoint_id,
            "event_seq": event_seq,
            "lane": lane,
            "status": "pending",
            "attempts": 0,
            "next_try_at": at,
            "created_at": at,
            "updated_at": at,
        }
        for endpoint_id, event_seq, lane in made
    ]
    if rows:
        c.execute(_INSERT, rows)


_INSERT = insert(deliveries)


def catch_up(c: Connection, endpoint: Endpoint, *, now: datetime, from_the_start: bool = False) -> int:
    """Deliveries for what was accepted while the endpoint was paused, in ledger order; how many.

    `from_the_start`: also for what was accepted before there was this endpoint.
    """
    has_one = exists().where(deliveries.c.endpoint_id == endpoint.id, deliveries.c.event_seq == events.c.seq)
    missed = c.execute(
        select(events.c.seq, events.c.content)
        .where(
            events.c.tenant_id == endpoint.tenant_id,
            events.c.seq > (0 if from_the_start else endpoint.since_seq),
            func.coalesce(events.c.origin, "") != endpoint.name,
            ~has_one,
        )
        .order_by(events.c.seq)
    ).all()
    made = [(endpoint.id, row.seq, lane_key(exact_json.loads(row.content))) for row in missed]
    _insert(c, endpoint.tenant_id, made, stamp(now))
    lanes.touch(c, endpoint.tenant_id, endpoint.id, {lane for _, _, lane in made})
    return len(made)


# Built once, as what a step asks of the lanes.
_RANKED = (
    select(
        deliveries.c.id,
        func.row_number().over(partition_by=deliveries.c.lane, order_by=deliveries.c.id).label("place"),
    )
    .where(
        deliveries.c.endpoint_id == bindparam("of_endpoint"),
        *in_line(),
        deliveries.c.lane.in_(bindparam("names", expanding=True)),
    )
    .subquery()
)
_FIRST_OF_LANES = (
    select(deliveries)
    .join(_RANKED, _RANKED.c.id == deliveries.c.id)
    .where(_RANKED.c.place <= bindparam("most"))
    .order_by(deliveries.c.id)
)


def waiting(c: Connection, leases: Sequence[Lease], *, now: datetime, most: int) -> list[Delivery]:
    """Of each lane held, its first deliveries (up to `most`) that are due, up to one that is not.

    Lanes come in the order of the leases, the longest waiting first: else one that fails again and again
    would be the first again and again.
    """
    if not leases:
        return []
    asked = {"of_endpoint": leases[0].endpoint_id, "names": [lease.lane for lease in leases], "most": most}
    found, stopped = [], set()
    for delivery in map(_delivery, c.execute(_FIRST_OF_LANES, asked)):
        if delivery.status != "pending" or delivery.next_try_at > stamp(now):
            stopped.add(delivery.lane)
        if delivery.lane not in stopped:
            found.append(delivery)
    order = {lease.lane: at for at, lease in enumerate(leases)}
    return sorted(found, key=lambda one: (order[one.lane], one.id))


def find(c: Connection, tenant_id: int, id: int) -> Delivery | None:
    """The delivery with that number."""
    return _first(c, select(deliveries).where(deliveries.c.tenant_id == tenant_id, deliveries.c.id == id))


def search(c: Connection, tenant_id: int, **wanted: Unpack[Wanted]) -> list[Delivery]:
    """Deliveries in order of their numbers, from `after_id`."""
    return [_delivery(row) for row in c.execute(listed(deliveries, tenant_id, **wanted))]


def are_going(c: Connection, endpoint_id: int, lane: str) -> bool:
    """Whether the lane has a delivery that is sent, or tried again, without a person."""
    query = select(deliveries.c.id).where(
        deliveries.c.endpoint_id == endpoint_id,
        deliveries.c.status == "pending",
        deliveries.c.lane == lane,
    )
    return c.execute(query.limit(1)).first() is not None


def are_unclear(c: Connection, endpoint_id: int) -> bool:
    """Whether of any that waits it is not known what became of its last try."""
    query = select(deliveries.c.id).where(
        deliveries.c.endpoint_id == endpoint_id,
        deliveries.c.status.in_(WAITING),
        deliveries.c.failure == "Ambiguous",
    )
    return c.execute(query.limit(1)).first() is not None


def of_event(c: Connection, event_seq: int) -> list[Delivery]:
    """Every delivery of one version of a record."""
    query = select(deliveries).where(deliveries.c.event_seq == event_seq).order_by(deliveries.c.id)
    return [_delivery(row) for row in c.execute(query)]


def counts(c: Connection, endpoint_id: int | None = None) -> dict[str, int]:
    """How many deliveries there are in each status, over all tenants or to one endpoint."""
    query = select(deliveries.c.status, func.count().label("number")).group_by(deliveries.c.status)
    if endpoint_id is not None:
        query = query.where(deliveries.c.endpoint_id == endpoint_id)
    return dict.fromkeys(STATUSES, 0) | {row.status: row.number for row in c.execute(query)}


def record(c: Connection, outcomes: Sequence[Outcome], *, now: datetime) -> None:
    """Count one try of each and set what it came to; the caller refreshes and releases the lanes.

    What reached the EHR is sent, whatever a person did meanwhile; else what a person did meanwhile stays.
    """
    for is_sent in (True, False):
        rows = [_row(one) for one in outcomes if (one.status == "sent") is is_sent]
        if not rows:
            continue
        c.execute(_RECORD if is_sent else _RECORD_PENDING, [row | {"now": stamp(now)} for row in rows])


_TRIED = (
    "status",
    "attempts",
    "next_try_at",
    "last_status",
    "reason",
    "failure",
    "repeats",
    "conflict_id",
    "rung",
    "loss",
)


_NEW: dict[str, Any] = {name: bindparam(f"new_{name}") for name in _TRIED}
_RECORD = (
    update(deliveries).where(deliveries.c.id == bindparam("of")).values(updated_at=bindparam("now"), **_NEW)
)
_RECORD_PENDING = _RECORD.where(deliveries.c.status == "pending")


def _row(one: Outcome) -> dict[str, Any]:
    was = one.delivery
    repeats = 0 if one.failure is None else (was.repeats + 1 if was.failure == one.failure else 1)
    found = (
        one.status,
        was.attempts + one.is_try,
        one.next_try_at or was.next_try_at,
        one.last_status,
        one.reason,
        one.failure,
        repeats,
        one.conflict_id,
        one.rung or was.rung,
        one.loss or was.loss,
    )
    return {"of": was.id} | {f"new_{name}": value for name, value in zip(_TRIED, found, strict=True)}


def change(
    c: Connection, tenant_id: int, ids: Collection[int], action: str, *, now: datetime, reason: str | None
) -> list[int]:
    """Do what a person asked with these deliveries; those that were in no status for it are left out."""
    done = CHANGES[action]
    starts = done.starts
    where = (deliveries.c.tenant_id == tenant_id, deliveries.c.id.in_(ids), deliveries.c.status.in_(starts))
    chosen = c.execute(select(deliveries.c.id, deliveries.c.endpoint_id, deliveries.c.lane).where(*where))
    found = chosen.all()
    values: dict[str, Any] = {"status": done.to, "updated_at": stamp(now), "conflict_id": None}
    if done.to == "pending":
        values["next_try_at"] = stamp(now)
    if action == "retry":
        values |= {"attempts": 0, "repeats": 0, "failure": None}
    if reason is not None:
        values["reason"] = reason
    c.execute(update(deliveries).where(*where).values(values))
    for endpoint_id in {row.endpoint_id for row in found}:
        names = {row.lane for row in found if row.endpoint_id == endpoint_id}
        lanes.refresh(c, endpoint_id, names)
    return [row.id for row in found]


def reopen(c: Connection, endpoint: Endpoint, ids: Collection[int], *, now: datetime) -> None:
    """What was sent is due again, and the EHR is read before anything is sent; its lane keeps its order."""
    where = (
        deliveries.c.endpoint_id == endpoint.id,
        deliveries.c.id.in_(ids),
        deliveries.c.status == "sent",
    )
    names = set(c.execute(select(deliveries.c.lane).where(*where)).scalars())
    values = {"status": "pending", "attempts": 1, "next_try_at": stamp(now), "updated_at": stamp(now)}
    c.execute(update(deliveries).where(*where).values(values))
    lanes.touch(c, endpoint.tenant_id, endpoint.id, names)


def not_sent(c: Connection, ids: Collection[int]) -> set[int]:
    """Which of these deliveries are on their way, or held."""
    query = select(deliveries.c.id).where(deliveries.c.id.in_(ids), deliveries.c.status != "sent")
    return set(c.execute(query).scalars())


def release(c: Connection, conflict_id: int, *, now: datetime) -> None:
    """What was parked for a conflict is due now, and the EHR is read back before anything is sent."""
    where = (deliveries.c.conflict_id == conflict_id, deliveries.c.status == "parked")
    found = c.execute(select(deliveries.c.endpoint_id, deliveries.c.lane).where(*where)).all()
    values = {"status": "pending", "conflict_id": None, "attempts": 1, "repeats": 0}
    due = {"next_try_at": stamp(now), "updated_at": stamp(now)}
    c.execute(update(deliveries).where(*where).values(values | due))
    for row in found:
        lanes.refresh(c, row.endpoint_id, [row.lane])


def again(c: Connection, tenant_id: int, event: Event, event_seq: int, endpoint_id: int, *, at: str) -> None:
    """The event is due at this EHR, whether or not it was sent there before."""
    where = (deliveries.c.endpoint_id == endpoint_id, deliveries.c.event_seq == event_seq)
    values = {"status": "pending", "attempts": 0, "repeats": 0, "failure": None, "conflict_id": None}
    changed = c.execute(
        update(deliveries).where(*where).values(values | {"next_try_at": at, "updated_at": at})
    )
    if changed.rowcount == 0:
        add(c, tenant_id, [(event_seq, event)], [endpoint_id], at=at)
    else:
        lanes.refresh(c, endpoint_id, [lane_key(event)])


def ids_of(c: Connection, endpoint_id: int, statuses: Collection[str], *, limit: int) -> list[int]:
    """The numbers of an endpoint's deliveries in any of these statuses, the oldest first."""
    query = select(deliveries.c.id).where(
        deliveries.c.endpoint_id == endpoint_id, deliveries.c.status.in_(statuses)
    )
    return list(c.execute(query.order_by(deliveries.c.id).limit(limit)).scalars())


def _first(c: Connection, query: Select[Any]) -> Delivery | None:
    row = c.execute(query).first()
    return _delivery(row) if row is not None else None


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
