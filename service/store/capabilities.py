"""What each EHR's server last said it can do, as JSON text (service/sync/capability.py reads it)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from .tables import capabilities
from .times import stamp


@dataclass(frozen=True, slots=True)
class Capability:
    """The matrix of one endpoint, and when it was read."""

    matrix: str
    read_at: str


def find(c: Connection, endpoint_id: int) -> Capability | None:
    """What is known of an endpoint."""
    query = select(capabilities.c.matrix, capabilities.c.read_at).where(
        capabilities.c.endpoint_id == endpoint_id
    )
    row = c.execute(query).first()
    return Capability(row.matrix, row.read_at) if row is not None else None


def save(c: Connection, tenant_id: int, endpoint_id: int, matrix: str, *, now: datetime) -> None:
    """Keep the newest reading."""
    values = {"matrix": matrix, "read_at": stamp(now)}
    known = capabilities.c.endpoint_id == endpoint_id
    if c.execute(update(capabilities).where(known).values(values)).rowcount == 0:
        c.execute(insert(capabilities).values(endpoint_id=endpoint_id, tenant_id=tenant_id, **values))


def forget(c: Connection, endpoint_id: int) -> None:
    """Nothing is known of it any more."""
    c.execute(delete(capabilities).where(capabilities.c.endpoint_id == endpoint_id))
