"""Which patients the ledger holds, up to one of its numbers."""

from __future__ import annotations

from sqlalchemy import Connection, and_, exists, func, or_, select

from .tables import events


def patients(
    c: Connection,
    tenant_id: int,
    *,
    up_to: int,
    limit: int,
    after: tuple[str, str] = ("", ""),
    source: str | None = None,
    since: str | None = None,
) -> list[tuple[str, str]]:
    """(system, value) of the patients of the ledger up to a number, in text order, after `after`.

    Only those about whom `source` told something; only those of whom something came after the stamp `since`.
    """
    system, value = events.c.patient_system, events.c.patient_value
    query = select(system, value).where(
        events.c.tenant_id == tenant_id,
        events.c.seq <= up_to,
        or_(system > after[0], and_(system == after[0], value > after[1])),
    )
    if source is not None:
        told = events.alias("told")
        by_source = exists().where(
            told.c.tenant_id == tenant_id,
            told.c.patient_system == system,
            told.c.patient_value == value,
            told.c.source == source,
            told.c.seq <= up_to,
        )
        query = query.where(by_source)
    if since is not None:
        query = query.where(events.c.received_at > since)
    return [(row[0], row[1]) for row in c.execute(query.distinct().order_by(system, value).limit(limit))]


def newest_seq(c: Connection, tenant_id: int) -> int:
    """The last number of the tenant's ledger, 0 when it is empty."""
    query = select(func.max(events.c.seq)).where(events.c.tenant_id == tenant_id)
    return c.execute(query).scalar() or 0


def has_source(c: Connection, tenant_id: int, source: str) -> bool:
    """Whether any event came from this source."""
    query = select(events.c.seq).where(events.c.tenant_id == tenant_id, events.c.source == source)
    return c.execute(query.limit(1)).first() is not None
