"""The breaker and the pace of an endpoint: pure decisions, then all workers of one site behind one gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store import gates
from service.sync import gate, outbox
from service.sync.ehr import Ambiguous, EhrError, Refused, Throttled, Unreachable
from service.sync.gate import BASE_S, MOST_S, OPENS_AFTER, PROBE, Gate, Pass, answered, ask, call, failed
from service.sync.retry import TABLE
from service.sync.worker import push_due
from site_of_tests import DRUG, REFILL, Site, event

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
COUNTED = sorted(name for name, rule in TABLE.items() if rule.endpoint)


def shut(now: datetime = NOW) -> Gate:
    made = Gate()
    for number in range(OPENS_AFTER):
        made = failed(made, "Unreachable", f"lane {number}", now, 0.5)
    return made


def test_enough_failures_in_a_row_shut_it_and_one_answer_between_does_not() -> None:
    made = Gate()
    for number in range(OPENS_AFTER * 3):
        made = failed(made, "Unreachable", f"lane {number}", NOW, 0.5)
        if number % (OPENS_AFTER - 1) == OPENS_AFTER - 2:
            made = answered(made, 25)
        assert made.state(NOW) == "closed"
    assert shut().state(NOW) == "open"
    assert ask(shut(), "w", 25, NOW)[1] is None


def test_one_probe_at_a_time() -> None:
    later = NOW + timedelta(seconds=MOST_S)
    probing, first = ask(shut(), "a", 25, later)
    assert first == Pass(1, is_probe=True)
    assert probing.state(later) == "half-open"
    assert ask(probing, "b", 25, later)[1] is None
    taken_over, second = ask(probing, "b", 25, later + PROBE)
    assert (second, taken_over.probe) == (Pass(1, is_probe=True), "b")


def test_after_its_return_more_and_more_is_let_through() -> None:
    made, _ = ask(shut(), "a", 25, NOW + timedelta(seconds=MOST_S))
    let = []
    for _ in range(6):
        made = answered(made, 25)
        _, passed = ask(made, "a", 25, NOW)
        assert passed is not None
        let.append(passed.most)
    assert let == [2, 4, 8, 16, 25, 25]
    assert made == Gate()


def test_probes_that_fail_come_ever_more_seldom() -> None:
    made, at, waits = shut(), NOW, []
    for _ in range(10):
        assert made.until is not None
        waits.append((made.until - at).total_seconds())
        at = made.until
        made, _ = ask(made, "a", 25, at)
        made = failed(made, "Unreachable", "lane", at, 0.999)
    assert waits[0] <= BASE_S
    assert waits == sorted(waits)
    assert MOST_S / 2 <= waits[-1] <= MOST_S


def test_one_lane_that_fails_alone_does_not_shut_the_way_for_others() -> None:
    made = Gate()
    for _ in range(50):
        made = failed(made, "Ambiguous", "the same lane", NOW, 0.5)
    assert made.state(NOW) == "closed"


def test_a_wait_that_the_server_asks_for_holds_for_all() -> None:
    made = failed(Gate(), "Throttled", "lane", NOW, 0.0, 30.0)
    assert made.until == NOW + timedelta(seconds=30)


@given(st.sampled_from(sorted(set(TABLE) - set(COUNTED))))
def test_what_tells_nothing_of_the_server_changes_nothing(kind: str) -> None:
    assert failed(shut(), kind, "lane", NOW, 0.5) == shut()


@given(st.integers(1, 1000), st.lists(st.floats(0, 2), min_size=1, max_size=30))
def test_no_two_requests_are_closer_than_the_pace(pace: int, gaps: list[float]) -> None:
    made, at, sent = Gate(), NOW, []
    for gap in gaps:
        at += timedelta(seconds=gap)
        made, wait = call(made, pace, at)
        sent.append(at + timedelta(seconds=wait))
    for before, after in zip(sent, sent[1:], strict=False):
        assert (after - before).total_seconds() >= 1 / pace - 1e-5


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url, batch_size=1)
    made.register()
    yield made
    made.store.close()


def fail(error: EhrError) -> Callable[[str], None]:
    def raise_it(name: str) -> None:
        raise error

    return raise_it


def many(site: Site, number: int) -> None:
    more = {"drug": DRUG, "volume_instilled": REFILL["volume_instilled"]}
    site.send(*(event("refill", f"R-{n}", pump=f"NGP{n}", **more) for n in range(number)))


def an_hour_away(site: Site) -> None:
    """A server that is away for an hour is asked seldom, whatever waits; back again, all of it arrives."""
    many(site, 40)
    site.ehr.before = [fail(Unreachable("down"))] * 10_000
    end, steps = site.time + timedelta(hours=1), 0
    while site.time < end:
        push_due(site.store, site.endpoint, site.ehr, site.now)
        site.time += timedelta(seconds=1)
        steps += 1
    tried = [name for name in site.ehr.calls if name == "transaction"]
    assert OPENS_AFTER <= len(tried) <= OPENS_AFTER + 3600 / (MOST_S / 2) + 10, len(tried)
    assert {d.status for d in site.deliveries()} == {"pending"}
    site.ehr.before = []
    site.push()
    assert {d.status for d in site.deliveries()} == {"sent"}
    with site.store.read() as c:
        assert Gate(**gates.find(c, site.endpoint.id)) == Gate()


def test_a_server_that_is_away_for_an_hour_is_probed_and_then_gets_everything(site: Site) -> None:
    an_hour_away(site)


def test_a_refusal_is_an_answer(site: Site) -> None:
    many(site, 12)
    site.ehr.before = [fail(Refused("no", 422))] * 12
    assert site.push() == {"failed": 12}
    with site.store.read() as c:
        assert gates.find(c, site.endpoint.id) == {}


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(site: Site) -> None:
    many(site, 3)
    site.ehr.before = [fail(Throttled("busy", 429, 120.0))]
    assert push_due(site.store, site.endpoint, site.ehr, site.now) == {"pending": 1}
    site.time += timedelta(seconds=110)
    assert push_due(site.store, site.endpoint, site.ehr, site.now) == {}
    site.time += timedelta(seconds=12)
    assert push_due(site.store, site.endpoint, site.ehr, site.now) == {"sent": 1}


def never_shut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate, "OPENS_AFTER", 10**9)


def never_opened_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate, "answered", lambda made, most: made)


def everybody_probes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox.gate, "ask", lambda made, worker, most, now: (made, Pass(most)))


@pytest.mark.parametrize("bug", [never_shut, never_opened_again, everybody_probes], ids=lambda b: b.__name__)
def test_a_seeded_bug_in_the_gate_is_caught(bug: Any, tmp_path: Path) -> None:
    site = Site(tmp_path, batch_size=1)
    site.register()
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        with pytest.raises(AssertionError):
            an_hour_away(site)
    site.store.close()


def test_the_outage_that_no_deadline_can_tell_apart_is_counted_too(site: Site) -> None:
    many(site, OPENS_AFTER + 5)
    site.ehr.before = [fail(Ambiguous("cut", 500))] * 100
    for _ in range(OPENS_AFTER + 5):
        push_due(site.store, site.endpoint, site.ehr, site.now)
    assert len(site.ehr.calls) - site.ehr.calls.count("search") == OPENS_AFTER
