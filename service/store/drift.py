"""Comparisons of an EHR with the ledger: how far each got, and what it found; and cases for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, insert, or_, select, update

from mappings.exact_json import dumps, loads

from .endpoints import Endpoint
from .listing import Wanted, listed
from .tables import cases, deliveries, endpoints, events, findings, reconciliations
from .times import stamp

Json = Any


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison; `cursor` is the ledger number up to which it got, `counts` are findings by kind."""

    id: int
    tenant_id: int
    endpoint_id: int
    begun_by: str
    started_at: str
    finished_at: str | None
    cursor: int
    compared: int
    counts: Json


@dataclass(frozen=True, slots=True)
class Found:
    """One finding of a run; `repaired` says what was done, None for nothing."""

    kind: str
    resource_type: str
    system: str
    value: str
    remote_ids: Json
    reason: str
    repaired: str | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """Something that a person must sort out in the EHR: `duplicate` is one identity held several times."""

    id: int
    tenant_id: int
    endpoint_id: int
    kind: str
    resource_type: str
    system: str
    value: str
    remote_ids: Json
    status: str
    reason: str | None
    opened_at: str
    updated_at: str


# --- runs -----------------------------------------------------------------------------------------------


def begin(c: Connection, endpoint: Endpoint, begun_by: str, *, now: datetime) -> Run:
    """Begin a run."""
    made = insert(reconciliations).values(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        begun_by=begun_by,
        started_at=stamp(now),
        cursor=0,
        compared=0,
        counts="{}",
    )
    key = c.execute(made).inserted_primary_key
    assert key is not None
    found = _run(c.execute(select(reconciliations).where(reconciliations.c.id == key[0])).one())
    return found


def save(c: Connection, run: Run, *, finished: datetime | None = None) -> None:
    """How far it got; `finished` ends it."""
    values = {"cursor": run.cursor, "compared": run.compared, "counts": dumps(run.counts).decode()}
    if finished is not None:
        values["finished_at"] = stamp(finished)
    c.execute(update(reconciliations).where(reconciliations.c.id == run.id).values(values))


def latest(c: Connection, endpoint_id: int, *, finished: bool, begun_by: str | None = None) -> Run | None:
    """The newest run of an endpoint that is finished, or that is not."""
    ended = reconciliations.c.finished_at
    query = select(reconciliations).where(
        reconciliations.c.endpoint_id == endpoint_id, ended.is_not(None) if finished else ended.is_(None)
    )
    if begun_by is not None:
        query = query.where(reconciliations.c.begun_by == begun_by)
    row = c.execute(query.order_by(reconciliations.c.id.desc()).limit(1)).first()
    return _run(row) if row is not None else None


def _run(row: Row[Any]) -> Run:
    return Run(**dict(row._mapping) | {"counts": loads(row.counts)})


def add(c: Connection, run: Run, found: Sequence[Found]) -> None:
    """Keep what a run found."""
    rows = [
        {
            "tenant_id": run.tenant_id,
            "run_id": run.id,
            "kind": one.kind,
            "resource_type": one.resource_type,
            "system": one.system,
            "value": one.value,
            "remote_ids": dumps(list(one.remote_ids)).decode(),
            "reason": one.reason,
            "repaired": one.repaired,
        }
        for one in found
    ]
    if rows:
        c.execute(insert(findings), rows)


def known(c: Connection, run_id: int, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these identities the run has a finding of already."""
    values = [value for _, value in keys]
    query = select(findings.c.system, findings.c.value).where(
        findings.c.run_id == run_id, findings.c.value.in_(values)
    )
    return {(row.system, row.value) for row in c.execute(query)} & set(keys)


def of_run(c: Connection, tenant_id: int, run_id: int, *, limit: int, after_id: int = 0) -> list[Found]:
    """What a run found, in order."""
    query = (
        select(findings)
        .where(findings.c.tenant_id == tenant_id, findings.c.run_id == run_id, findings.c.id > after_id)
        .order_by(findings.c.id)
        .limit(limit)
    )
    names = Found.__dataclass_fields__
    return [
        Found(**{n: getattr(row, n) for n in names} | {"remote_ids": loads(row.remote_ids)})
        for row in c.execute(query)
    ]


# --- what the EHR should hold -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """The newest version of a record that was delivered to the EHR, or that the EHR itself told."""

    seq: int
    delivery_id: int | None


def settled(c: Connection, endpoint: Endpoint, *, after_seq: int, limit: int) -> list[Settled]:
    """Records whose newest version the EHR should hold, in ledger order; without those still on their way."""
    query = (
        select(events.c.seq, deliveries.c.id.label("delivery_id"))
        .outerjoin(deliveries, _delivered_to(endpoint))
        .where(events.c.seq > after_seq, *_should_hold(endpoint))
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [Settled(row.seq, row.delivery_id) for row in c.execute(query)]


def count_settled(c: Connection, endpoint: Endpoint, *, after_seq: int = 0) -> int:
    """How many `settled` there are."""
    query = (
        select(func.count())
        .select_from(events.outerjoin(deliveries, _delivered_to(endpoint)))
        .where(events.c.seq > after_seq, *_should_hold(endpoint))
    )
    return int(c.execute(query).scalar_one())


def _delivered_to(endpoint: Endpoint) -> ColumnElement[bool]:
    return and_(deliveries.c.event_seq == events.c.seq, deliveries.c.endpoint_id == endpoint.id)


def _should_hold(endpoint: Endpoint) -> tuple[ColumnElement[bool], ...]:
    later = events.alias("later")
    superseded = exists().where(
        later.c.tenant_id == events.c.tenant_id,
        later.c.source == events.c.source,
        later.c.event_id == events.c.event_id,
        later.c.version > events.c.version,
    )
    told_by_it = and_(deliveries.c.id.is_(None), events.c.origin == endpoint.name)
    return (
        events.c.tenant_id == endpoint.tenant_id,
        ~superseded,
        or_(deliveries.c.status == "sent", told_by_it),
    )


# --- cases ------------------------------------------------------------------------------------------------


def open_case(
    c: Connection,
    endpoint: Endpoint,
    kind: str,
    resource_type: str,
    key: tuple[str, str],
    remote_ids: Sequence[str],
    *,
    now: datetime,
) -> int:
    """The number of the open case about this identity, opened now where there is none."""
    values = {"remote_ids": dumps(sorted(remote_ids)).decode(), "updated_at": stamp(now)}
    same = (
        cases.c.endpoint_id == endpoint.id,
        cases.c.kind == kind,
        cases.c.resource_type == resource_type,
        cases.c.system == key[0],
        cases.c.value == key[1],
        cases.c.status == "open",
    )
    known = c.execute(select(cases.c.id).where(*same)).scalar()
    if known is not None:
        c.execute(update(cases).where(cases.c.id == known).values(values))
        return int(known)
    made = insert(cases).values(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        kind=kind,
        resource_type=resource_type,
        system=key[0],
        value=key[1],
        status="open",
        opened_at=stamp(now),
        **values,
    )
    id = c.execute(made).inserted_primary_key
    assert id is not None
    return int(id[0])


def close_case(c: Connection, tenant_id: int, id: int, reason: str, *, now: datetime) -> bool:
    """Close an open case; False when there is none of this number."""
    done = c.execute(
        update(cases)
        .where(cases.c.tenant_id == tenant_id, cases.c.id == id, cases.c.status == "open")
        .values(status="closed", reason=reason, updated_at=stamp(now))
    )
    return done.rowcount == 1


def open_cases_of(
    c: Connection, endpoint_id: int, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """The numbers of the open cases about any of these identities."""
    query = select(cases.c.id, cases.c.system, cases.c.value).where(
        cases.c.endpoint_id == endpoint_id,
        cases.c.status == "open",
        cases.c.value.in_([value for _, value in keys]),
    )
    wanted = set(keys)
    found = {(row.system, row.value): int(row.id) for row in c.execute(query)}
    return {key: id for key, id in found.items() if key in wanted}


def find_case(c: Connection, tenant_id: int, id: int) -> Case | None:
    """The case with that number."""
    row = c.execute(select(cases).where(cases.c.tenant_id == tenant_id, cases.c.id == id)).first()
    return _case(row) if row is not None else None


def search_cases(c: Connection, tenant_id: int, **wanted: Unpack[Wanted]) -> list[Case]:
    """Cases in order of their numbers, from `after_id`."""
    return [_case(row) for row in c.execute(listed(cases, tenant_id, **wanted))]


def _case(row: Row[Any]) -> Case:
    return Case(**dict(row._mapping) | {"remote_ids": loads(row.remote_ids)})


def newest_counts(c: Connection) -> dict[tuple[str, str], int]:
    """(endpoint, kind) of what the newest finished comparison of each endpoint found, and how many."""
    newest = (
        select(func.max(reconciliations.c.id))
        .where(reconciliations.c.finished_at.is_not(None))
        .group_by(reconciliations.c.endpoint_id)
    )
    query = (
        select(endpoints.c.name, reconciliations.c.counts)
        .join(endpoints, endpoints.c.id == reconciliations.c.endpoint_id)
        .where(reconciliations.c.id.in_(newest))
    )
    return {
        (row.name, kind): number for row in c.execute(query) for kind, number in loads(row.counts).items()
    }
