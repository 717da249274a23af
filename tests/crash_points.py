"""Named points at which a process dies at once: `CRASH_AT=name[:n]`, the n-th time it comes by.

They are wrapped around functions of the service from outside: code that can end the process by an environment
variable has no place in the service. `chaos.py` counts which point a process died at.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DIED = 87
"""The status of a process that ended at its point: no other end has it."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where: before or after a function returns; which process comes by there."""

    says: str
    role: str
    module: str
    function: str
    when: str = "before"


POINTS = {
    "c1": Point("a request's body is read", "service", "service.intake", "load_line"),
    "c2": Point("an event is parsed", "service", "service.intake", "load_line", "after"),
    "c3": Point("its row is inserted", "service", "service.store.events", "_insert", "after"),
    "c4": Point(
        "it is committed, and not answered", "service", "service.store.engine", "Store.write", "left"
    ),
    "c5": Point("the answer is partly written", "service", "service.api.events", "_shown", "after"),
    "c6": Point("a lane is claimed", "worker", "service.store.lanes", "claim", "after"),
    "c7": Point("a record is mapped", "worker", "service.sync.ladder", "shape", "after"),
    "c8": Point("the bytes are about to be sent", "worker", "requests.sessions", "Session.send"),
    "c9": Point("the EHR has applied it", "worker", "requests.sessions", "Session.send", "after"),
    "c10": Point("its answer is read", "worker", "service.sync.ehr", "HttpEhr.transaction", "after"),
    "c11": Point("the outcome is committed", "worker", "service.sync.outbox", "_record", "after"),
    "c12": Point("a page is fetched", "worker", "service.sync.pull", "take"),
    "c13": Point("a version of it is stored", "worker", "service.sync.pull", "take", "after"),
    "c14": Point("the cursor is saved", "worker", "service.store.positions", "save", "after"),
    "c16": Point("an audit row is added", "worker", "service.store.audit", "write_many", "after"),
}
"""c15 and c17 to c20 are no points of these processes: docs/reliability.md says what has them."""


def target(point: Point) -> tuple[Any, str]:
    """What holds the function of a point, and its name there; raises where there is none."""
    owner: Any = importlib.import_module(point.module)
    *path, function = point.function.split(".")
    for part in path:
        owner = getattr(owner, part)
    getattr(owner, function)
    return owner, function


def install(crash_at: str | None) -> None:
    """Arm one point (or none) in this process: when it fires, the process ends with `DIED`.

    Raises for a point that there is not, and for a function that the service has not (any more).
    """
    if not crash_at:
        return
    name, _, times = crash_at.partition(":")
    point = POINTS[name]
    left = itertools.count(int(times or 1), -1)

    def die_in_time() -> None:
        if next(left) == 1:
            os._exit(DIED)

    owner, function = target(point)
    right = getattr(owner, function)

    def before(*args: Any, **kwargs: Any) -> Any:
        die_in_time()
        return right(*args, **kwargs)

    def after(*args: Any, **kwargs: Any) -> Any:
        made = right(*args, **kwargs)
        die_in_time()
        return made

    def left_block(*args: Any, **kwargs: Any) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def block() -> Iterator[Any]:
            with right(*args, **kwargs) as c:
                yield c
            die_in_time()

        return block()

    setattr(owner, function, {"before": before, "after": after, "left": left_block}[point.when])
