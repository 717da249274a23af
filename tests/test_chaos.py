"""Chaos, small enough for every run: faults, kills, crash points, both databases; and bugs that must be seen.

`make chaos` runs ten seeds on each database, `make chaos-hapi` the same against a real HAPI.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import chaos
from chaos import FakeTarget, Outcome, Run
from chaos_bugs import BUGS
from chaos_hapi import WITHOUT, HapiTarget
from crash_points import POINTS
from history import summary

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


@pytest.mark.parametrize("size", ["full", "part"])
def test_every_event_once_in_order_and_exact(
    size: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One seed of `make chaos` on SQLite, a fifth of it on PostgreSQL."""
    if size == "full":
        plan, database = Run(seed=1), f"sqlite:///{tmp_path}/itb.db"
    else:
        plan = Run(events=2_000, pumps=100, kills=200, seed=2)
        database = request.getfixturevalue("postgresql_url")
    outcome = on_the_fake(plan, database, tmp_path)
    check(outcome)
    assert outcome.kills >= plan.kills
    assert sum(outcome.faults.values()) > plan.events / 10


def test_every_crash_point_is_died_at(tmp_path: Path) -> None:
    """Each in turn, first time and later, until each has fired; nothing is lost by any."""
    plan = Run(events=400, pumps=10, kills=0, faults="", workers=1, batch_size=2, every_point=2)
    outcome = on_the_fake(plan, f"sqlite:///{tmp_path}/itb.db", tmp_path)
    check(outcome)
    assert outcome.fired.keys() == POINTS.keys()
    assert min(outcome.fired.values()) >= 2


@pytest.mark.parametrize("bug", BUGS)
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


def test_a_real_hapi_that_is_killed_holds_everything_once(tmp_path: Path) -> None:
    plan = Run(events=300, pumps=12, kills=20, faults=f"10%,without={WITHOUT}", seed=4)
    target = HapiTarget(tmp_path, plan.faults, plan.seed, restarts=1)
    try:
        outcome = chaos.run(plan, f"sqlite:///{tmp_path}/itb.db", tmp_path, target, show)
    finally:
        target.stop()
    check(outcome)
    assert outcome.kills >= plan.kills
    assert target.restarts == 1
