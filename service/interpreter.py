"""How a process of the service uses the interpreter."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.001
"""An EHR's answer comes in many pieces, and after each one the thread that reads it must get its turn again:
with 5 ms a busy thread beside it makes a large page take twice its time."""
YOUNG = 50_000
"""JSON is no cycle: looking for garbage after every 700 new objects takes a twentieth of a pull and finds
nothing. Cycles (of tracebacks) are few, and still found."""


def tune() -> None:
    """Once in each process, before it works."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(YOUNG, 20, 100)
