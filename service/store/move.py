"""Moves a site to another database, SQLite or PostgreSQL: every row of every table, counted and compared.

Copied in batches, each a transaction of the target that begins after the last row the target has: a run that
was killed goes on where it stood. The source is only read, in one transaction; it must not change meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Integer, Table, delete, func, insert, inspect, select, text

from mappings import exact_json

from .engine import Store, StoreError, is_migrated, migrate
from .tables import chains, leases, metadata, tenants
from .times import stamp

BATCH = 500
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


def move(source: Store, target: Store, *, now: datetime, bar: Bar) -> dict[str, int]:
    """Copy all, compare all; how many rows each table has. Raises `StoreError` and says what to do."""
    _require_idle(source, now)
    migrate(target)
    with source.read() as ours:
        if not is_migrated(ours):
            raise StoreError("the tables are not those of this version: run `itb doctor` first")
        for table in _tables():
            with bar(f"copying {table.name}", _count(ours, table)) as advance:
                _copy(ours, target, table, advance)
        _set_counters(target)
        copied = _compare(ours, target, bar)
    # What was written while it was copied is in no reader's view that began before it.
    _require_idle(source, now)
    with source.write() as ours, target.read() as theirs:
        for table in _tables():
            if _count(ours, table) != _count(theirs, table):
                raise StoreError(
                    f"{table.name} has grown while it was copied: stop the service and run this again"
                )
    return copied


def _tables() -> list[Table]:
    """In an order in which what is referred to comes first; triggers of the target keep the chains."""
    return [table for table in metadata.sorted_tables if table is not chains]


def _require_idle(source: Store, now: datetime) -> None:
    with source.read() as c:
        if not inspect(c).has_table(leases.name):
            raise StoreError("there is no ledger at ITB_DATABASE_URL")
        for table in metadata.sorted_tables:
            if "until" not in table.c or not inspect(c).has_table(table.name):
                continue
            held = c.execute(select(func.max(table.c.until)).where(table.c.until > stamp(now))).scalar()
            if held is not None:
                raise StoreError(
                    f"a service or worker is running (a lease is held until {held}): stop it first"
                )


def _number(table: Table) -> Column[Any] | None:
    """The primary key of a table that counts its rows up."""
    key = list(table.primary_key)
    return key[0] if len(key) == 1 and isinstance(key[0].type, Integer) else None


def _copy(ours: Connection, target: Store, table: Table, advance: Callable[[int], object]) -> None:
    number = _number(table)
    if number is None:
        # Few rows (leases): taken whole, anew each time.
        rows = [dict(row) for row in ours.execute(select(table)).mappings()]
        with target.write() as theirs:
            theirs.execute(delete(table))
            if rows:
                theirs.execute(insert(table), rows)
        advance(len(rows))
        return
    with target.read() as theirs:
        after = theirs.execute(select(func.max(number))).scalar()
        if table is tenants and after == 1:
            after = None  # the first migration made it
    advance(_count(ours, table, number <= after) if after is not None else 0)
    while True:
        query = select(table).order_by(number).limit(BATCH)
        page = ours.execute(query.where(number > after) if after is not None else query).mappings().all()
        if not page:
            return
        with target.write() as theirs:
            if table is tenants:
                known = set(theirs.execute(select(tenants.c.id)).scalars())
                new = [dict(row) for row in page if row["id"] not in known]
            else:
                new = [dict(row) for row in page]
            if new:
                theirs.execute(insert(table), new)
        after = page[-1][number.name]
        advance(len(page))


def _set_counters(target: Store) -> None:
    """PostgreSQL's sequences know nothing of rows that came with their numbers."""
    if target.engine.dialect.name != "postgresql":
        return
    with target.write() as c:
        for table in metadata.sorted_tables:
            number = _number(table)
            if number is not None:
                c.execute(
                    text(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{number.name}'), "
                        f"(SELECT coalesce(max({number.name}), 0) + 1 FROM {table.name}), false)"
                    )
                )


def _compare(ours: Connection, target: Store, bar: Bar) -> dict[str, int]:
    """Row by row, by hash, in the same order on both sides."""
    counted = {}
    with target.read() as theirs:
        for table in metadata.sorted_tables:
            counted[table.name] = total = _count(ours, table)
            with bar(f"comparing {table.name}", 2 * total) as advance:
                if _digest(ours, table, advance) != _digest(theirs, table, advance):
                    raise StoreError(
                        f"{table.name} differs: the source has changed since a run that was stopped, or the "
                        "target was not empty; empty the target and run this again"
                    )
    return counted


def _digest(c: Connection, table: Table, advance: Callable[[int], object]) -> tuple[int, str]:
    """How many rows, and a hash over what they say, whatever their order in the database."""
    number = _number(table)
    hashed, rows = hashlib.sha256(), 0
    for line in _lines(c, table) if number is not None else sorted(_lines(c, table)):
        hashed.update(line + b"\n")
        rows += 1
        advance(1)
    return rows, hashed.hexdigest()


def _lines(c: Connection, table: Table) -> Iterator[bytes]:
    query = select(table).order_by(*table.primary_key)
    for row in c.execution_options(yield_per=BATCH).execute(query):
        yield exact_json.dumps(list(row))


def _count(c: Connection, table: Table, *where: Any) -> int:
    return int(c.execute(select(func.count()).select_from(table).where(*where)).scalar_one())
