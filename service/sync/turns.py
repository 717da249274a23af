"""Turns: at most so many threads of a process do something at a time.

A delivery takes one for each call to an EHR (`parallel`), so that another can map what goes next meanwhile.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """`with turns:` waits until fewer than `most` are within."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._within = 0
        self._condition = threading.Condition()

    def allow(self, most: int) -> None:
        """So many from now on; those that are within stay."""
        with self._condition:
            self._most = most
            self._condition.notify_all()

    def __enter__(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._within < self._most)
            self._within += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._condition:
            self._within -= 1
            self._condition.notify()
