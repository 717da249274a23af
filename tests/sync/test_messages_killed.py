"""A worker that tells a receiver of HL7 v2 is killed in mid-work: none lost, none doubled, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.store import deliveries
from service.sync.spread import prepare
from site_of_mllp import interrogation
from site_of_receiver import Pair, pair, wrong

TESTS = Path(__file__).resolve().parents[1]
LANES, EACH = 4, 20


class Worker:
    """`itb worker` on ledger A, right or with a bug; killed, it is started again."""

    def __init__(self, site: Pair, bug: str, engine: str) -> None:
        path = f"{TESTS.parent}:{TESTS}"
        self.env = os.environ | {"ITB_DATABASE_URL": site.url, "PYTHONPATH": path, "ITB_LOG_LEVEL": "error"}
        self.env["ITB_ENGINE"] = engine
        self.command = [sys.executable, "-m", "sender_process", bug]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.env, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def run(
    folder: Path, *, kills: int, bug: str = "none", url: str = "", engine: str = "embedded"
) -> Counter[str]:
    """What is wrong in the end; the worker is killed each time that some more messages have passed."""
    with pair(folder, rest=0.03, seed=5, url=url) as site:
        prepare(site.a, engine)
        site.send(*(interrogation(lane, number) for number in range(EACH) for lane in range(LANES)))

        def is_done() -> bool:
            with site.a.read() as c:
                return deliveries.counts(c)["pending"] == 0

        def has_passed(number: int) -> bool:
            return site.peer.done.total() >= number or is_done()

        worker = Worker(site, bug, engine)
        try:
            for number in range(1, kills + 1):
                mark = number * LANES * EACH // (kills + 2)
                until(partial(has_passed, mark))
                worker.kill()
                worker.start()

            until(is_done)
        finally:
            worker.kill()
        return wrong(site.a, site.b)


def test_a_worker_that_is_killed_loses_and_doubles_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    assert run(tmp_path, kills=4) == {}


def test_nor_does_one_of_many_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    assert run(tmp_path, kills=1, url=postgresql_url, engine="procrastinate") == {}


@pytest.mark.parametrize(
    ("bug", "seen"),
    [
        ("marked-first", "lost"),
        ("random-control-id", "told by several messages"),
        ("later-first", "out of order"),
    ],
)
def test_a_seeded_bug_is_seen(tmp_path: Path, bug: str, seen: str) -> None:
    assert run(tmp_path, kills=2, bug=bug)[seen] > 0
