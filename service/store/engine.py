"""How the database is opened, locked and migrated; the only module that knows which database it is.

SQLite (default): WAL, synchronous FULL (an answered request is on the disk), foreign keys on, and one
writer at a time in this process; other processes wait `BUSY_TIMEOUT_S`. PostgreSQL: the same tables; a
transaction-wide advisory lock makes writers take turns, so that sequence numbers commit in order.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

BUSY_TIMEOUT_S = 30
_WRITE = {"itb_write": True}
WAKES = "itb_wakes"
"""In `Connection.info`, the endpoints that something was made due to: the bell rings when it is committed."""
_ADVISORY_LOCK = 0x1712  # any number, the same in every process


class StoreError(Exception):
    """The database cannot be used as it is; the message says why and what to do."""


class Bell:
    """Wakes who waits for deliveries to an endpoint as soon as this process has committed some."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._counts = Counter[int]()

    def count(self, endpoint_id: int) -> int:
        """How often it rang for the endpoint: to be read before one looks whether there is work."""
        return self._counts[endpoint_id]

    def ring(self, endpoint_ids: Iterable[int]) -> None:
        """Wake everybody who waits for one of these."""
        with self._condition:
            self._counts.update(endpoint_ids)
            self._condition.notify_all()

    def wait(self, endpoint_id: int, heard: int, timeout_s: float) -> None:
        """Until it has rung for the endpoint since `heard`, at most so long."""
        with self._condition:
            self._condition.wait_for(lambda: self._counts[endpoint_id] != heard, timeout_s)


class Store:
    """A database and its locks: `with store.read() as c` and `with store.write() as c`."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise StoreError("ITB_DATABASE_URL is not a database URL (sqlite:///itb.db)") from None
        self._lock = threading.Lock()
        self.bell = Bell()
        self._sqlite = parsed.get_backend_name() == "sqlite"
        if self._sqlite and not parsed.database:
            raise StoreError("an SQLite database in memory is not durable: give a file (sqlite:///itb.db)")
        if self._sqlite:
            self.engine = create_engine(
                parsed, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S}
            )
            event.listen(self.engine, "connect", _sqlite_connect)
            event.listen(self.engine, "begin", _sqlite_begin)
        else:
            name = "postgresql+psycopg" if parsed.drivername == "postgresql" else parsed.drivername
            # A writer that waits for one that hangs must end as well, and say so.
            asked = f"-c lock_timeout={BUSY_TIMEOUT_S}s {parsed.query.get('options', '')}"
            self.engine = create_engine(
                parsed.set(drivername=name),
                hide_parameters=True,
                pool_pre_ping=True,
                connect_args={"options": asked},
            )
            event.listen(self.engine, "begin", _postgresql_begin)
        self._check_durable()

    def _check_durable(self) -> None:
        """Refuse to start on a database that could forget an answered request."""
        with self.engine.connect() as c:
            if not self._sqlite:
                _check_postgresql(c)
                return
            journal = c.exec_driver_sql("PRAGMA journal_mode").scalar()
            synchronous = c.exec_driver_sql("PRAGMA synchronous").scalar()
        if (journal, synchronous) != ("wal", 2):
            raise StoreError(
                f"SQLite must run with WAL and synchronous FULL, found {journal} and {synchronous}; "
                "put the file on a local disk"
            )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; it sees one state of the database throughout."""
        with self.engine.begin() as c:
            yield c

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: alone, committed to disk when the block ends, else undone."""
        with self._lock, self.engine.connect() as connection:
            c = connection.execution_options(**_WRITE)
            with c.begin():
                yield c
            if woken := c.info.pop(WAKES, None):
                self.bell.ring(woken)

    def vacuum(self, table: str) -> None:
        """Have PostgreSQL clear and count a table anew, outside of any transaction."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            c.exec_driver_sql(f"VACUUM ANALYZE {table}")

    def close(self) -> None:
        self.engine.dispose()


def _check_postgresql(c: Connection) -> None:
    """`synchronous_commit` may wait for standbys as well, but it must wait for this server's own disk."""
    for name in ("fsync", "synchronous_commit"):
        if (found := c.exec_driver_sql(f"SHOW {name}").scalar()) == "off":
            raise StoreError(
                f"PostgreSQL must run with {name} on, found {found}: it forgets what it answered"
            )


def _sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "recursive_triggers=ON",  # else INSERT OR REPLACE deletes without firing the append-only trigger
        f"busy_timeout={BUSY_TIMEOUT_S * 1000}",
    ):
        try:
            connection.execute(f"PRAGMA {pragma}")
        except UnicodeDecodeError:  # SQLite's message names what it found damaged, byte for byte
            raise StoreError("the database file is damaged: restore a backup (itb verify)") from None


def _sqlite_begin(c: Connection) -> None:
    c.exec_driver_sql("BEGIN IMMEDIATE" if c.get_execution_options().get("itb_write") else "BEGIN")


def _postgresql_begin(c: Connection) -> None:
    if c.get_execution_options().get("itb_write"):
        c.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    else:
        c.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def migrate(store: Store, to: str = "head") -> None:
    """Bring the tables to this version's state; raises `StoreError` on a database newer than the code.

    `to` an older revision: for the tests of what migrations do to the rows that there are.
    """
    with store.write() as c:
        revision = MigrationContext.configure(c).get_current_revision()
        if revision is not None and revision not in _known():
            raise StoreError(
                f"the database is at revision {revision}, which this version does not know: "
                "it was used by a newer version; install that one or restore a backup"
            )
        config = _config()
        config.attributes["connection"] = c
        command.upgrade(config, to)


def is_migrated(c: Connection) -> bool:
    """True when the tables are exactly those of this version."""
    return MigrationContext.configure(c).get_current_revision() == _scripts().get_current_head()


def insert_for(c: Connection, table: Table) -> Any:
    """An insert that knows ON CONFLICT, in the words of this database."""
    return insert_in(c.dialect.name, table)


def insert_in(dialect: str, table: Table) -> Any:
    """`insert_for` a database of that dialect."""
    made = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return made(table)


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database, None for a server."""
    is_file = engine.dialect.name == "sqlite" and engine.url.database
    return Path(engine.url.database or "").resolve() if is_file else None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}
