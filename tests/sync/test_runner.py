"""The embedded runner goes on where its database was away, and ends when it is told to."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from service.store import endpoints
from service.store.engine import Store, migrate
from service.sync import worker


def now() -> datetime:
    return datetime.now(UTC)


def test_every_thread_outlives_a_database_that_is_away(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TEND_S", 0.1)
    store = Store(postgresql_url)
    migrate(store)
    with store.write() as c:
        endpoints.add(c, 1, "ward", "http://ehr.invalid", {"poll_seconds": 1}, now=now())
    before = set(threading.enumerate())
    runner = worker.Runner(store, now)
    runner.start()
    try:
        started = begun(before, 1 + worker.side_by_side(endpoint_of(store)) + 2)
        server, _, name = postgresql_url.rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as c:
            c.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            time.sleep(3)
            c.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert {one.name for one in started if not one.is_alive()} == set()
    finally:
        runner.stop()
        store.close()


def test_stopped_as_it_begins_it_ends_every_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{tmp_path}/itb.db")
    migrate(store)
    with store.write() as c:
        endpoints.add(c, 1, "ward", "http://127.0.0.1:9", {}, now=now())
    begins, start, started = threading.Event(), threading.Thread.start, []

    def start_slowly(thread: threading.Thread) -> None:
        if thread.name == "itb-pull":
            begins.set()
            time.sleep(0.3)
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    runner = worker.Runner(store, now)
    runner.start()
    assert begins.wait(30)
    runner.stop()
    store.close()
    its_own = ("itb-watch", "itb-push", "itb-pull", "itb-upkeep")
    assert {"itb-pull", "itb-upkeep"} <= {one.name for one in started}
    assert [one.name for one in started if one.is_alive() and one.name.startswith(its_own)] == []


def endpoint_of(store: Store) -> endpoints.Endpoint:
    with store.read() as c:
        (found,) = endpoints.every(c, 1)
    return found


def begun(before: set[threading.Thread], number: int) -> set[threading.Thread]:
    end = time.monotonic() + 30
    while len(found := set(threading.enumerate()) - before) < number:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found
