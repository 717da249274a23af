"""The embedded runner goes on where its database was away."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

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
