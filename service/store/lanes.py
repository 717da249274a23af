"""Which lanes may be worked on now, and who does.

A lane is what must be sent in order: an endpoint, and a pump or a patient. `due_at` is when its head (its
oldest delivery that waits) may be tried; None while nothing waits, or while the head waits for a person.
A holder's lease ends by itself unless renewed; the fence grows with each holder, so that one that was
paused past its lease cannot commit what it found (`held`, asked in the transaction that commits it).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, bindparam, case, or_, select, update

from .engine import WAKES, insert_for
from .tables import deliveries, lanes
from .times import stamp

WAITING = ("pending", "failed", "parked", "paused")
"""Statuses of a delivery that its lane does not go past."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lane of an endpoint, held since `fence`."""

    endpoint_id: int
    lane: str
    fence: int


def in_line() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """What is, or may become, the head of its lane: not what a conflict holds."""
    return deliveries.c.status.in_(WAITING), deliveries.c.conflict_id.is_(None)


# What every step asks is built once: building it takes longer than SQLite's answer.
_OF = (
    lanes.c.endpoint_id == bindparam("of_endpoint"),
    lanes.c.lane.in_(bindparam("names", expanding=True)),
)
_HEAD_IS_DUE = (
    select(case((deliveries.c.status == "pending", deliveries.c.next_try_at)))
    .where(
        deliveries.c.endpoint_id == bindparam("of_endpoint"),
        deliveries.c.lane == lanes.c.lane,
        *in_line(),
    )
    .order_by(deliveries.c.id)
    .limit(1)
    .scalar_subquery()
)
_REFRESH = update(lanes).where(*_OF).values(due_at=_HEAD_IS_DUE)
_FREE = (
    select(lanes.c.lane)
    .where(
        lanes.c.endpoint_id == bindparam("of_endpoint"),
        lanes.c.due_at <= bindparam("at"),
        or_(lanes.c.until.is_(None), lanes.c.until <= bindparam("at")),
    )
    .order_by(lanes.c.due_at, lanes.c.lane)
    .limit(bindparam("most"))
)
_FREE_OF_ONE = _FREE.where(lanes.c.lane == bindparam("name"))
_CLAIM = (
    update(lanes)
    .where(*_OF)
    .values(owner=bindparam("holder"), until=bindparam("ends"), fence=lanes.c.fence + 1)
    .returning(lanes.c.lane, lanes.c.fence)
)
_FENCES = select(lanes.c.lane, lanes.c.fence).where(*_OF)
_IS_HELD = lanes.c.owner == bindparam("holder")
_RELEASE = _REFRESH.values(
    owner=case((_IS_HELD, None), else_=lanes.c.owner), until=case((_IS_HELD, None), else_=lanes.c.until)
)


def touch(c: Connection, tenant_id: int, endpoint_id: int, names: Collection[str]) -> None:
    """Make the lanes known, and set when each is due from what waits in it."""
    rows = [
        {"tenant_id": tenant_id, "endpoint_id": endpoint_id, "lane": name, "fence": 0}
        for name in sorted(names)
    ]
    if rows:
        c.execute(insert_for(c, lanes).on_conflict_do_nothing(), rows)
        refresh(c, endpoint_id, names)


def refresh(c: Connection, endpoint_id: int, names: Collection[str]) -> None:
    """Set when each lane is due from what waits in it now: after any change of a delivery."""
    _refresh(c, _REFRESH, {"of_endpoint": endpoint_id}, names)


def _refresh(c: Connection, statement: Update, asked: dict[str, Any], names: Collection[str]) -> None:
    for some in _parts(sorted(names)):
        c.execute(statement, asked | {"names": some})
    if names:
        c.info.setdefault(WAKES, set()).add(asked["of_endpoint"])


def due(c: Connection, endpoint_id: int, *, now: datetime, most: int, lane: str | None = None) -> int:
    """How many lanes (or of that one) could be claimed; not counted beyond `most`."""
    return len(_free(c, endpoint_id, now, lane, most))


def is_any_held(c: Connection, endpoint_id: int) -> bool:
    """Whether somebody works on a lane of the endpoint, or died while at it and nobody has taken it since."""
    query = select(lanes.c.lane).where(lanes.c.endpoint_id == endpoint_id, lanes.c.owner.is_not(None))
    return c.execute(query.limit(1)).first() is not None


def next_due(c: Connection, endpoint_id: int) -> str | None:
    """When (a stamp) the first lane that nobody holds for longer is due."""
    query = select(lanes.c.due_at).where(lanes.c.endpoint_id == endpoint_id, lanes.c.due_at.is_not(None))
    found: str | None = c.execute(query.order_by(lanes.c.due_at).limit(1)).scalar()
    return found


def _free(c: Connection, endpoint_id: int, now: datetime, lane: str | None, most: int) -> list[str]:
    asked = {"of_endpoint": endpoint_id, "at": stamp(now), "most": most}
    found = c.execute(_FREE, asked) if lane is None else c.execute(_FREE_OF_ONE, asked | {"name": lane})
    return list(found.scalars())


def claim(
    c: Connection,
    endpoint_id: int,
    owner: str,
    *,
    now: datetime,
    until: datetime,
    limit: int,
    lane: str | None = None,
) -> list[Lease]:
    """Take up to `limit` lanes (or that one) that are due and nobody's, the longest waiting first."""
    names = _free(c, endpoint_id, now, lane, limit)
    if not names:
        return []
    holder = {"holder": owner, "ends": stamp(until)}
    taken = c.execute(_CLAIM, {"of_endpoint": endpoint_id, "names": names, **holder})
    fences = {row.lane: row.fence for row in taken}
    return [Lease(endpoint_id, name, fences[name]) for name in names]


def renew(c: Connection, owners: Collection[str], *, until: datetime) -> None:
    """Hold what these owners hold for longer; what somebody else has taken since stays taken."""
    c.execute(update(lanes).where(lanes.c.owner.in_(sorted(owners))).values(until=stamp(until)))


def held(c: Connection, leases: Sequence[Lease]) -> set[str]:
    """The lanes among these that nobody else has taken since; all are of one endpoint."""
    found: set[str] = set()
    fences = {lease.lane: lease.fence for lease in leases}
    for some in _parts(sorted(fences)):
        held = c.execute(_FENCES, {"of_endpoint": leases[0].endpoint_id, "names": some})
        found.update(row.lane for row in held if row.fence == fences[row.lane])
    return found


def release(c: Connection, endpoint_id: int, names: Collection[str], owner: str) -> None:
    """`refresh`, and give back what `owner` holds of these; the rows stay, so that no fence ever falls."""
    _refresh(c, _RELEASE, {"of_endpoint": endpoint_id, "holder": owner}, names)


def owners(c: Connection, *, now: datetime) -> list[str]:
    """Who holds a lane."""
    query = select(lanes.c.owner).where(lanes.c.until > stamp(now), lanes.c.owner.is_not(None)).distinct()
    return [str(owner) for owner in c.execute(query).scalars()]


def end(c: Connection, owner: str) -> None:
    """End every lease of an owner that is known to be gone."""
    c.execute(update(lanes).where(lanes.c.owner == owner).values(owner=None, until=None))


def _parts(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[at : at + 500] for at in range(0, len(names), 500))
