"""What EHRs said has changed and is not read yet; and the subscriptions by which they say so.

A hint that is lost does no harm: the next poll finds what it was about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from .endpoints import Endpoint
from .tables import hints, subscriptions
from .times import stamp

MOST = 1000
"""So many hints wait for one EHR; beyond, one to read everything stands for them all."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription on an EHR's server, and the number of the last event that was heard by it.

    `status`: what it was when it was last looked at (sync/listening.py), at `asked_at`; all times are stamps.
    """

    remote_id: str
    criteria: str
    last_event: int | None
    heard_at: str | None
    created_at: str
    status: str | None
    asked_at: str | None


def add(
    c: Connection, endpoint: Endpoint, about: list[tuple[str | None, str | None]], *, now: datetime
) -> None:
    """Resources to read; (None, None): everything. What waits already is not added again."""
    query = select(hints.c.resource_type, hints.c.remote_id).where(hints.c.endpoint_id == endpoint.id)
    waiting = {(row[0], row[1]) for row in c.execute(query.limit(MOST + 1))}
    fresh = [pair for pair in dict.fromkeys(about) if pair not in waiting]
    if len(waiting) + len(fresh) > MOST:
        fresh = [(None, None)] if (None, None) not in waiting else []
    for type, id in fresh:
        row = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.id, "received_at": stamp(now)}
        c.execute(insert(hints).values(resource_type=type, remote_id=id, **row))


def are_waiting(c: Connection, endpoint_id: int) -> bool:
    """Whether there is any."""
    return (
        c.execute(select(hints.c.id).where(hints.c.endpoint_id == endpoint_id).limit(1)).first() is not None
    )


def take(c: Connection, endpoint_id: int) -> list[tuple[str | None, str | None]]:
    """Those that wait, which then do not any more."""
    query = select(hints.c.id, hints.c.resource_type, hints.c.remote_id)
    rows = c.execute(query.where(hints.c.endpoint_id == endpoint_id).order_by(hints.c.id)).all()
    if rows:
        c.execute(delete(hints).where(hints.c.endpoint_id == endpoint_id, hints.c.id <= rows[-1].id))
    return [(row.resource_type, row.remote_id) for row in rows]


def subscribed(c: Connection, endpoint_id: int) -> list[Subscription]:
    """The subscriptions on an EHR's server."""
    query = select(subscriptions).where(subscriptions.c.endpoint_id == endpoint_id)
    return [
        Subscription(**{name: getattr(row, name) for name in Subscription.__dataclass_fields__})
        for row in c.execute(query.order_by(subscriptions.c.id))
    ]


def subscribe(c: Connection, endpoint: Endpoint, remote_id: str, criteria: str, *, now: datetime) -> None:
    """Remember a subscription, in place of an earlier one by the same criteria."""
    c.execute(
        delete(subscriptions).where(
            subscriptions.c.endpoint_id == endpoint.id, subscriptions.c.criteria == criteria
        )
    )
    row = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.id, "created_at": stamp(now)}
    c.execute(insert(subscriptions).values(remote_id=remote_id, criteria=criteria, **row))


def heard(c: Connection, endpoint_id: int, remote_id: str, last_event: int | None, *, now: datetime) -> None:
    """The server has called by this subscription."""
    known = (subscriptions.c.endpoint_id == endpoint_id, subscriptions.c.remote_id == remote_id)
    c.execute(update(subscriptions).where(*known).values(last_event=last_event, heard_at=stamp(now)))


def asked(
    c: Connection, endpoint_id: int, remote_id: str, status: str, last_event: int | None, *, now: datetime
) -> None:
    """It was looked at on the server; what a notification has said meanwhile is not forgotten."""
    known = (subscriptions.c.endpoint_id == endpoint_id, subscriptions.c.remote_id == remote_id)
    c.execute(update(subscriptions).where(*known).values(status=status, asked_at=stamp(now)))
    if last_event is not None:
        behind = func.coalesce(subscriptions.c.last_event, 0) < last_event
        c.execute(update(subscriptions).where(*known, behind).values(last_event=last_event))
