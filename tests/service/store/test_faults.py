"""The database fails: refused or recovered, said clearly, and nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event as listen

from mappings.exact_json import dumps
from postgresql_server import PostgresqlServer
from samples import REFILL
from service import cli, verify
from service.app import create_app
from service.commands.exits import UNREACHABLE
from service.settings import Settings
from service.store import engine, events, faults, keys
from service.store.engine import Store, StoreError, migrate

Json = Any


def client_of(app: Flask) -> FlaskClient:
    made = app.extensions["itb"]
    with made.store.write() as c:
        key = keys.add(c, 1, "test", now=made.clock())
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is waited for one second."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 1)


@pytest.fixture
def app(impatient: None, database_url: str) -> Iterator[Flask]:
    made = create_app(Settings(database_url=database_url, min_free_bytes=0))
    yield made
    made.extensions["itb"].store.close()


def post(client: FlaskClient, id: str) -> Any:
    return client.post("/api/v1/events", data=dumps(REFILL | {"id": id}), content_type="application/json")


def check_refused(reply: Any, status: int, rule: str) -> None:
    assert (reply.status_code, reply.mimetype) == (status, "application/problem+json"), reply.text
    assert reply.json["errors"][0]["rule"] == rule
    assert "SELECT" not in reply.text and "INSERT" not in reply.text


def stored(url: str) -> list[str]:
    """What a new process finds: the ids, of a ledger that verifies."""
    store = Store(url)
    try:
        assert [f.what for f in verify.findings(store) if not f.ok] == []
        with store.read() as c:
            return [found.event["id"] for found in events.search(c, 1, limit=100_000)]
    finally:
        store.close()


# --- disk full ------------------------------------------------------------------------------------------


def fill_the_disk(folder: Path, points: int) -> None:
    """R10: the file may not grow past a size, at many sizes; each time it is said, and goes on with space."""
    url = f"sqlite:///{folder}/itb.db"
    app = create_app(Settings(database_url=url, min_free_bytes=0))
    store: Store = app.extensions["itb"].store
    pages = [0]
    limit = listen.listens_for(store.engine, "checkout")
    limit(lambda connection, *_: connection.execute(f"PRAGMA max_page_count = {pages[0] or 2**30}"))
    client, acknowledged = client_of(app), []
    for point in range(points):
        pages[0] = size(folder) + point % 4
        for attempt in range(200):
            id = f"R-{point}-{attempt}"
            reply = post(client, id)
            if reply.status_code != 201:
                break
            acknowledged.append(id)
        check_refused(reply, 507, "disk-full")
        assert client.get("/api/v1/events").status_code == 200, "what is there can be read"
        pages[0] = 0
        assert post(client, id).status_code == 201, "with space it goes on at once"
        acknowledged.append(id)
    store.close()
    assert stored(url) == acknowledged


def size(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "itb.db")) as c:
        count: int = c.execute("PRAGMA page_count").fetchone()[0]
    return count


def test_a_full_disk_is_507_and_loses_nothing(tmp_path: Path) -> None:
    fill_the_disk(tmp_path, 50)


def committed_in_two_parts(patch: pytest.MonkeyPatch) -> None:
    """The event is on the disk, its audit row is not."""
    right = events.audit.write_many

    def wrong(c: Any, *args: Any, **more: Any) -> None:
        c.exec_driver_sql("COMMIT")
        c.exec_driver_sql("BEGIN IMMEDIATE")
        right(c, *args, **more)

    patch.setattr(events.audit, "write_many", wrong)


def answered_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    right = Store.write

    @contextlib.contextmanager
    def wrong(self: Store) -> Iterator[Any]:
        with contextlib.suppress(Exception), right(self) as c:
            yield c
            c.exec_driver_sql("CREATE TABLE IF NOT EXISTS late (x)")
            c.exec_driver_sql("INSERT INTO late VALUES (zeroblob(20000))")

    patch.setattr(Store, "write", wrong)


def told_as_a_bug(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("service.problems.fault_of", lambda error: None)


@pytest.mark.parametrize(
    "bug", [committed_in_two_parts, answered_before_the_commit, told_as_a_bug], ids=lambda bug: bug.__name__
)
def test_the_full_disk_catches_a_seeded_bug(
    bug: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, sqlite3.Error)):
        fill_the_disk(tmp_path, 12)


def test_a_file_that_may_not_grow_is_said_and_loses_nothing(tmp_path: Path) -> None:
    """The operating system's own limit, in a process of its own: writing fails below SQLite."""
    program = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.path[:0] = {[str(Path(p).resolve()) for p in sys.path if p]!r}
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_faults as t
app = t.create_app(t.Settings(database_url="sqlite:///{tmp_path}/itb.db", min_free_bytes=0))
client = t.client_of(app)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
for n in range(1000):
    reply = t.post(client, f"R-{{n}}")
    if reply.status_code != 201:
        t.check_refused(reply, 503, "database-disk")
        break
    print(f"R-{{n}}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    acknowledged = done.stdout.split()
    assert 10 < len(acknowledged) < 1000
    assert stored(f"sqlite:///{tmp_path}/itb.db") == acknowledged


# --- locked, read-only, gone ----------------------------------------------------------------------------


@contextlib.contextmanager
def another_writer(url: str) -> Iterator[None]:
    """A program that holds the lock that writers need."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as c:
            c.execute("BEGIN IMMEDIATE")
            yield
    else:
        with psycopg.connect(url) as p:
            p.execute(f"SELECT pg_advisory_xact_lock({engine._ADVISORY_LOCK})")
            yield
            p.rollback()


def test_a_lock_that_another_holds_is_503_and_passes(app: Flask, database_url: str) -> None:
    client = client_of(app)
    assert post(client, "R-1").status_code == 201
    with another_writer(database_url):
        reply = post(client, "R-2")
        check_refused(reply, 503, "database-locked")
        assert reply.headers["Retry-After"]
        assert client.get("/api/v1/events").status_code == 200, "readers do not wait"
    assert post(client, "R-2").status_code == 201
    assert stored(database_url) == ["R-1", "R-2"]


def test_a_lock_that_is_held_for_a_moment_only_delays(app: Flask, database_url: str) -> None:
    client = client_of(app)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with another_writer(database_url):
            held.set()
            free.wait(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    assert post(client, "R-1").status_code == 201
    thread.join()


def read_only(store: Store, url: str) -> None:
    if url.startswith("sqlite"):
        listen.listen(store.engine, "checkout", lambda c, *_: c.execute("PRAGMA query_only = ON"))
    else:
        with psycopg.connect(url, autocommit=True) as c:
            c.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
        store.engine.dispose()


def test_a_database_that_may_not_be_written_is_503_and_can_be_read(app: Flask, database_url: str) -> None:
    client = client_of(app)
    assert post(client, "R-1").status_code == 201
    read_only(app.extensions["itb"].store, database_url)
    check_refused(post(client, "R-2"), 503, "database-read-only")
    assert [e["id"] for e in client.get("/api/v1/events").json["events"]] == ["R-1"]


def test_a_server_that_restarts_is_503_and_then_goes_on(postgresql: PostgresqlServer) -> None:
    url = postgresql.database()
    app = create_app(Settings(database_url=url))
    client = client_of(app)
    assert post(client, "R-1").status_code == 201
    name = url.rpartition("/")[2]
    with psycopg.connect(postgresql.url("postgres"), autocommit=True) as c:
        c.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        check_refused(post(client, "R-2"), 503, "database")
        c.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert post(client, "R-2").status_code == 201
    app.extensions["itb"].store.close()
    assert stored(url) == ["R-1", "R-2"]


def test_a_command_says_in_one_line_what_is_wrong(app: Flask, database_url: str) -> None:
    line = dumps(REFILL)
    env = {"ITB_DATABASE_URL": database_url}
    with another_writer(database_url):
        done = CliRunner().invoke(cli.main, ["import", "-"], input=line, env=env)
    (said,) = done.stderr.splitlines()
    assert (done.exit_code, said.partition(" (")[0]) == (UNREACHABLE, f"Error: {LOCKED.message}")
    done = CliRunner().invoke(cli.main, ["import", "-"], input=line, env=env)
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"accepted": 1})


LOCKED = next(fault for fault in faults.FAULTS if fault.rule == "database-locked")


def test_every_failure_that_an_administrator_can_mend_has_a_row() -> None:
    names = [name for fault in faults.FAULTS for name in fault.names]
    assert len(names) == len(set(names))
    assert {fault.status for fault in faults.FAULTS} == {503, 507}
    for fault in faults.FAULTS:
        assert fault.message and fault.rule


# --- a damaged file -------------------------------------------------------------------------------------


AT = "?at=2026-01-01T00:00:00Z"


def test_a_file_damaged_in_the_middle_gives_the_right_answer_or_none(tmp_path: Path) -> None:
    """Each page of the file overwritten in turn: what is answered is what was there, or a clear refusal."""
    url = f"sqlite:///{tmp_path}/itb.db"
    app = create_app(Settings(database_url=url, require_key=False, min_free_bytes=0))
    client = app.test_client()
    for n in range(60):
        assert post(client, f"R-{n}").status_code == 201
    paths = (
        "/api/v1/events?limit=100",
        "/api/v1/events/clinic-a/R-30",
        f"/api/v1/pumps/{REFILL['pump']}{AT}",
    )
    right = {path: client.get(path).json for path in paths}
    app.extensions["itb"].store.close()
    whole = (tmp_path / "itb.db").read_bytes()
    chance, refused, found = random.Random(3), 0, 0
    for page in range(1, len(whole) // 4096):
        damaged = bytearray(whole)
        damaged[page * 4096 + 2500 : page * 4096 + 3500] = chance.randbytes(1000)
        for leftover in tmp_path.glob("itb.db*"):
            leftover.unlink()
        (tmp_path / "itb.db").write_bytes(damaged)
        refused += answers_right_or_not_at_all(url, right)
        found += finds_fault(url)
    assert refused > 10, "the damage must be met by what is asked"
    assert found >= refused


def answers_right_or_not_at_all(url: str, right: dict[str, Json]) -> bool:
    """Whether anything was refused."""
    try:
        store = Store(url)
        try:
            verify.require_sound(store)  # as `itb serve` does
        finally:
            store.close()
        app = create_app(Settings(database_url=url, require_key=False, min_free_bytes=0))
    except Exception as error:
        assert isinstance(error, StoreError) or "malformed" in str(error), error
        return True
    refused = False
    for path, answer in right.items():
        reply = app.test_client().get(path)
        if reply.status_code == 200:
            assert reply.json == answer, path
        else:
            rule = reply.json["errors"][0]["rule"]
            assert (reply.status_code, rule) in {(503, "database-damaged"), (500, "ledger-damaged")}, path
            refused = True
    app.extensions["itb"].store.close()
    return refused


def finds_fault(url: str) -> bool:
    try:
        store = Store(url)
    except Exception:
        return True
    try:
        return any(not f.ok for f in verify.findings(store))
    finally:
        store.close()


# --- a migration that is killed -------------------------------------------------------------------------


def before_the_chain(url: str, rows: int = 40) -> None:
    """A populated database of an older version."""
    store = Store(url)
    migrate(store, "0003")
    columns = "tenant_id, source, event_id, version, type, status, patient_system, patient_value, occurred_at"
    values = "1, 's', '{n}', 1, 't', 'final', 'p', 'v', 'x'"
    with store.write() as c:
        for n in range(rows):
            c.exec_driver_sql(
                f"INSERT INTO events ({columns}, occurred_utc, content, content_hash, received_at) "
                f"VALUES ({values.format(n=n)}, 'x', 'content {n}', 'x', '2026-01-01T00:00:00.000000Z')"
            )
        c.exec_driver_sql(
            "INSERT INTO endpoints (tenant_id, name, url, options, enabled, created_at) "
            "VALUES (1, 'hapi', 'http://ehr.invalid', '{}', true, '2026-02-01T00:00:00.000000Z')"
        )
    store.close()


def content(url: str) -> list[Any]:
    store = Store(url)
    with store.read() as c:
        revision = c.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        rows = c.exec_driver_sql("SELECT seq, event_id, content, received_at FROM events ORDER BY seq").all()
    store.close()
    return [revision, rows]


def killed_at(url: str, statement: int) -> bool:
    """Migrate in a process that dies before its nth statement; whether it died."""
    child = os.fork()
    if child == 0:
        try:
            store, seen = Store(url), [0]

            def count(*_: Any) -> None:
                seen[0] += 1
                if seen[0] > statement:
                    os.kill(os.getpid(), signal.SIGKILL)

            listen.listen(store.engine, "before_cursor_execute", count)
            migrate(store)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_a_migration_killed_at_each_statement_changes_nothing_and_is_done_the_next_time(
    on: str, tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    url = postgresql.database(migrated=False) if on == "postgresql" else f"sqlite:///{tmp_path}/itb.db"
    before_the_chain(url)
    before = content(url)
    assert before[0] == "0003"
    kills = 0
    while killed_at(url, kills):
        assert content(url) == before, f"killed at statement {kills}"
        kills += 1
    assert kills > 20
    store = Store(url)
    with store.read() as c:
        assert engine.is_migrated(c)
    assert [f.what for f in verify.findings(store) if not f.ok] == []
    store.close()
    assert content(url)[1] == before[1]
