"""Chaos, small enough for every run: faults, kills, both databases; and bugs that must be seen.

`make chaos` runs ten full seeds on each database, `make chaos-hapi` the same against a real HAPI.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import chaos
import crash_points
from chaos import FakeTarget, Outcome, Run
from chaos_bugs import BUGS
from chaos_hapi import WITHOUT, HapiTarget
from crash_points import POINTS, Point, target
from history import summary
from service.sync.spread import EMBEDDED, PROCRASTINATE

SMALL = Run(events=150, pumps=8, kills=25, faults="30%", patience_s=12)


def show(text: str) -> None:
    """Progress goes nowhere in a test."""


def on_the_fake(plan: Run, database: str, folder: Path) -> Outcome:
    target = FakeTarget(plan.faults, plan.seed)
    try:
        return chaos.run(plan, database, folder, target, show)
    finally:
        target.stop()


def check(outcome: Outcome) -> None:
    found = [f"{breach.invariant}: {breach.what}" for breach in outcome.breaches[:10]]
    assert not outcome.breaches, f"{summary(outcome.breaches)}\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("kind", "engine"),
    [("sqlite", EMBEDDED), ("postgresql", EMBEDDED), ("postgresql", PROCRASTINATE)],
    ids=["sqlite", "postgresql", "procrastinate"],
)
def test_every_event_once_in_order_and_exact(
    kind: str, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Processes die at each crash point; on SQLite in full; `make chaos` has ten seeds on both."""
    plan = Run(events=200, pumps=12, kills=20, seed=1, every_point=1, engine=engine)
    if kind == "sqlite":
        plan = replace(plan, events=10_000, pumps=200, kills=1_000, every_point=5)
    database = (
        f"sqlite:///{tmp_path}/itb.db" if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    )
    outcome = on_the_fake(plan, database, tmp_path)
    check(outcome)
    assert outcome.kills >= plan.kills
    assert outcome.fired.keys() == POINTS.keys()
    assert outcome.faults.total() > 20


def test_on_a_real_hapi_that_is_killed_too(tmp_path: Path) -> None:
    plan = Run(events=100, pumps=5, kills=10, faults=f"10%,without={WITHOUT}", seed=1)
    target = HapiTarget(tmp_path, plan.faults, plan.seed, restarts=1)
    try:
        outcome = chaos.run(plan, f"sqlite:///{tmp_path}/itb.db", tmp_path, target, show)
    finally:
        target.stop()
    check(outcome)
    assert target.restarts == 1
    assert outcome.kills >= plan.kills


@pytest.mark.parametrize("name", POINTS)
def test_a_crash_point_is_a_function_of_the_service(name: str) -> None:
    owner, function = target(POINTS[name])
    assert callable(getattr(owner, function))


def test_a_crash_point_that_is_not_there_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point that was renamed away would else be one that never fires."""
    renamed = Point("nowhere", "worker", "service.sync.push", "renamed")
    monkeypatch.setattr(crash_points, "POINTS", {"c99": renamed})
    with pytest.raises(AssertionError, match="a worker .armed: c99. ended with 1"):
        on_the_fake(Run(events=5, pumps=1, kills=0, every_point=1), f"sqlite:///{tmp_path}/itb.db", tmp_path)


@pytest.mark.parametrize("bug", ["marked before sent", "plain POST", "no lane order"])
def test_a_seeded_bug_is_seen(bug: str, tmp_path: Path) -> None:
    """One that no run sees would show a hole in the checker, or in what the run does."""
    seen: Counter[str] = Counter()
    for seed in (1, 2, 3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        plan = replace(SMALL, bug=bug, seed=seed, faults=BUGS[bug].faults)
        outcome = on_the_fake(plan, f"sqlite:///{folder}/itb.db", folder)
        seen += Counter(breach.invariant for breach in outcome.breaches)
        if seen.keys() & set(BUGS[bug].breaches):
            return
    pytest.fail(f"no run saw {bug!r}; they saw {dict(seen)}")
