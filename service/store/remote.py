"""Every version of a resource that an EHR showed us, raw, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from .tables import remote_versions
from .times import stamp


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """One version as it was read; `outcome` is what the pull did with it (echo, accepted, parked, …)."""

    tenant_id: int
    endpoint_id: int
    resource_type: str
    remote_id: str
    version_id: str
    last_updated: str | None
    raw: str
    outcome: str
    event_seq: int | None = None


_FIELDS = tuple(RemoteVersion.__dataclass_fields__)


def find(
    c: Connection, endpoint_id: int, resource_type: str, remote_id: str, version_id: str
) -> RemoteVersion | None:
    """This version, when it was seen before."""
    query = select(remote_versions).where(
        remote_versions.c.endpoint_id == endpoint_id,
        remote_versions.c.resource_type == resource_type,
        remote_versions.c.remote_id == remote_id,
        remote_versions.c.version_id == version_id,
    )
    row = c.execute(query).first()
    return _version(row) if row is not None else None


def add(c: Connection, seen: RemoteVersion, *, now: datetime) -> None:
    """Keep a version that was not seen before."""
    values = {name: getattr(seen, name) for name in _FIELDS} | {"seen_at": stamp(now)}
    c.execute(insert(remote_versions).values(values))


def set_outcome(c: Connection, seen: RemoteVersion, outcome: str, event_seq: int | None) -> None:
    """What became of it after all (a parked version that was read again)."""
    c.execute(
        update(remote_versions)
        .where(
            remote_versions.c.endpoint_id == seen.endpoint_id,
            remote_versions.c.resource_type == seen.resource_type,
            remote_versions.c.remote_id == seen.remote_id,
            remote_versions.c.version_id == seen.version_id,
        )
        .values(outcome=outcome, event_seq=event_seq)
    )


def search(c: Connection, endpoint_id: int, *, outcome: str, limit: int = 1000) -> list[RemoteVersion]:
    """The versions with one outcome, as they were seen."""
    query = select(remote_versions).where(
        remote_versions.c.endpoint_id == endpoint_id, remote_versions.c.outcome == outcome
    )
    return [_version(row) for row in c.execute(query.order_by(remote_versions.c.id).limit(limit))]


def _version(row: Row[Any]) -> RemoteVersion:
    return RemoteVersion(**{name: getattr(row, name) for name in _FIELDS})
