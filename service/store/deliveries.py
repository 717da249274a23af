"""What is still to be sent to which EHR, in which order.

A lane is (endpoint, pump or patient). Its head is its oldest delivery that was not sent; only a pending
head that is due may be worked on, so a failed or parked one holds its own lane and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, case, exists, func, insert, select, update

from mappings import exact_json
from mappings.event import Event, lane_key

from .endpoints import Endpoint
from .tables import deliveries, endpoints, events
from .times import stamp

STATUSES = ("pending", "sent", "failed", "parked")


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


@dataclass(frozen=True, slots=True)
class Lane:
    """What must be sent in order."""

    endpoint_id: int
    lane: str


def add(
    c: Connection, tenant_id: int, event: Event, event_seq: int, endpoint_ids: Sequence[int], *, at: str
) -> tuple[int, ...]:
    """One pending delivery of the event for each endpoint, due at once (`at`, a stamp)."""
    return tuple(_insert(c, tenant_id, lane_key(event), event_seq, id, at) for id in endpoint_ids)


def _insert(c: Connection, tenant_id: int, lane: str, event_seq: int, endpoint_id: int, at: str) -> int:
    made = insert(deliveries).values(
        tenant_id=tenant_id,
        endpoint_id=endpoint_id,
        event_seq=event_seq,
        lane=lane,
        status="pending",
        attempts=0,
        next_try_at=at,
        created_at=at,
        updated_at=at,
    )
    key = c.execute(made).inserted_primary_key
    assert key is not None
    return int(key[0])


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
    for row in missed:
        lane = lane_key(exact_json.loads(row.content))
        _insert(c, endpoint.tenant_id, lane, row.seq, endpoint.id, stamp(now))
    return len(missed)


def due_lanes(
    c: Connection, *, now: datetime, limit: int = 100, endpoint_id: int | None = None
) -> list[Lane]:
    """Lanes of enabled endpoints (or of one) whose head may be sent now, the longest waiting first."""
    heads = (
        select(func.min(deliveries.c.id).label("id"))
        .where(deliveries.c.status.in_(("pending", "failed", "parked")))
        .group_by(deliveries.c.endpoint_id, deliveries.c.lane)
    )
    if endpoint_id is not None:
        heads = heads.where(deliveries.c.endpoint_id == endpoint_id)
    head = heads.subquery()
    query = (
        select(deliveries.c.endpoint_id, deliveries.c.lane)
        .join(head, head.c.id == deliveries.c.id)
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(
            endpoints.c.enabled.is_(True),
            deliveries.c.status == "pending",
            deliveries.c.next_try_at <= stamp(now),
        )
        .order_by(deliveries.c.next_try_at, deliveries.c.id)
        .limit(limit)
    )
    return [Lane(row.endpoint_id, row.lane) for row in c.execute(query)]


def head(c: Connection, lane: Lane) -> Delivery | None:
    """The oldest delivery of the lane that was not sent."""
    query = (
        select(deliveries)
        .where(
            deliveries.c.endpoint_id == lane.endpoint_id,
            deliveries.c.status.in_(("pending", "failed", "parked")),
            deliveries.c.lane == lane.lane,
        )
        .order_by(deliveries.c.id)
        .limit(1)
    )
    return _first(c, query)


def find(c: Connection, tenant_id: int, id: int) -> Delivery | None:
    """The delivery with that number."""
    return _first(c, select(deliveries).where(deliveries.c.tenant_id == tenant_id, deliveries.c.id == id))


def search(
    c: Connection,
    tenant_id: int,
    *,
    limit: int,
    after_id: int = 0,
    status: str | None = None,
    endpoint_id: int | None = None,
) -> list[Delivery]:
    """Deliveries in order of their numbers, from `after_id`."""
    query = select(deliveries).where(deliveries.c.tenant_id == tenant_id, deliveries.c.id > after_id)
    if status is not None:
        query = query.where(deliveries.c.status == status)
    if endpoint_id is not None:
        query = query.where(deliveries.c.endpoint_id == endpoint_id)
    return [_delivery(row) for row in c.execute(query.order_by(deliveries.c.id).limit(limit))]


def of_event(c: Connection, event_seq: int) -> list[Delivery]:
    """Every delivery of one version of a record."""
    query = select(deliveries).where(deliveries.c.event_seq == event_seq).order_by(deliveries.c.id)
    return [_delivery(row) for row in c.execute(query)]


def counts(c: Connection) -> dict[str, int]:
    """How many deliveries there are in each status, over all tenants."""
    query = select(deliveries.c.status, func.count().label("number")).group_by(deliveries.c.status)
    return dict.fromkeys(STATUSES, 0) | {row.status: row.number for row in c.execute(query)}


def set_sent(c: Connection, id: int, *, now: datetime, last_status: int | None, reason: str = "") -> None:
    """The EHR holds it; `reason` may say how (a note, such as `unchanged`)."""
    _set(c, id, now, status="sent", last_status=last_status, reason=reason or None, failure=None, repeats=0)


def set_retry(
    c: Connection,
    id: int,
    *,
    now: datetime,
    next_try_at: datetime,
    failure: str,
    last_status: int | None,
    reason: str,
) -> None:
    """Still pending, tried once more, not before `next_try_at`."""
    values = {"status": "pending", "next_try_at": stamp(next_try_at)}
    _set(c, id, now, last_status=last_status, reason=reason, **values, **_counted(failure))


def set_held(
    c: Connection, id: int, *, now: datetime, status: str, failure: str, last_status: int | None, reason: str
) -> None:
    """`failed` (refused) or `parked` (a person must decide): the lane waits."""
    assert status in ("failed", "parked")
    _set(c, id, now, status=status, last_status=last_status, reason=reason, **_counted(failure))


def _counted(failure: str) -> dict[str, Any]:
    again = case((deliveries.c.failure == failure, deliveries.c.repeats + 1), else_=1)
    return {"failure": failure, "repeats": again}


def retry(c: Connection, tenant_id: int, id: int, *, now: datetime) -> bool:
    """A failed, parked or waiting delivery becomes due now, its tries counted anew; False: it was sent."""
    changed = c.execute(
        update(deliveries)
        .where(deliveries.c.tenant_id == tenant_id, deliveries.c.id == id, deliveries.c.status != "sent")
        .values(
            status="pending",
            attempts=0,
            repeats=0,
            failure=None,
            next_try_at=stamp(now),
            updated_at=stamp(now),
        )
    )
    return changed.rowcount == 1


def _set(c: Connection, id: int, now: datetime, **values: Any) -> None:
    c.execute(
        update(deliveries)
        .where(deliveries.c.id == id)
        .values(attempts=deliveries.c.attempts + 1, updated_at=stamp(now), **values)
    )


def _first(c: Connection, query: Select[Any]) -> Delivery | None:
    row = c.execute(query).first()
    return _delivery(row) if row is not None else None


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
