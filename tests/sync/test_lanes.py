"""One holder a lane, and what a worker that lost its lane may no longer commit (R16)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from fakes import lose_answer
from service.store import deliveries, lanes, tables
from service.store.engine import Store
from service.store.lanes import Lease
from service.sync import worker
from service.sync.outbox import LEASE, Keeper
from service.sync.owner import is_gone, process_name
from service.sync.worker import free_the_gone, push_due, step_name
from site_of_tests import DEVICE, HISTORY, Site


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    made.register()
    yield made
    made.store.close()


def claim(site: Site, owner: str, store: Store | None = None) -> list[Lease]:
    with (store or site.store).write() as c:
        at = site.now()
        return lanes.claim(c, site.endpoint.id, owner, now=at, until=at + LEASE, limit=9)


def race(site: Site) -> list[int]:
    """Two workers on two connections of their own ask at once: how many lanes each gets."""
    stores = [Store(site.url), Store(site.url)]
    got: dict[int, int] = {}
    gate = threading.Barrier(2)

    def work(number: int) -> None:
        gate.wait()
        got[number] = len(claim(site, f"w{number}", stores[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    return sorted(got.values())


def starts(site: Site, rounds: int) -> None:
    site.send(DEVICE)
    fences = []
    for _ in range(rounds):
        assert race(site) == [0, 1]
        with site.store.write() as c:
            fences.append(c.execute(select(tables.lanes.c.fence)).scalar_one())
            for owner in lanes.owners(c, now=site.now()):
                lanes.end(c, owner)
    assert fences == list(range(1, rounds + 1))


def test_of_two_workers_that_start_at_once_one_holds_the_lane_a_hundred_times(site: Site) -> None:
    starts(site, 100)


def overtaken(site: Site) -> None:
    """While the first worker's transaction is on its way, its lease ends and another one does the work."""

    def intrude(name: str) -> None:
        site.time += timedelta(hours=1)
        assert push_due(site.store, site.endpoint, site.ehr, site.now) == {"sent": 1}

    site.send(DEVICE)
    site.ehr.before = [intrude]
    assert push_due(site.store, site.endpoint, site.ehr, site.now) == {}
    (delivery,) = site.deliveries()
    assert (delivery.status, delivery.attempts) == ("sent", 1)
    with site.store.read() as c:
        told = select(tables.audit.c.subject).where(tables.audit.c.action == "sent")
        assert list(c.execute(told).scalars()) == [f"delivery/{delivery.id}"]
    assert len([key for key in site.ehr.history if key[0] == "Device"]) == 1


def test_what_a_stale_holder_commits_is_rejected(site: Site) -> None:
    overtaken(site)


def test_a_lease_is_renewed_while_its_step_runs(site: Site) -> None:
    site.send(DEVICE)
    (held,) = claim(site, "slow")
    keeper = Keeper(site.store, site.now)
    for _ in range(5):
        site.time += LEASE * 0.9
        assert claim(site, "other") == []
        keeper.renew(frozenset(["slow"]))
    site.time += LEASE * 1.1
    (taken,) = claim(site, "other")
    assert taken.fence == held.fence + 1


def test_what_a_killed_process_held_is_free_at_once(site: Site) -> None:
    site.send(DEVICE)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = f"{process_name(process.pid)}/0"
    assert claim(site, name)
    free_the_gone(site.store, site.now)
    assert claim(site, "other") == []
    process.kill()
    process.wait()
    free_the_gone(site.store, site.now)
    assert claim(site, "other")


@pytest.mark.parametrize("name", ["", "w", "other-host pid:[1]/1/1", "a/b/c/d", "mine"])
def test_only_what_is_seen_to_be_gone_is_gone(name: str) -> None:
    assert not is_gone(f"{process_name()}/7" if name == "mine" else name)


def test_each_step_has_a_name_of_its_own() -> None:
    assert len({step_name() for _ in range(100)}) == 100


@pytest.mark.parametrize("action", ["pause", "cancel", "skip"])
def test_a_lane_goes_on_or_waits_as_a_person_says(site: Site, action: str) -> None:
    site.send(*HISTORY)
    second = site.deliveries()[1].id
    with site.store.write() as c:
        assert deliveries.change(c, 1, [second], action, now=site.now(), reason="a person says so")
    site.push()
    left = [d.status for d in site.deliveries()]
    if action == "pause":
        assert left == ["sent", "paused", "pending", "pending", "pending"]
        with site.store.write() as c:
            deliveries.change(c, 1, [second], "resume", now=site.now(), reason=None)
        site.push()
        assert {d.status for d in site.deliveries()} == {"sent"}
    else:
        assert left == ["sent", {"cancel": "cancelled", "skip": "skipped"}[action], "sent", "sent", "sent"]
        assert site.held("refill", "R-1") == []


def fence_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lanes, "held", lambda c, leases: {lease.lane for lease in leases})


def fence_does_not_grow(patch: pytest.MonkeyPatch) -> None:
    right = lanes.claim

    def wrong(c: Any, *args: Any, **more: Any) -> Any:
        taken = right(c, *args, **more)
        c.execute(tables.lanes.update().values(fence=1))
        return [Lease(lease.endpoint_id, lease.lane, 1) for lease in taken]

    patch.setattr(lanes, "claim", wrong)


def held_lanes_are_taken(patch: pytest.MonkeyPatch) -> None:
    def wrong(c: Any, endpoint_id: int, *_: Any) -> list[str]:
        every = select(tables.lanes.c.lane).where(tables.lanes.c.endpoint_id == endpoint_id)
        return list(c.execute(every).scalars())

    patch.setattr(lanes, "_free", wrong)


@pytest.mark.parametrize(
    "bug", [fence_not_asked, fence_does_not_grow, held_lanes_are_taken], ids=lambda b: b.__name__
)
def test_a_seeded_bug_in_the_lanes_is_caught(bug: Callable[..., None], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        caught = 0
        for name, check in (("a", lambda site: starts(site, 3)), ("b", overtaken)):
            folder = tmp_path / name
            folder.mkdir()
            site = Site(folder)
            site.register()
            try:
                check(site)
            except AssertionError:
                caught += 1
            site.store.close()
    assert caught


def test_a_paused_endpoint_is_sent_nothing(site: Site) -> None:
    site.send(DEVICE)
    with site.store.write() as c:
        worker.endpoints.set_enabled(c, site.endpoint.id, False)
    assert site.push() == {}
    assert site.ehr.calls == []


# --- when a lane is due ------------------------------------------------------------------------------------

TRIES = st.lists(
    st.tuples(
        st.sampled_from(["send", "deliver", "fail", *deliveries.CHANGES]),
        st.integers(0, 8),
        st.integers(0, 2),
    ),
    max_size=25,
)


def heads(site: Site) -> dict[str, str | None]:
    """When each lane is due, as its deliveries say: the head's time, None when it waits for a person."""
    found: dict[str, str | None] = {}
    for one in site.deliveries():
        if one.status in ("pending", "failed", "parked", "paused") and one.conflict_id is None:
            found.setdefault(one.lane, one.next_try_at if one.status == "pending" else None)
    return found


def do(site: Site, action: str, number: int, pump: int) -> None:
    if action == "send":
        site.send(DEVICE | {"id": f"D-{number}", "serial": f"NGP{pump}", "version": number + 1})
    elif action in ("deliver", "fail"):
        site.ehr.before = [lose_answer] if action == "fail" else []
        push_due(site.store, site.endpoint, site.ehr, site.now)
        site.ehr.before = []
    elif number < len(found := site.deliveries()):
        with site.store.write() as c, contextlib.suppress(ValueError):
            deliveries.change(c, 1, [found[number].id], action, now=site.now(), reason="a person says so")
    site.time += timedelta(seconds=pump)


def changes_of_any_order(folder: Path, tries: Any) -> None:
    site = Site(folder, f"sqlite:///{folder}/{uuid4()}.db")
    site.register()
    for action, number, pump in tries:
        do(site, action, number, pump)
        with site.store.read() as c:
            due = {row.lane: row.due_at for row in c.execute(select(tables.lanes))}
        assert due == dict.fromkeys(due) | heads(site), action
    site.store.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TRIES)
def test_a_lane_is_due_when_its_head_is(tmp_path: Path, tries: Any) -> None:
    changes_of_any_order(tmp_path, tries)


def what_a_person_does_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    right = deliveries.change

    def wrong(*args: Any, **more: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(lanes, "refresh", lambda *_: None)
            return right(*args, **more)

    patch.setattr(deliveries, "change", wrong)


def held_lanes_stay_due(patch: pytest.MonkeyPatch) -> None:
    waits, lane = tables.deliveries.c, tables.lanes.c
    same = (waits.endpoint_id == lane.endpoint_id, waits.lane == lane.lane, waits.status == "pending")
    first = select(waits.next_try_at).where(*same).order_by(waits.id).limit(1).scalar_subquery()

    def wrong(c: Any, endpoint_id: int, names: Any) -> None:
        where = (lane.endpoint_id == endpoint_id, lane.lane.in_(names))
        c.execute(tables.lanes.update().where(*where).values(due_at=first))

    patch.setattr(lanes, "refresh", wrong)


@pytest.mark.parametrize(
    "bug", [what_a_person_does_is_not_seen, held_lanes_stay_due], ids=lambda b: b.__name__
)
def test_a_seeded_bug_in_when_a_lane_is_due_is_caught(
    bug: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [
        ("send", 0, 0),
        ("send", 1, 0),
        ("deliver", 0, 0),
        ("send", 2, 0),
        ("send", 3, 0),
        ("pause", 1, 0),
    ]
    changes_of_any_order(tmp_path, order)
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        changes_of_any_order(tmp_path, order)
