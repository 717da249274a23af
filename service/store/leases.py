"""Who may do what only one may do at a time (poll an EHR): leases end by themselves, fences only grow.

A holder that was paused past its lease finds a higher fence and must not commit its outcome.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from .tables import leases
from .times import stamp


def acquire(
    c: Connection, tenant_id: int, name: str, owner: str, *, now: datetime, until: datetime
) -> int | None:
    """Take the lease if it is free or ended; its fence, or None while another owner holds it."""
    key = (leases.c.tenant_id == tenant_id, leases.c.name == name)
    values = {"owner": owner, "until": stamp(until)}
    taken = c.execute(
        update(leases).where(*key, leases.c.until <= stamp(now)).values(fence=leases.c.fence + 1, **values)
    )
    if taken.rowcount == 1:
        return int(c.execute(select(leases.c.fence).where(*key)).scalar_one())
    if c.execute(select(leases.c.fence).where(*key)).first() is not None:
        return None
    c.execute(insert(leases).values(tenant_id=tenant_id, name=name, fence=1, **values))
    return 1


def renew(c: Connection, owners: Collection[str], *, until: datetime) -> None:
    """Hold what these owners hold for longer; what somebody else has taken since stays taken."""
    c.execute(update(leases).where(leases.c.owner.in_(sorted(owners))).values(until=stamp(until)))


def is_held(c: Connection, tenant_id: int, name: str, fence: int) -> bool:
    """True while nobody else has taken it: asked in the transaction that commits the outcome."""
    query = select(leases.c.fence).where(leases.c.tenant_id == tenant_id, leases.c.name == name)
    return c.execute(query).scalar() == fence


def release(c: Connection, tenant_id: int, name: str, fence: int, *, now: datetime) -> None:
    """Give it back; the row stays, so that the fence never falls."""
    c.execute(
        update(leases)
        .where(leases.c.tenant_id == tenant_id, leases.c.name == name, leases.c.fence == fence)
        .values(until=stamp(now))
    )


def holders(c: Connection, *, now: datetime) -> list[str]:
    """Who holds a lease."""
    return list(c.execute(select(leases.c.owner).where(leases.c.until > stamp(now)).distinct()).scalars())


def end(c: Connection, owner: str, *, now: datetime) -> None:
    """End every lease of an owner that is known to be gone."""
    c.execute(update(leases).where(leases.c.owner == owner).values(until=stamp(now)))
