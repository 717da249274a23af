"""`itb worker` as a process that a test kills, right or with a seeded bug: `python -m sender_process BUG`.

Each bug is one that a hurried change could make; tests/sync/test_messages_killed.py must see all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from service.cli import main
from service.store import deliveries
from service.store.deliveries import Outcome
from service.sync import messages


def marked_first() -> None:
    """Deliveries are done before they are sent: a kill loses what was not sent yet."""
    right = messages.deliver

    def wrong(line: Any, found: Any, settle: Any) -> Any:
        with line.store.write() as c:
            deliveries.record(c, [Outcome(one, "sent") for one in found], now=line.now())
        return right(line, found, settle)

    messages.deliver = wrong


def random_control_id() -> None:
    """A message that is sent again is another one."""
    messages.control_id = lambda endpoint, stored: os.urandom(10).hex()


def later_first() -> None:
    """A lane goes backwards."""
    right = deliveries.waiting
    deliveries.waiting = lambda *a, **k: list(reversed(right(*a, **k)))


BUGS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "marked-first": marked_first,
    "random-control-id": random_control_id,
    "later-first": later_first,
}

if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    main(["worker"])
