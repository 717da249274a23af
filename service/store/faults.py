"""What a failure of the database means: who can mend it, and whether it passes by itself. A table.

SQLite names its failures by result codes, PostgreSQL by SQLSTATE; a row is found by either. In every case the
transaction was undone: what it held was not accepted, and sending it again does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, OperationalError


@dataclass(frozen=True, slots=True)
class Fault:
    """The HTTP status and rule it is told with, and what to do; `names` are SQLite's codes and SQLSTATEs.

    A name that ends in `*` stands for all that begin so.
    """

    status: int
    rule: str
    message: str
    names: tuple[str, ...]


FAULTS = (
    Fault(
        507,
        "disk-full",
        "the disk of the database is full; free some space and send it again: what was accepted is replayed",
        ("SQLITE_FULL", "53100"),
    ),
    Fault(
        503,
        "database-locked",
        "another program holds the database's lock; send it again: what was accepted is replayed",
        ("SQLITE_BUSY*", "SQLITE_LOCKED*", "55P03", "40P01", "40001"),
    ),
    Fault(
        503,
        "database-read-only",
        "the database may not be written; the rights of its file or role must be mended",
        ("SQLITE_READONLY*", "SQLITE_PERM", "25006", "42501"),
    ),
    Fault(
        503,
        "database-damaged",
        "the database is damaged: stop the service and restore a backup (docs/operations.md)",
        ("SQLITE_CORRUPT*", "SQLITE_NOTADB", "XX001", "XX002"),
    ),
    Fault(
        503,
        "database-disk",
        "the disk of the database fails; see the system's log",
        ("SQLITE_IOERR*", "58030"),
    ),
    Fault(
        503,
        "database",
        "the database cannot answer now; send it again: what was accepted is replayed",
        ("SQLITE_CANTOPEN*", "SQLITE_NOMEM", "SQLITE_INTERRUPT", "08*", "53*", "57*"),
    ),
)
OTHER = FAULTS[-1]


def fault_of(error: DBAPIError) -> Fault | None:
    """The row of an outage; None for what is a bug of ours: a constraint, a wrong statement."""
    original = error.orig
    name = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None) or ""
    for fault in FAULTS:
        if any(_is(name, pattern) for pattern in fault.names):
            return fault
    # A driver that has lost its connection has no code for it.
    return OTHER if name == "" and isinstance(error, OperationalError) else None


def is_outage(error: Exception) -> bool:
    """Whether the database failed, rather than what was asked of it."""
    return isinstance(error, DBAPIError) and fault_of(error) is not None


def _is(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
