"""The chains in the database: kept by every writer, seen through whatever is done to the file."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError

from mappings import MappingError, load_event
from mappings.bundle import encode
from mappings.exact_json import dumps, loads
from mappings.identity import content_hash
from postgresql_server import PostgresqlServer
from samples import EVERY, REFILL
from service import chain, verify
from service.chain import Damaged
from service.store import audit, chains, deliveries, endpoints, events, remote
from service.store.deliveries import Outcome
from service.store.engine import Store, StoreError, migrate
from service.store.remote import RemoteVersion
from service.store.tables import audit as audit_table
from service.store.tables import events as events_table

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


def wrong(store: Store, *expected: str) -> list[str]:
    """What `itb verify` finds fault with."""
    return [found.what for found in verify.findings(store, expected) if not found.ok]


def fill(store: Store, records: int = 20, tenant: int = 1) -> None:
    """Records with their deliveries and audit rows; every third is corrected."""
    with store.write() as c:
        if not endpoints.every(c, tenant):
            endpoints.add(c, tenant, "hapi", "http://ehr.invalid", {}, now=NOW)
        for number in range(records):
            for version in range(1, 3 if number % 3 == 0 else 2):
                record(c, f"R-{number}", tenant, version=version, note=f"note {number}.{version}")


def record(c: Connection, id: str, tenant: int = 1, **more: Any) -> events.Accepted:
    event = load_event(loads(dumps(REFILL | {"id": id} | more)))
    known = endpoints.every(c, tenant)
    return events.accept(c, tenant, event, received_at=NOW, actor="test", endpoints=known)


def unlock(c: Connection, *tables: str) -> None:
    """What someone with the rights of the database's owner does first."""
    for table in tables:
        if c.dialect.name == "postgresql":
            c.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        else:
            for name in c.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,)
            ).scalars():
                c.exec_driver_sql(f"DROP TRIGGER {name}")


def test_every_event_and_audit_row_is_sealed(store: Store) -> None:
    fill(store)
    with store.write() as c:
        c.exec_driver_sql("INSERT INTO tenants (id, name) VALUES (2, 'other')")
    fill(store, 5, tenant=2)
    assert wrong(store) == []
    anchors = [found.what for found in verify.findings(store)]
    assert [anchor.rpartition(":")[0] for anchor in anchors] == [
        "events/1:27",
        "events/2:7",
        "audit/1:27",
        "audit/2:7",
    ]
    assert wrong(store, *anchors) == []
    fill(store, 25)
    assert wrong(store, *anchors) == [], "an anchor holds when the chain goes on"


@pytest.mark.parametrize("table", ["events", "audit"])
@pytest.mark.parametrize("change", ["content", "metadata", "delete", "delete last", "swap", "sealed anew"])
def test_tampering_is_named(store: Store, table: str, change: str) -> None:
    fill(store)
    number = chain.COLUMNS[table][0]
    text_column = {"events": "content", "audit": "detail"}[table]
    other_column = {"events": "pump", "audit": "actor"}[table]
    statements = {
        "content": [f"UPDATE {table} SET {text_column} = {text_column} || ' ' WHERE {number} = 7"],
        "metadata": [f"UPDATE {table} SET {other_column} = 'X' WHERE {number} = 7"],
        "delete": [f"DELETE FROM {table} WHERE {number} = 6"],
        "delete last": [f"DELETE FROM {table} WHERE {number} = 27"],
        "swap": [
            f"UPDATE {table} SET {number} = 99 WHERE {number} = 7",
            f"UPDATE {table} SET {number} = 7 WHERE {number} = 8",
            f"UPDATE {table} SET {number} = 8 WHERE {number} = 99",
        ],
        "sealed anew": [f"UPDATE {table} SET {other_column} = 'X' WHERE {number} = 6"],
    }[change]
    with store.write() as c:
        unlock(c, table, "deliveries")
        c.exec_driver_sql("DELETE FROM deliveries")
        for statement in statements:
            c.exec_driver_sql(statement)
        if change == "sealed anew":
            reseal(c, table, 6)
    found = wrong(store)
    assert found
    place = "the chain" if change == "delete last" else "row 7"
    assert found[0].startswith(f"{table} of tenant 1: {place} ")


def reseal(c: Connection, name: str, number: int) -> None:
    table = chains.TABLES[name]
    key = table.c[chain.COLUMNS[name][0]] == number
    row = c.execute(select(table).where(key)).mappings().one()
    hashed = chain.seal(chain.COLUMNS[name], row, row["previous_hash"])
    c.execute(table.update().where(key).values(row_hash=hashed))


@pytest.mark.parametrize("table", [events_table, audit_table], ids=str)
def test_a_row_beside_the_chain_is_refused_by_the_database(store: Store, table: Any) -> None:
    fill(store)
    number = chain.COLUMNS[table.name][0]
    with store.read() as c:
        row = dict(c.execute(select(table).order_by(table.c[number].desc()).limit(1)).mappings().one())
    if table is events_table:
        row["event_id"] = "R-new"
    follows = row["row_hash"]
    for change in (
        {number: 28},  # follows the row before the last
        {number: 28, "previous_hash": ""},
        {number: 3, "previous_hash": follows},  # a number that is behind
        {number: 28, "previous_hash": follows, "row_hash": ""},
    ):
        with pytest.raises(DBAPIError, match="does not follow the chain"), store.write() as c:
            c.execute(insert(table), row | change)
    assert wrong(store) == []


def test_a_row_that_was_changed_is_never_read_as_an_event(store: Store) -> None:
    fill(store, 3)
    with store.write() as c:
        unlock(c, "events")
        c.exec_driver_sql("UPDATE events SET content = replace(content, '350', '250') WHERE seq = 3")
        c.exec_driver_sql("UPDATE events SET received_at = '2025-01-01T00:00:00.000000Z' WHERE seq = 4")
    with store.read() as c:
        assert events.by_seq(c, 1, 1) is not None
        for read in (
            lambda: events.by_seq(c, 1, 4),
            lambda: events.find(c, 1, "clinic-a", "R-2"),
            lambda: events.search(c, 1, limit=10),
            lambda: events.timeline(c, 1, REFILL["pump"]),
        ):
            with pytest.raises(Damaged, match="row [34] is not what was accepted") as error:
                read()
            assert REFILL["pump"] not in str(error.value)


def test_writers_in_turn_make_one_chain_a_tenant(store: Store, database_url: str) -> None:
    with store.write() as c:
        c.exec_driver_sql("INSERT INTO tenants (id, name) VALUES (2, 'other')")
    stores = [store, Store(database_url), Store(database_url)]
    failures: list[BaseException] = []

    def write(which: Store, name: str, tenant: int) -> None:
        try:
            for n in range(15):
                with which.write() as c:
                    record(c, f"{name}-{n}", tenant)
                with which.write() as c:
                    audit.write(c, tenant, at="x", actor=name, action="sent", subject=str(n))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(stores[n % 3], f"w{n}", 1 + n % 2)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in stores[1:]:
        other.close()
    assert failures == []
    assert wrong(store) == []
    with store.read() as c:
        assert [head.length for head in chains.heads(c, "events").values()] == [45, 45]
        assert [head.length for head in chains.heads(c, "audit").values()] == [90, 90]


def test_writers_follow_each_other_though_nothing_else_makes_them_take_turns(
    postgresql: PostgresqlServer,
) -> None:
    """Two transactions of PostgreSQL that do not hold the writers' lock: the second waits for the first."""
    url = postgresql.database()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    done = []

    def second() -> None:
        with engine.begin() as c:
            audit.write(c, 1, at="x", actor="second", action="sent", subject="2")
            done.append("second")

    with engine.begin() as c:
        audit.write(c, 1, at="x", actor="first", action="sent", subject="1")
        thread = threading.Thread(target=second)
        thread.start()
        while not waiting(engine):
            pass
        done.append("first")
    thread.join(30)
    engine.dispose()
    assert done == ["first", "second"]
    store = Store(url)
    assert wrong(store) == []
    with store.read() as c:
        assert chains.heads(c, "audit")[1].length == 2
    store.close()


def waiting(engine: Engine) -> bool:
    """Whether somebody waits for a lock of this database."""
    with engine.connect() as c:
        return bool(c.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar())


# --- rows that were there before the chain --------------------------------------------------------------


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_rows_from_before_the_chain_are_sealed_by_the_migration(
    on: str, tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    url = postgresql.database(migrated=False) if on == "postgresql" else f"sqlite:///{tmp_path}/old.db"
    store = Store(url)
    migrate(store, "0003")
    rows = 2500  # more than a batch
    event = dict.fromkeys(chain.EVENTS[2:], "x") | {"tenant_id": 1, "version": 1, "pump": None}
    logged = dict.fromkeys(chain.AUDIT[2:], "x") | {"tenant_id": 1}
    with store.write() as c:
        c.execute(unsealed("events"), [event | {"event_id": str(n)} for n in range(rows)])
        c.execute(unsealed("audit"), [logged | {"subject": str(n)} for n in range(rows)])
    migrate(store)
    assert wrong(store) == []
    with store.write() as c:
        record(c, "R-new")
    assert wrong(store) == []
    with store.read() as c:
        assert chains.heads(c, "events")[1].length == chains.heads(c, "audit")[1].length == rows + 1
    with pytest.raises(DBAPIError, match="append-only"), store.write() as c:
        c.exec_driver_sql("UPDATE events SET source = 'y'")
    store.close()


def unsealed(name: str) -> Any:
    """As a version from before the chain wrote: no number, no hashes."""
    columns = chain.COLUMNS[name][1:]
    return text(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join(f':{n}' for n in columns)})")


# --- one byte of the file -------------------------------------------------------------------------------

COPIES = 200


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An SQLite file with a ledger in which every type of event is, most of them delivered."""
    path = tmp_path_factory.mktemp("flip") / "itb.db"
    store = Store(f"sqlite:///{path}")
    migrate(store)
    fill(store, 200)
    with store.write() as c:
        for event in EVERY.values():
            known = endpoints.every(c, 1)
            events.accept(
                c, 1, load_event(loads(dumps(event))), received_at=NOW, actor="test", endpoints=known
            )
        found = deliveries.search(c, 1, limit=1000)
        deliveries.record(c, [Outcome(one, "sent", last_status=200) for one in found], now=NOW)
        remote.add(c, [one for event in EVERY.values() for one in read_back(event)], now=NOW)
    with store.engine.connect() as c:
        c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return path.read_bytes()


def read_back(sent: Any) -> list[RemoteVersion]:
    """The versions of an event's resources as an EHR showed them."""
    made = []
    for number, resource in enumerate(encode(load_event(loads(dumps(sent))))):
        there = resource | {"id": f"{sent['id']}-{number}", "meta": {"versionId": "1"}}
        key = (there["resourceType"], there["id"], "1", None)
        made.append(RemoteVersion(1, 1, *key, dumps(there).decode(), content_hash(there), "echo"))
    return made


def test_what_was_read_in_an_ehr_is_checked_against_its_hash(store: Store) -> None:
    fill(store, 1)
    with store.write() as c:
        remote.add(c, read_back(REFILL), now=NOW)
    assert wrong(store) == []
    with store.write() as c:
        c.exec_driver_sql("UPDATE remote_versions SET raw = replace(raw, '\"value\":20', '\"value\":21')")
    assert [what for what in wrong(store) if "raw is not what was read" in what]


def ledger_rows(path: Path) -> Any:
    """What the file says of events, audit and EHRs' records; None where it cannot be read."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as c:
        c.text_factory = bytes  # a flipped bit may leave what is no UTF-8
        try:
            rows = [c.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("events", "audit")]
            there = c.execute("SELECT raw FROM remote_versions ORDER BY id").fetchall()
            # Without meta, narrative and the literal half of a reference, of which nothing follows.
            return [*rows, [content_hash(loads(raw)) for (raw,) in there]]
        except (sqlite3.DatabaseError, UnicodeDecodeError, MappingError):  # also a message that names damage
            return None


def flips(file: bytes, folder: Path, copies: int) -> Counter[str]:
    """One bit changed in each of many copies: how many of them are detected, harmless, or missed."""
    chance = random.Random(12)
    path = folder / "flipped.db"
    path.write_bytes(file)
    written = ledger_rows(path)
    found: Counter[str] = Counter()
    for _ in range(copies):
        flipped = bytearray(file)
        flipped[chance.randrange(len(file))] ^= 1 << chance.randrange(8)
        for leftover in folder.glob("flipped.db*"):
            leftover.unlink()
        path.write_bytes(flipped)
        said = ledger_rows(path)
        name = "harmless" if said == written else "missed"
        if is_detected(path):
            name = "detected"
        found[name] += 1
    return found


def is_detected(path: Path) -> bool:
    try:
        store = Store(f"sqlite:///{path}")
    except (DBAPIError, StoreError):
        return True
    try:
        return bool(wrong(store))
    finally:
        store.close()


def test_one_flipped_bit_of_the_file_is_detected(file: bytes, tmp_path: Path) -> None:
    """R12. Harmless: in space that nothing uses, or in bookkeeping that is not the ledger's."""
    found = flips(file, tmp_path, COPIES)
    assert found["missed"] == 0, found
    assert found["detected"] >= COPIES * 0.5, found  # else the file is mostly empty and shows nothing


def content_not_sealed(patch: pytest.MonkeyPatch) -> None:
    right = chain.seal
    shorter = {chain.EVENTS: tuple(n for n in chain.EVENTS if n != "content"), chain.AUDIT: chain.AUDIT[:2]}

    def seal(columns: Any, row: Any, previous: str) -> str:
        return right(shorter[columns], row, previous)

    patch.setattr(chain, "seal", seal)
    patch.setattr(chains, "seal", seal)


def chain_not_walked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verify.chains, "breaks", lambda *args, **more: iter(()))


def own_hash_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chain, "is_intact", lambda columns, row: True)


@pytest.mark.parametrize(
    "bug", [content_not_sealed, chain_not_walked, own_hash_not_looked_at], ids=lambda bug: bug.__name__
)
def test_the_flipped_bits_catch_a_seeded_bug(
    bug: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    made = file.__wrapped__(tmp_path_factory)
    assert flips(made, tmp_path, 60)["missed"] > 0
