"""The database: durable, append-only, migrated, and never opened by a version that does not know it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError, IntegrityError

from mappings import load_event
from postgresql_server import PostgresqlServer
from samples import REFILL
from service.store import audit, events, migrations
from service.store.engine import Store, StoreError, is_migrated, migrate
from service.store.tables import metadata
from service.store.times import moment, stamp


def record(c: Connection) -> None:
    """One audit row and one event."""
    event = load_event(REFILL)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    events.accept(c, 1, event, received_at=now, actor="a", endpoints=[])


def audit_row(c: Connection, subject: str = "x") -> None:
    audit.write(c, 1, at="2026", actor="a", action="b", subject=subject)


def test_the_migrations_make_the_tables_of_the_code(store: Store) -> None:
    with store.read() as c:
        assert compare_metadata(MigrationContext.configure(c), metadata) == []
        assert is_migrated(c)
        assert c.exec_driver_sql("SELECT id, name FROM tenants").all() == [(1, "default")]


def test_the_migrations_are_one_line() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    names = sorted(path.name[:5] for path in folder.glob("r*.py"))
    assert names == [f"r{number:04}" for number in range(1, len(names) + 1)]


def test_every_table_belongs_to_a_tenant() -> None:
    for table in metadata.sorted_tables:
        assert "tenant_id" in table.c or table.name == "tenants"


def test_migrating_again_changes_nothing(store: Store) -> None:
    with store.write() as c:
        audit_row(c)
    migrate(store)
    with store.read() as c:
        assert c.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 1


def test_a_database_newer_than_the_code_is_refused(store: Store) -> None:
    with store.write() as c:
        c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="9999.*newer version"):
        migrate(store)


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_a_migration_that_fails_leaves_nothing(on: str, tmp_path: Path, postgresql: PostgresqlServer) -> None:
    url = postgresql.database(migrated=False) if on == "postgresql" else f"sqlite:///{tmp_path}/half.db"
    made = Store(url)
    with made.write() as c:
        c.exec_driver_sql("CREATE TABLE links (id INTEGER)")
    with pytest.raises(DBAPIError):
        migrate(made)
    with made.read() as c:
        assert inspect(c).get_table_names() == ["links"]
    made.close()


def test_an_answered_write_is_on_the_disk(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/itb.db").engine.connect() as c:
        found = [
            c.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
        ]
    assert found == ["wal", 2, 1, 1]


@pytest.mark.parametrize("name", ["fsync", "synchronous_commit"])
def test_a_postgresql_that_forgets_is_refused(postgresql: PostgresqlServer, name: str) -> None:
    url = postgresql.database()
    with postgresql.server_setting(name, "off"), pytest.raises(StoreError, match=f"{name} on"):
        Store(url)
    Store(url).close()


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(StoreError, match="not durable"):
        Store("sqlite://")


def test_an_address_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(StoreError) as error:
        Store("s3cret")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("change", ["UPDATE {table} SET tenant_id = 1", "DELETE FROM {table}"])
@pytest.mark.parametrize("table", ["events", "audit"])
def test_what_was_recorded_cannot_be_changed(store: Store, table: str, change: str) -> None:
    with store.write() as c:
        record(c)
    with pytest.raises(DBAPIError, match="append-only"), store.write() as c:
        c.exec_driver_sql(change.format(table=table))
    with store.read() as c:
        assert c.exec_driver_sql("SELECT actor FROM audit").scalars().all() == ["a"]
        assert c.exec_driver_sql("SELECT count(*) FROM events").scalar() == 1


CHANGED = ("seq", "previous_hash", "row_hash")


def test_what_was_recorded_cannot_be_replaced(tmp_path: Path) -> None:
    """SQLite alone has a statement that deletes a row on the way to an insert."""
    store = Store(f"sqlite:///{tmp_path}/itb.db")
    migrate(store)
    with store.write() as c:
        record(c)
    kept = ", ".join(column.name for column in metadata.tables["events"].c if column.name not in CHANGED)
    for number, refusal in ((1, "follow"), (9, "append-only")):  # 9 follows the chain, and would remove 1
        replace = (
            f"INSERT OR REPLACE INTO events ({kept}, seq, previous_hash, row_hash) "
            f"SELECT {kept}, {number}, row_hash, row_hash FROM events"
        )
        with pytest.raises(IntegrityError, match=refusal), store.write() as c:
            c.exec_driver_sql(replace)
    store.close()


def test_a_write_that_fails_is_undone(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as c:
        audit_row(c)
        raise RuntimeError
    with store.read() as c:
        assert c.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0


def test_a_reader_sees_one_state_throughout(store: Store) -> None:
    with store.read() as c:
        assert c.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0
        with store.write() as w:
            audit_row(w)
        assert c.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0


def test_writers_in_one_process_and_in_several_take_turns(store: Store, database_url: str) -> None:
    other = Store(database_url)

    def write(which: Store, name: str) -> None:
        for n in range(20):
            with which.write() as c:
                c.exec_driver_sql("SELECT count(*) FROM audit").scalar()
                audit_row(c, f"{name}{n}")

    threads = [
        threading.Thread(target=write, args=(s, n)) for s, n in ((store, "a"), (store, "b"), (other, "c"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    with store.read() as c:
        subjects = c.exec_driver_sql("SELECT subject FROM audit ORDER BY id").scalars().all()
    assert len(subjects) == 60
    for name in "abc":
        assert [s for s in subjects if s[0] == name] == [f"{name}{n}" for n in range(20)]


def test_values_never_stand_in_database_errors(store: Store) -> None:
    with pytest.raises(IntegrityError) as error, store.write() as c:
        c.execute(metadata.tables["tenants"].insert().values(id=1, name="MRN-CANARY"))
    assert "MRN-CANARY" not in str(error.value)


def test_stamps_sort_as_time_and_come_back() -> None:
    first = datetime.fromisoformat("2025-02-03T12:00:00-06:00")
    second = datetime.fromisoformat("2025-02-03T18:00:00.000001+00:00")
    assert stamp(first) == "2025-02-03T18:00:00.000000Z"
    assert stamp(first) < stamp(second)
    assert moment(stamp(second)) == second
    assert moment(stamp(first)).tzinfo is UTC
    with pytest.raises(ValueError, match="offset"):
        stamp(datetime(2025, 1, 1))
