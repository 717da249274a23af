"""Chaos, small enough for every run; `make chaos` has full seeds on both databases, and bugs on purpose."""

from __future__ import annotations

from pathlib import Path

import chaos
from chaos import FakeTarget, Run
from history import summary


def test_every_event_once_in_order_and_exact(tmp_path: Path) -> None:
    """Faults, kills and crash points; `tests/test_history.py` shows that the checker would see a breach."""
    plan = Run(events=200, pumps=12, kills=20, seed=1)
    target = FakeTarget(plan.faults, plan.seed)
    try:
        outcome = chaos.run(plan, f"sqlite:///{tmp_path}/itb.db", tmp_path, target, lambda text: None)
    finally:
        target.stop()
    found = [f"{breach.invariant}: {breach.what}" for breach in outcome.breaches[:10]]
    assert not outcome.breaches, f"{summary(outcome.breaches)}\n" + "\n".join(found)
    assert outcome.kills >= plan.kills
    assert outcome.faults.total() > 20
