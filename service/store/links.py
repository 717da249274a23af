"""Which resource of an EHR is which record of ours, and what both sides last agreed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from .engine import insert_in
from .tables import links
from .times import stamp


@dataclass(frozen=True, slots=True)
class Link:
    """Our identity (system, value) ⇄ the EHR's `type/remote_id`, its version and content when last seen.

    What it then told, as an event, is `told` (JSON), or the ledger's row `event_seq` where that is None: the
    base of a merge. `ours` (JSON): the part of the resource there that is our word, where it holds more; that
    must stay when ours is written anew. `deleted_at`: when it was found deleted there; it is then never
    written again. `seen_at`: when it was last seen there (a stamp), as the ledger has it.
    """

    tenant_id: int
    endpoint_id: int
    system: str
    value: str
    resource_type: str
    remote_id: str
    version_id: str | None
    content_hash: str | None
    event_seq: int | None = None
    told: str | None = None
    ours: str | None = None
    deleted_at: str | None = None
    seen_at: str | None = field(default=None, compare=False)


CACHED = timedelta(minutes=5)
"""No cache between us and an EHR answers with what was there longer ago."""
_FIELDS = tuple(name for name in Link.__dataclass_fields__ if name != "seen_at")
# Built once: building it takes longer than SQLite's answer.
_OF_SYSTEM = select(links).where(
    links.c.endpoint_id == bindparam("endpoint_id"),
    links.c.system == bindparam("system"),
    links.c.value.in_(bindparam("wanted", expanding=True)),
)


def is_past_caches(link: Link, now: datetime) -> bool:
    """Whether no answer can be older than what we last saw there, be it from a cache."""
    return link.seen_at is None or link.seen_at <= stamp(now - CACHED)


def find(c: Connection, endpoint_id: int, system: str, value: str) -> Link | None:
    """The link of one of our identities."""
    query = select(links).where(
        links.c.endpoint_id == endpoint_id, links.c.system == system, links.c.value == value
    )
    row = c.execute(query).first()
    return _link(row) if row is not None else None


def find_many(
    c: Connection, endpoint_id: int, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Link]:
    """The links of these identities (system, value), those that there are."""
    values: dict[str, list[str]] = {}
    for system, value in sorted(set(keys)):
        values.setdefault(system, []).append(value)
    found = {}
    for system, wanted in values.items():
        for at in range(0, len(wanted), 500):
            some = {"endpoint_id": endpoint_id, "system": system, "wanted": wanted[at : at + 500]}
            for row in c.execute(_OF_SYSTEM, some):
                found[row.system, row.value] = _link(row)
    return found


def find_remote(c: Connection, endpoint_id: int, resource_type: str, remote_id: str) -> Link | None:
    """The link of one of the EHR's resources (the first made, where several identities share it)."""
    query = select(links).where(
        links.c.endpoint_id == endpoint_id,
        links.c.resource_type == resource_type,
        links.c.remote_id == remote_id,
    )
    row = c.execute(query.order_by(links.c.id)).first()
    return _link(row) if row is not None else None


def of_remote(
    c: Connection, endpoint_id: int, resource_type: str, remote_ids: Sequence[str]
) -> dict[str, Link]:
    """The links of many of the EHR's resources of one type, by their ids there."""
    query = select(links).where(
        links.c.endpoint_id == endpoint_id,
        links.c.resource_type == resource_type,
        links.c.remote_id.in_(remote_ids),
    )
    found: dict[str, Link] = {}
    for row in c.execute(query.order_by(links.c.id)):
        found.setdefault(row.remote_id, _link(row))
    return found


def set_deleted(c: Connection, endpoint_id: int, resource_type: str, remote_id: str, *, at: str) -> None:
    """Remember that a resource was found deleted (`at`, a stamp)."""
    c.execute(
        update(links)
        .where(
            links.c.endpoint_id == endpoint_id,
            links.c.resource_type == resource_type,
            links.c.remote_id == remote_id,
            links.c.deleted_at.is_(None),
        )
        .values(deleted_at=at)
    )


def newest(c: Connection, endpoint_id: int, *, limit: int) -> list[Link]:
    """The links made last, of what was not found deleted."""
    query = select(links).where(links.c.endpoint_id == endpoint_id, links.c.deleted_at.is_(None))
    return [_link(row) for row in c.execute(query.order_by(links.c.id.desc()).limit(limit))]


def count(c: Connection, endpoint_id: int) -> int:
    """How many resources of the EHR are linked and not deleted there."""
    query = select(func.count()).select_from(links)
    return c.execute(
        query.where(links.c.endpoint_id == endpoint_id, links.c.deleted_at.is_(None))
    ).scalar_one()


def save(c: Connection, link: Link, *, now: datetime) -> None:
    """Add the link, or replace what is known of that identity."""
    save_many(c, [link], now=now)


def save_many(c: Connection, made: Sequence[Link], *, now: datetime) -> None:
    """`save` each: of one identity the last counts."""
    rows = {
        (link.endpoint_id, link.system, link.value): {name: getattr(link, name) for name in _FIELDS}
        | {"updated_at": stamp(now)}
        for link in made
    }
    if not rows:
        return
    c.execute(_upsert(c.dialect.name), list(rows.values()))


@lru_cache(None)
def _upsert(dialect: str) -> Any:
    """Building the statement takes longer than SQLite needs to perform it."""
    statement = insert_in(dialect, links)
    replaced = {name: statement.excluded[name] for name in (*_FIELDS, "updated_at")}
    key = ["endpoint_id", "system", "value"]
    return statement.on_conflict_do_update(index_elements=key, set_=replaced)


def agree(c: Connection, kept: Sequence[Link]) -> None:
    """Both sides agree on the event of `event_seq`, where the EHR's resource is still at that version."""
    statement = update(links).where(
        links.c.endpoint_id == bindparam("of_endpoint"),
        links.c.system == bindparam("of_system"),
        links.c.value == bindparam("of_value"),
        links.c.version_id == bindparam("of_version"),
        links.c.deleted_at.is_(None),
    )
    rows = [
        {
            "of_endpoint": link.endpoint_id,
            "of_system": link.system,
            "of_value": link.value,
            "of_version": link.version_id,
            "agreed": link.event_seq,
        }
        for link in kept
    ]
    if rows:
        c.execute(statement.values(event_seq=bindparam("agreed")), rows)


def forget(c: Connection, endpoint_id: int, system: str, value: str) -> None:
    """Remove a link whose resource is gone from the EHR."""
    c.execute(
        delete(links).where(
            links.c.endpoint_id == endpoint_id, links.c.system == system, links.c.value == value
        )
    )


def _link(row: Row[Any]) -> Link:
    return Link(**{name: getattr(row, name) for name in _FIELDS}, seen_at=row.updated_at)
