"""Up to when each type of resource of an EHR was read: the server's time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from .endpoints import Endpoint
from .tables import read_positions
from .times import stamp


def of(c: Connection, endpoint_id: int) -> dict[str, str]:
    """Every position of an EHR, by what was read: a type, or `Type/_history` for its deletions."""
    query = select(read_positions.c.what, read_positions.c.position).where(
        read_positions.c.endpoint_id == endpoint_id
    )
    return {row.what: row.position for row in c.execute(query)}


def save(c: Connection, endpoint: Endpoint, what: str, position: str, *, now: datetime) -> None:
    """It was read up to there."""
    values = {"position": position, "updated_at": stamp(now)}
    known = (read_positions.c.endpoint_id == endpoint.id, read_positions.c.what == what)
    if c.execute(update(read_positions).where(*known).values(values)).rowcount == 0:
        row = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.id, "what": what, **values}
        c.execute(insert(read_positions).values(row))


def forget(c: Connection, endpoint_id: int, what: str) -> None:
    """It is read from the start again."""
    c.execute(
        delete(read_positions).where(
            read_positions.c.endpoint_id == endpoint_id, read_positions.c.what == what
        )
    )
