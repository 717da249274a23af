"""Bulk exports that were asked for: a row each, until it expires or is cancelled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from mappings.exact_json import dumps, loads

from .keys import Caller
from .tables import bulk_jobs
from .times import stamp

Json = Any


@dataclass(frozen=True, slots=True)
class BulkJob:
    """One export: what was asked, the ledger's number that it ends with, and how far it is.

    `status` is running, done or failed; `files` are those of the manifest, known when it is done.
    """

    id: str
    tenant_id: int
    caller: str
    request: str
    asked: Json
    up_to: int
    transaction_time: str
    status: str
    progress: str | None
    files: Json
    worker: str | None
    beat_at: str
    expires_at: str


def add(
    c: Connection,
    id: str,
    caller: Caller,
    *,
    request: str,
    asked: Json,
    up_to: int,
    now: datetime,
    expires_at: datetime,
) -> None:
    """A running job that nobody works on yet."""
    made = insert(bulk_jobs).values(
        id=id,
        tenant_id=caller.tenant_id,
        caller=caller.name,
        request=request,
        asked=dumps(asked).decode(),
        up_to=up_to,
        transaction_time=stamp(now),
        status="running",
        beat_at="",
        expires_at=stamp(expires_at),
    )
    c.execute(made)


def find(c: Connection, caller: Caller, id: str, *, now: datetime) -> BulkJob | None:
    """The caller's job of that id, unless it has expired."""
    row = c.execute(select(bulk_jobs).where(*_own(caller, id), bulk_jobs.c.expires_at > stamp(now))).first()
    return _job(row) if row is not None else None


def running(c: Connection, caller: Caller, *, now: datetime) -> BulkJob | None:
    """A job of this caller that is not finished."""
    query = select(bulk_jobs).where(
        bulk_jobs.c.tenant_id == caller.tenant_id,
        bulk_jobs.c.caller == caller.name,
        bulk_jobs.c.status == "running",
        bulk_jobs.c.expires_at > stamp(now),
    )
    row = c.execute(query.limit(1)).first()
    return _job(row) if row is not None else None


def claim(c: Connection, job: BulkJob, worker: str, *, now: datetime, silent_since: datetime) -> bool:
    """Work on it, if nobody has given a sign of working on it since then."""
    silent = or_(bulk_jobs.c.beat_at <= stamp(silent_since), bulk_jobs.c.worker.is_(None))
    taken = c.execute(
        update(bulk_jobs)
        .where(bulk_jobs.c.id == job.id, bulk_jobs.c.status == "running", silent)
        .values(worker=worker, beat_at=stamp(now))
    )
    return taken.rowcount == 1


def beat(c: Connection, id: str, worker: str, *, now: datetime, **values: Json) -> bool:
    """A sign of work, with what is new of it; False when it was cancelled or somebody else has it."""
    if "files" in values:
        values["files"] = dumps(values["files"]).decode()
    changed = c.execute(
        update(bulk_jobs)
        .where(bulk_jobs.c.id == id, bulk_jobs.c.worker == worker, bulk_jobs.c.status == "running")
        .values(beat_at=stamp(now), **values)
    )
    return changed.rowcount == 1


def remove(c: Connection, caller: Caller, id: str) -> bool:
    """Cancel or forget a job of this caller; False where there is none."""
    return c.execute(delete(bulk_jobs).where(*_own(caller, id))).rowcount == 1


def purge(c: Connection, *, now: datetime) -> int:
    """Forget what has expired; how many."""
    return c.execute(delete(bulk_jobs).where(bulk_jobs.c.expires_at <= stamp(now))).rowcount


def _own(caller: Caller, id: str) -> tuple[Any, ...]:
    return (
        bulk_jobs.c.id == id,
        bulk_jobs.c.tenant_id == caller.tenant_id,
        bulk_jobs.c.caller == caller.name,
    )


def _job(row: Row[Any]) -> BulkJob:
    held = dict(row._mapping)
    files = loads(held["files"]) if held["files"] else []
    return BulkJob(**held | {"asked": loads(held["asked"]), "files": files})
