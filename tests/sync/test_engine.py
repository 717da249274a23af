"""Procrastinate spreads the lanes: a job is in its delivery's transaction, and workers may come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from chaos import FakeTarget, left_behind
from history import check
from service.intake import Loaded, take
from service.store import deliveries, endpoints, gates, jobs
from service.store.engine import Store, StoreError, migrate
from service.store.keys import Caller
from service.store.times import stamp
from service.sync.gate import Gate
from service.sync.spread import prepare
from service.synthetic import clinic

WORKER = [sys.executable, "-m", "service.cli", "worker"]


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def store(postgresql_url: str) -> Iterator[Store]:
    made = Store(postgresql_url)
    migrate(made)
    prepare(made, "procrastinate")
    with made.write() as c:
        endpoints.add(c, 1, "ward", "http://ehr.invalid", {}, now=now())
    yield made
    made.close()


def loaded(number: int, pumps: int = 5) -> list[Loaded]:
    sent = [event for event, _ in zip(clinic(pumps, 5, 1), range(number), strict=False)]
    return [Loaded(event["source"], event["id"], event) for event in sent]


def accept(store: Store, sent: list[Loaded]) -> set[str]:
    return {result.outcome for result in take(store, Caller(1, "test"), sent, clock=now)}


def deferred(store: Store) -> dict[str, Any]:
    with store.read() as c:
        rows = c.execute(text("SELECT * FROM procrastinate_jobs"))
        found = {row.lock: row for row in rows.all()}
    return found


def lanes_of(store: Store) -> set[str]:
    with store.read() as c:
        return {f"{d.endpoint_id}/{d.lane}" for d in deliveries.search(c, 1, limit=1000)}


def test_each_lane_that_waits_has_one_job_with_its_name_as_lock(store: Store) -> None:
    assert accept(store, loaded(40)) == {"accepted"}
    found = deferred(store)
    assert set(found) == lanes_of(store)
    for lock, job in found.items():
        assert (f"{job.args['endpoint_id']}/{job.args['lane']}", job.queueing_lock) == (lock, lock)
        assert job.status == "todo"


def test_a_job_is_in_the_transaction_of_its_delivery(store: Store) -> None:
    class Undone(Exception):
        pass

    with pytest.raises(Undone), store.write() as c:
        from service.store import events

        event = loaded(1)[0].event
        known = endpoints.every(c, 1)
        assert event is not None
        events.accept(c, 1, event, received_at=now(), actor="t", endpoints=known)
        assert c.execute(text("SELECT count(*) FROM procrastinate_jobs")).scalar() == 1
        raise Undone
    assert deferred(store) == {}
    assert lanes_of(store) == set()


def test_a_job_waits_as_long_as_its_lane_and_comes_forward_with_it(store: Store) -> None:
    accept(store, loaded(1))
    for delay in (timedelta(hours=1), timedelta(minutes=5)):
        due = now() + delay
        with store.write() as c:
            c.execute(text("UPDATE lanes SET due_at = :at"), {"at": stamp(due)})
        (job,) = deferred(store).values()
        assert job.scheduled_at == due


def test_jobs_that_are_lost_are_made_again(store: Store) -> None:
    accept(store, loaded(40))
    whole = set(deferred(store))
    with store.write() as c:
        c.execute(text("DELETE FROM procrastinate_jobs WHERE id % 2 = 0"))
        c.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))  # by a worker that is gone
        begun(c, seconds=60)
        assert jobs.sweep(c, now=now() + timedelta(seconds=1)) == len(whole)
        assert jobs.sweep(c, now=now()) == 0
    assert set(deferred(store)) == whole
    assert {job.status for job in deferred(store).values()} == {"todo"}


@pytest.mark.parametrize(
    ("seconds", "leased", "lost"), [(60, False, True), (60, True, False), (1, False, False)]
)
def test_a_job_begun_long_ago_whose_lane_nobody_holds_is_made_again(
    store: Store, seconds: int, leased: bool, lost: bool
) -> None:
    """Its worker was killed, or could not say that it is done, as where a deadlock came between."""
    accept(store, loaded(1))
    with store.write() as c:
        c.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
        begun(c, seconds)
        until = stamp(now() + timedelta(seconds=30)) if leased else None
        c.execute(text("UPDATE lanes SET until = :until"), {"until": until})
        assert jobs.sweep(c, now=now() + timedelta(seconds=1)) == lost
    assert [job.status for job in deferred(store).values()] == ["todo" if lost else "doing"]


def begun(c: Connection, seconds: int) -> None:
    ago = {"at": now() - timedelta(seconds=seconds)}
    c.execute(text("UPDATE procrastinate_events SET at = :at WHERE type = 'started'"), ago)


def test_a_lane_that_is_due_by_our_clock_does_not_wait_for_the_database_s(store: Store) -> None:
    accept(store, loaded(1))
    ours = now() + timedelta(hours=1)
    with store.write() as c:
        c.execute(text("UPDATE lanes SET due_at = :at"), {"at": stamp(ours)})
        jobs.sweep(c, now=ours - timedelta(seconds=1))
        assert c.execute(text("SELECT scheduled_at FROM procrastinate_jobs")).scalar() == ours
        jobs.sweep(c, now=ours)
        assert c.execute(text("SELECT scheduled_at FROM procrastinate_jobs")).scalar() is None


def test_while_the_breaker_is_open_no_job_is_made_and_then_one_to_ask(store: Store) -> None:
    """Else each sweep would make one for every lane that waits, each of them to find the breaker open."""
    accept(store, loaded(40))
    lanes = len(lanes_of(store))
    assert lanes > 2
    at = now() + timedelta(seconds=1)
    with store.write() as c:
        c.execute(text("DELETE FROM procrastinate_jobs"))
        (endpoint,) = endpoints.every(c, 1)
        gates.save(c, 1, endpoint.id, asdict(Gate(5, 1, at + timedelta(seconds=9), most=1)))
        assert jobs.sweep(c, now=at) == 0
        assert jobs.sweep(c, now=at + timedelta(seconds=9)) == 1
        assert jobs.sweep(c, now=at + timedelta(seconds=9)) == 0, "one asks already"
        gates.save(c, 1, endpoint.id, asdict(Gate(most=2)))
        assert jobs.sweep(c, now=at + timedelta(seconds=10)) == lanes - 1


def test_many_new_jobs_are_counted_anew(store: Store) -> None:
    store.vacuum("procrastinate_jobs")
    with store.read() as c:
        query = text("SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'procrastinate_jobs'")
        assert c.execute(query).scalar() == 1


def test_the_embedded_engine_defers_nothing(store: Store) -> None:
    prepare(store, "embedded")
    accept(store, loaded(5))
    assert deferred(store) == {}
    prepare(store, "procrastinate")
    with store.write() as c:
        assert jobs.sweep(c, now=now()) == len(lanes_of(store)), "what waited before is taken up"


def test_an_engine_that_cannot_be_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="embedded or procrastinate"):
        prepare(store, "celery")
    with pytest.raises(StoreError, match="needs PostgreSQL"):
        prepare(Store(f"sqlite:///{tmp_path}/itb.db"), "procrastinate")


# --- several workers, one of them killed ----------------------------------------------------------------


def start(url: str, log: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"ITB_DATABASE_URL": url, "ITB_ENGINE": "procrastinate"}
    with log.open("ab") as out:
        return subprocess.Popen(WORKER, env=env, stdout=out, stderr=out, start_new_session=True)


def end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Those that still run, the hard way."""
    for worker in workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def open_to(target: FakeTarget, url: str, events: list[Any]) -> Store:
    """A ledger that delivers to the target, which has the patients of these events."""
    store = Store(url)
    migrate(store)
    prepare(store, "procrastinate")
    with store.write() as c:
        endpoints.add(c, 1, "ward", target.url, {"poll_seconds": 60}, now=now())
    target.register([dict(p) for p in {tuple(e["patient"].items()): e["patient"] for e in events}.values()])
    return store


def heeds_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has a handler for it by now (proc(5), SigCgt: a bit for each signal that is caught)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_three_workers_deliver_in_order_though_one_is_killed(postgresql_url: str, tmp_path: Path) -> None:
    target, log = FakeTarget("status=503@5%;reset-after@2%/transaction", 3), tmp_path / "log"
    sent = loaded(400, pumps=20)
    events = [one.event for one in sent]
    store = open_to(target, postgresql_url, events)
    workers = [start(postgresql_url, log) for _ in range(3)]
    try:
        sender = threading.Thread(target=lambda: accept(store, sent))
        sender.start()
        wait_until(lambda: target.applied() >= 60, log)
        os.killpg(workers[0].pid, signal.SIGKILL)
        workers[0].wait()
        sender.join()
        wait_until(lambda: target.applied() >= 250, log)
        workers.append(start(postgresql_url, log))  # one more, in mid-flight
        target.calm()
        wait_until(lambda: not waiting(store), log)
        wait_until(lambda: all(map(heeds_sigterm, workers[1:])), log)  # the last one may still be starting
        for worker in workers[1:]:
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(30) for worker in workers[1:]] == [0, 0, 0]
    finally:
        end(workers)
        target.stop()
    assert check(left_behind(store, target.writes(), events, log, 0.0)) == []
    assert {job.status for job in deferred(store).values()} <= {"todo"}, "what is left finds nothing to do"
    store.close()


def test_a_worker_outlives_what_its_database_refuses(postgresql_url: str, tmp_path: Path) -> None:
    """It ends one side of a deadlock, as two workers that start may make one; it forgets it; it hangs up."""
    target, log = FakeTarget("", 3), tmp_path / "log"
    sent = loaded(300, pumps=20)
    events = [one.event for one in sent]
    store = open_to(target, postgresql_url, events)
    with workers_held(store):
        worker = start(postgresql_url, log)
        refuse(store, "prune_stalled_workers", log)
    try:
        for at in range(0, len(sent), 100):
            accept(store, sent[at : at + 100])
            wait_until(lambda: not waiting(store), log)
            if at:
                assert ended(store, "pg_terminate_backend", "true")
                continue
            with store.write() as c:  # as another does that starts, of one whose heartbeat was refused
                assert c.execute(text("DELETE FROM procrastinate_workers")).rowcount
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        end([worker])
        target.stop()
    assert check(left_behind(store, target.writes(), events, log, 0.0)) == []
    store.close()


def test_a_worker_ends_when_told_though_its_database_refuses_its_leave(
    postgresql_url: str, store: Store, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    worker = start(postgresql_url, log)
    try:
        wait_until(lambda: registered(store), log)
        with workers_held(store):
            worker.send_signal(signal.SIGTERM)
            refuse(store, "unregister_worker", log)
        assert worker.wait(30) == 0
    finally:
        end([worker])


def test_workers_end_when_told_while_they_start(postgresql_url: str, store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [start(postgresql_url, log) for _ in range(6)]
    try:
        for worker in workers:
            wait_until(lambda one=worker: heeds_sigterm(one), log)
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(30) for worker in workers] == [0] * len(workers)
    finally:
        end(workers)


def registered(store: Store) -> int:
    with store.read() as c:
        return int(c.execute(text("SELECT count(*) FROM procrastinate_workers")).scalar_one())


@contextmanager
def workers_held(store: Store) -> Iterator[None]:
    """What a worker says of itself waits."""
    with store.read() as c:
        c.execute(text("LOCK TABLE procrastinate_workers IN ACCESS EXCLUSIVE MODE"))
        yield


def refuse(store: Store, which: str, log: Path) -> None:
    """End the statement of this kind that waits, when there is one."""
    waits = f"wait_event_type = 'Lock' AND query LIKE '%{which}%'"
    wait_until(lambda: ended(store, "pg_cancel_backend", waits), log)


def ended(store: Store, how: str, which: str) -> int:
    """End statements or connections of others in this database; how many."""
    with store.read() as c:
        found = c.execute(
            text(
                f"SELECT count({how}(pid)) FROM pg_stat_activity "
                f"WHERE datname = current_database() AND pid <> pg_backend_pid() AND {which}"
            )
        )
        return int(found.scalar_one())


def waiting(store: Store) -> int:
    with store.read() as c:
        counts = deliveries.counts(c)
    return counts["pending"] + counts["failed"] + counts["parked"]


def wait_until(true: Any, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.01)
