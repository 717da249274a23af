"""The ends of the chains: what the next row must follow, and whether every row that is there does.

Triggers keep a head in step with its table and refuse a row that does not follow it (migration 0004), so
that no writer, of whatever version, can add a row beside the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, insert, select

from service.chain import COLUMNS, Break, Head, seal, walk

from .remote import is_as_read
from .tables import audit, chains, events, metadata, remote_versions
from .times import is_stamp

TABLES: dict[str, Table] = {"events": events, "audit": audit}

# Built once: this is asked for every row.
_ENDS = (
    select(chains).where(chains.c.name == bindparam("chain")).order_by(chains.c.tenant_id).with_for_update()
)
_INSERT = {name: insert(table) for name, table in TABLES.items()}


def append(c: Connection, name: str, tenant_id: int, values: Sequence[Mapping[str, Any]]) -> list[int]:
    """Add sealed rows to `events` or `audit`, in order; their numbers.

    The heads are locked until the transaction ends (SQLite: the whole database is), so that of two writers
    the second one follows the first; those of all tenants, as they share the numbers.
    """
    if not values:
        return []
    columns = COLUMNS[name]
    ends = c.execute(_ENDS, {"chain": name}).all()
    previous = next(end.last_hash for end in ends if end.tenant_id == tenant_id)
    first = max(end.last_id for end in ends) + 1
    rows = []
    for number, one in enumerate(values, first):
        row = {columns[0]: number, "tenant_id": tenant_id, **one}
        row |= {"previous_hash": previous, "row_hash": seal(columns, row, previous)}
        previous = row["row_hash"]
        rows.append(row)
    c.execute(_INSERT[name], rows)
    return [row[columns[0]] for row in rows]


def heads(c: Connection, name: str) -> dict[int, Head]:
    """The end of each tenant's chain."""
    rows = c.execute(select(chains).where(chains.c.name == name).order_by(chains.c.tenant_id))
    return {row.tenant_id: Head(row.length, row.last_id, row.last_hash) for row in rows}


def breaks(
    c: Connection, name: str, *, expected: Iterable[str] = (), seen: Callable[[int], object] = lambda _: None
) -> Iterator[Break]:
    """Walk a table's chains in constant memory; `seen` is told of each row that was looked at."""
    table = TABLES[name]
    order = table.c[COLUMNS[name][0]]

    def rows() -> Iterator[Mapping[Any, Any]]:
        found = c.execution_options(yield_per=1000).execute(select(table).order_by(order))
        for row in found.mappings():
            seen(1)
            yield row

    return walk(name, rows(), heads(c, name), expected)


def count(c: Connection, name: str) -> int:
    """How many rows the table has."""
    return int(c.execute(select(func.count()).select_from(TABLES[name])).scalar_one())


def implausible(c: Connection) -> Iterator[str]:
    """Rows of the tables that are not chained that nothing of ours has written.

    Instants that are none; what was read in an EHR and does not say what its hash says.
    """
    for table in metadata.sorted_tables:
        if table.name in TABLES:
            continue
        stamped = [column.name for column in table.c if column.name.endswith("_at") or column.name == "until"]
        number = next(iter(table.primary_key)).name
        # Every column, though few are looked at: text that is none makes the reading fail.
        for row in c.execution_options(yield_per=1000).execute(select(table)).mappings():
            for name in stamped:
                if row[name] is not None and not is_stamp(row[name]):
                    yield f"{table.name} {row[number]}: {name} is no instant"
            if table is remote_versions and not is_as_read(row):
                yield f"{table.name} {row[number]}: raw is not what was read"


def structure(c: Connection) -> Iterator[str]:
    """What is wrong with an SQLite file; nothing on PostgreSQL, which has its own checks (pg_amcheck)."""
    if c.dialect.name != "sqlite":
        return
    yield from (line for line in c.exec_driver_sql("PRAGMA integrity_check").scalars() if line != "ok")
    for row in c.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there"
