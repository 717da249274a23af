"""The made-up clinic: the same for the same seed, streamed, and coherent for ledger and arithmetic."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mappings import load_event
from mappings.event import occurred
from mappings.exact_json import dumps, loads
from service.intake import load_line, take
from service.pump.ledger import pump_state
from service.pump.reservoir import Thresholds
from service.store.engine import Store
from service.store.keys import Caller
from service.synthetic import clinic, write_clinic

Json = Any
PUMPS, YEARS, SEED = 8, 2, 11


@pytest.fixture(scope="module")
def events() -> list[Json]:
    return list(clinic(PUMPS, YEARS, SEED))


def pump(event: Json) -> str:
    serial: str = event.get("pump") or event.get("serial") or event["parent"]
    return serial


def by_pump(events: list[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for event in events:
        found.setdefault(pump(event), []).append(event)
    return found


def written(pumps: int, years: int, seed: int) -> list[bytes]:
    out = io.BytesIO()
    assert write_clinic(out, pumps, years, seed) == len(out.getvalue().splitlines())
    return out.getvalue().splitlines()


def test_the_seed_decides_every_byte() -> None:
    assert written(3, 1, 7) == written(3, 1, 7) != written(3, 1, 8)


def test_more_pumps_and_more_years_change_nothing_that_was_there() -> None:
    wide = [line for line in written(5, 1, 7) if b"SYN000001H" in line]
    long, short = written(1, 2, 7), written(1, 1, 7)
    assert wide == short == long[: len(short)]
    assert len(long) > len(short)


def test_every_line_is_a_canonical_event() -> None:
    for line in written(3, 2, SEED):
        assert dumps(load_event(loads(line))) == line


def peak(years: int) -> int:
    """Most bytes held while the events of two pumps go by."""
    tracemalloc.start()
    number = sum(1 for _ in clinic(2, years, SEED))
    assert number > years * 10
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_does_not_grow_with_the_years() -> None:
    peak(1)  # caches are filled
    assert peak(16) < 2 * peak(2)


def test_the_first_line_comes_before_the_last_is_made() -> None:
    """All of it would take minutes; whoever has read enough may go."""
    command = [sys.executable, "-m", "service.cli", "fixtures", "--pumps", "400", "--years", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert loads(process.stdout.readline())["type"] == "device"
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(30)


def test_the_ledger_takes_every_event_in_this_order(store: Store) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lines = written(6, 2, SEED)
    taken = take(store, Caller(1, "test"), map(load_line, lines), clock=lambda: now)
    results = Counter((r.outcome, *(i.rule for i in r.issues)) for r in taken)
    assert results == {("accepted",): len(lines)}


def test_time_never_goes_back_and_each_pump_starts_with_its_devices(events: list[Json]) -> None:
    moments = [occurred(event) for event in events]
    assert moments == sorted(moments)
    histories = by_pump(events)
    assert len(histories) == PUMPS
    assert len({history[0]["patient"]["value"] for history in histories.values()}) == PUMPS
    for history in histories.values():
        assert [e["type"] for e in history[:4]] == ["device", "device", "refill", "dose-change"]
        assert [e["id"].rpartition("-")[2] for e in history] == [str(n + 1) for n in range(len(history))]
        assert len({e["patient"]["value"] for e in history}) == 1
        assert occurred(history[-1]) - occurred(history[0]) > timedelta(days=365 * YEARS - 300)


def test_each_programming_starts_from_the_program_that_runs(events: list[Json]) -> None:
    for history in by_pump(events).values():
        changes = [e for e in history if e["type"] == "dose-change"]
        assert "before" not in changes[0]
        assert [e["before"] for e in changes[1:]] == [e["after"] for e in changes[:-1]]


def test_the_arithmetic_finds_a_clinic_that_works_well(events: list[Json]) -> None:
    """State after each visit: what was removed fits what was expected, and no rule cries all the time."""
    most = Thresholds().discrepancy_volume
    found: Counter[str] = Counter()
    refills = bridges = 0
    for history in by_pump(events).values():
        for at in sorted({occurred(e) for e in history}):
            state = pump_state([e for e in history if occurred(e) <= at], at)
            visit = [e for e in history if occurred(e) == at]
            found.update({issue.rule for issue in state.open_issues})
            bridges += any("bridge" in e for e in visit)
            for refill in (e for e in visit if "volume_removed" in e):
                refills += 1
                assert state.last_refill is not None and state.last_refill.discrepancy is not None
                assert abs(state.last_refill.discrepancy) <= most, refill["id"]
                said = refill["volume_expected"]["value"]
                assert abs(said - state.last_refill.expected_residual) <= most
                assert 0 < refill["volume_removed"]["value"] < refill["volume_instilled"]["value"]
    assert refills > 40 and bridges > 2
    assert found.keys() <= {"F3"} and found["F3"] < 5  # a flex program over a change of the clocks


def test_refills_come_before_the_reservoir_runs_low(events: list[Json]) -> None:
    visits = late = 0
    for history in by_pump(events).values():
        for refill in (e for e in history if "volume_removed" in e):
            earlier = [e for e in history if occurred(e) < occurred(refill)]
            state = pump_state(earlier, occurred(refill))
            visits += 1
            late += any(issue.rule == "R4" for issue in state.open_issues)
            assert state.alarm_at is None or occurred(refill) < state.alarm_at, refill["id"]
    assert late < 0.1 * visits
