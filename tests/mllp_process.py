"""`itb mllp serve` as a process that a test kills, right or with a seeded bug: `python -m mllp_process BUG`.

Each bug is one that a hurried change could make; tests/service/mllp/test_kills.py must catch all of them.
"""

from __future__ import annotations

import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.cli import main
from service.mllp import answers, intake, listen, reading, server


def ack_before_commit() -> None:
    """Answers at once, stores a little later."""
    later: queue.SimpleQueue[Any] = queue.SimpleQueue()
    real = listen.take

    def store_later() -> None:
        while True:
            time.sleep(0.3)
            real(*later.get())

    def take(store: Any, tenant_id: int, received: Sequence[Any], clock: Any) -> list[intake.Taken]:
        later.put((store, tenant_id, received, clock))
        return [intake.Taken("taken", answers.answer(it, it.issues, clock())) for it in received]

    threading.Thread(target=store_later, daemon=True).start()
    listen.take = take


def no_dedupe() -> None:
    """Knows no message again."""
    reading._key = lambda *named: os.urandom(16).hex()  # type: ignore[assignment]


def reordered() -> None:
    """Takes what has arrived in any order."""
    real = server.Committer._batch

    def shuffled(self: server.Committer) -> list[Any]:
        batch = real(self)
        ends = [one for one in batch if one is None]
        rest = [one for one in batch if one is not None]
        random.shuffle(rest)
        return rest + ends

    server.Committer._batch = shuffled  # type: ignore[method-assign]


def answered_anew() -> None:
    """Does not keep the first answer."""
    real = intake._Taking._one

    def one(taking: Any, it: Any) -> intake.Taken:
        taken = real(taking, it)
        anew = intake.Taken(taken.outcome, answers.answer(it, (), taking._clock()))
        return anew if taken.outcome == "repeated" else taken

    intake._Taking._one = one  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "ack-before-commit": ack_before_commit,
    "no-dedupe": no_dedupe,
    "reordered": reordered,
    "answered-anew": answered_anew,
}

if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    main(["mllp", "serve", *sys.argv[2:]])
