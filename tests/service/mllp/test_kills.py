"""Killed in the middle, with connections cut: what was answered AA is stored once, and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllp_kills import run


def test_every_message_that_was_answered_is_stored_once_and_in_order(tmp_path: Path) -> None:
    verdict = run(tmp_path, total=2000, kills=10, senders=8, seed=1712)
    assert not verdict.wrong, str(verdict)
    assert (verdict.answered, verdict.kills) == (2000, 10)
    assert verdict.cuts >= 8


BUGS = {
    "ack-before-commit": "lost",
    "no-dedupe": "doubled",
    "reordered": "out of order",
    "answered-anew": "answered otherwise on a resend",
}


@pytest.mark.parametrize(("bug", "seen"), BUGS.items())
def test_a_seeded_bug_is_noticed(tmp_path: Path, bug: str, seen: str) -> None:
    verdict = run(tmp_path, total=480, kills=2, senders=4, seed=7, bug=bug)
    assert verdict.wrong[seen] > 0, str(verdict)
