"""The bulk export by which an EHR is being read for the first time: where it is asked about, what is done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from mappings.exact_json import dumps, loads

from .endpoints import Endpoint
from .tables import loads as table
from .times import stamp


@dataclass(frozen=True, slots=True)
class Load:
    """An export that goes on; `done` are the URLs of the files that were taken in whole."""

    status_url: str
    done: tuple[str, ...]


def find(c: Connection, endpoint_id: int) -> Load | None:
    """The one that was begun and has not ended."""
    row = c.execute(select(table).where(table.c.endpoint_id == endpoint_id)).first()
    return None if row is None else Load(row.status_url, tuple(loads(row.done)))


def begin(c: Connection, endpoint: Endpoint, status_url: str, *, now: datetime) -> Load:
    """Remember an export that the EHR has accepted."""
    row = {"endpoint_id": endpoint.id, "tenant_id": endpoint.tenant_id, "status_url": status_url}
    c.execute(insert(table).values(done="[]", started_at=stamp(now), **row))
    return Load(status_url, ())


def save(c: Connection, endpoint_id: int, load: Load) -> None:
    """Remember what is done of it."""
    done = dumps(list(load.done)).decode()
    c.execute(update(table).where(table.c.endpoint_id == endpoint_id).values(done=done))


def end(c: Connection, endpoint_id: int) -> None:
    """It is over."""
    c.execute(delete(table).where(table.c.endpoint_id == endpoint_id))
