"""What both sides say differently about a record, until a person has decided.

A record has at most one open conflict with an EHR. `base`, `theirs`, `fields` and `proposal` are JSON.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, select, update

from mappings.exact_json import dumps, loads

from . import deliveries
from .endpoints import Endpoint
from .listing import Wanted, listed
from .tables import conflicts
from .times import stamp

Json = Any
KINDS = ("edited", "deleted", "rewritten")
"""edited: both sides changed the record; deleted: it is gone there; rewritten: what follows from it was."""
STATUSES = ("open", "resolved", "withdrawn")


@dataclass(frozen=True, slots=True)
class Conflict:
    """One record of ours against `resource_type/remote_id` at `version_id`, whose content is `raw`.

    `fields`: path, owner, base, ours and theirs of each difference. `proposal`: what the first of two persons
    decided, `proposed_by`.
    """

    tenant_id: int
    endpoint_id: int
    kind: str
    source: str
    event_id: str
    lane: str
    base: Json
    ours_seq: int
    resource_type: str
    remote_id: str
    version_id: str | None
    theirs: Json
    raw: str | None
    fields: Json
    two_persons: bool
    status: str = "open"
    proposal: Json = None
    proposed_by: str | None = None
    resolved_by: str | None = None
    id: int = 0
    opened_at: str = ""
    updated_at: str = ""


_JSON = ("base", "theirs", "fields", "proposal")
_FIELDS = tuple(name for name in Conflict.__dataclass_fields__ if name not in ("id", "opened_at"))


def save(c: Connection, conflict: Conflict, *, now: datetime) -> Conflict:
    """Open it; where the record has an open one with this EHR, that one now says this, without a proposal."""
    at = stamp(now)
    values = {name: getattr(conflict, name) for name in _FIELDS} | {"updated_at": at}
    values |= {name: _dumped(values[name]) for name in _JSON}
    known = open_of(c, conflict.endpoint_id, conflict.tenant_id, conflict.source, conflict.event_id)
    if known is not None:
        c.execute(update(conflicts).where(conflicts.c.id == known.id).values(values))
        id = known.id
    else:
        key = c.execute(insert(conflicts).values(values | {"opened_at": at})).inserted_primary_key
        assert key is not None
        id = int(key[0])
    found = find(c, conflict.tenant_id, id)
    assert found is not None
    return found


def propose(c: Connection, id: int, proposal: Json, person: str, *, now: datetime) -> None:
    """The first of two persons has decided."""
    values = {"proposal": _dumped(proposal), "proposed_by": person, "updated_at": stamp(now)}
    c.execute(update(conflicts).where(conflicts.c.id == id).values(values))


def close(
    c: Connection, id: int, status: str, *, now: datetime, person: str | None = None, proposal: Json = None
) -> None:
    """It is decided, or gone by itself; what waited for it is due again."""
    values = {"status": status, "resolved_by": person, "updated_at": stamp(now)}
    if proposal is not None:
        values["proposal"] = _dumped(proposal)
    c.execute(update(conflicts).where(conflicts.c.id == id).values(values))
    deliveries.release(c, id, now=now)


def find(c: Connection, tenant_id: int, id: int) -> Conflict | None:
    """The conflict with that number."""
    return _first(c, select(conflicts).where(conflicts.c.tenant_id == tenant_id, conflicts.c.id == id))


def open_of(c: Connection, endpoint_id: int, tenant_id: int, source: str, event_id: str) -> Conflict | None:
    """The open conflict of a record with one EHR."""
    query = select(conflicts).where(
        conflicts.c.tenant_id == tenant_id,
        conflicts.c.source == source,
        conflicts.c.event_id == event_id,
        conflicts.c.status == "open",
        conflicts.c.endpoint_id == endpoint_id,
    )
    return _first(c, query)


def are_open(c: Connection, endpoint_id: int) -> bool:
    """Whether there is any open conflict with one EHR."""
    query = select(conflicts.c.id).where(conflicts.c.endpoint_id == endpoint_id, conflicts.c.status == "open")
    return c.execute(query.limit(1)).first() is not None


def open_in_lanes(c: Connection, endpoint: Endpoint, lanes: Collection[str]) -> list[Conflict]:
    """The open conflicts with one EHR about these pumps (or patients, where there is no pump)."""
    asked = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.id, "lanes": list(lanes)}
    return [_conflict(row) for row in c.execute(_OPEN_IN_LANES, asked)]


# Built once: every step of the deliveries asks it.
_OPEN_IN_LANES = (
    select(conflicts)
    .where(
        conflicts.c.tenant_id == bindparam("tenant_id"),
        conflicts.c.endpoint_id == bindparam("endpoint_id"),
        conflicts.c.lane.in_(bindparam("lanes", expanding=True)),
        conflicts.c.status == "open",
    )
    .order_by(conflicts.c.id)
)


def open_in_lane(c: Connection, tenant_id: int, lane: str) -> list[Conflict]:
    """The open conflicts about one pump (or patient, where there is no pump), with any EHR."""
    query = select(conflicts).where(
        conflicts.c.tenant_id == tenant_id, conflicts.c.lane == lane, conflicts.c.status == "open"
    )
    return [_conflict(row) for row in c.execute(query.order_by(conflicts.c.id))]


def search(c: Connection, tenant_id: int, **wanted: Unpack[Wanted]) -> list[Conflict]:
    """Conflicts in order of their numbers, from `after_id`."""
    return [_conflict(row) for row in c.execute(listed(conflicts, tenant_id, **wanted))]


def counts(c: Connection) -> int:
    """How many are open, over all tenants."""
    query = select(func.count()).select_from(conflicts)
    return c.execute(query.where(conflicts.c.status == "open")).scalar_one()


def _dumped(value: Json) -> str | None:
    return None if value is None else dumps(value).decode()


def _first(c: Connection, query: Select[Any]) -> Conflict | None:
    row = c.execute(query).first()
    return _conflict(row) if row is not None else None


def _conflict(row: Row[Any]) -> Conflict:
    values = dict(row._mapping)
    return Conflict(**values | {n: None if values[n] is None else loads(values[n]) for n in _JSON})
