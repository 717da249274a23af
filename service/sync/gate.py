"""What an endpoint lets through now: its circuit breaker and its pace, decided from one row. Pure.

The row is shared by every worker on every machine. Failures that tell of the server (`retry.Rule.endpoint`)
count while they follow each other; enough of them close the way, and one probe at a time asks whether it is
open again. After that, more is let through by and by: a server that has just come back is not flooded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .retry import MOST_RETRY_AFTER_S, TABLE

OPENS_AFTER = 5
"""Failures in a row."""
BASE_S = 2.0
MOST_S = 60.0
PROBE = timedelta(seconds=60)
"""How long a probe may take before another one is sent: longer than the deadline of a call."""
FIRST = 1
"""How many deliveries go together after the way has opened again; doubled with each success."""


@dataclass(frozen=True, slots=True)
class Gate:
    """`failures` in a row, `rounds` of being shut, shut `until` then; `blame`: the lane that failed last.

    `probe` is the worker that asks now, until `until`; `most` is how many deliveries may go together (None:
    as many as one likes); `next_call` is when the next request may be sent, where there is a pace.
    """

    failures: int = 0
    rounds: int = 0
    until: datetime | None = None
    probe: str | None = None
    blame: str | None = None
    most: int | None = None
    next_call: datetime | None = None

    def state(self, now: datetime) -> str:
        """closed (all may pass), open (nothing may) or half-open (a probe is, or may be, on its way)."""
        if self.until is None:
            return "closed"
        return "half-open" if self.probe is not None or self.until <= now else "open"


@dataclass(frozen=True, slots=True)
class Pass:
    """How many deliveries may go together, and whether they are the probe."""

    most: int
    is_probe: bool = False


def ask(gate: Gate, worker: str, most: int, now: datetime) -> tuple[Gate, Pass | None]:
    """The gate afterwards, and what may pass now: None while it is shut, or while another one probes."""
    if gate.until is None:
        return gate, Pass(most if gate.most is None else min(most, gate.most))
    if gate.until > now:
        return gate, None
    return replace(gate, probe=worker, until=now + PROBE), Pass(FIRST, is_probe=True)


def answered(gate: Gate, most: int) -> Gate:
    """After an answer of the server, be it a refusal: it is there; twice as many may go next time."""
    grown = None if gate.until is None and gate.most is None else (gate.most or FIRST) * 2
    if gate.until is not None:
        grown = FIRST * 2
    if grown is not None and grown >= most:
        grown = None
    return Gate(most=grown, next_call=gate.next_call)


def failed(
    gate: Gate, failure: str, lane: str, now: datetime, chance: float, asked_s: float | None = None
) -> Gate:
    """After a failure that tells of the server; any other leaves the gate as it is.

    One lane that fails alone, again and again, may be to blame itself: unless nothing was sent or the server
    says that it is busy, it is counted once.
    """
    if not TABLE[failure].endpoint:
        return gate
    sure = failure in ("Unreachable", "Throttled")
    failures = gate.failures + (1 if sure or gate.blame != lane else 0)
    counted = replace(gate, failures=failures, blame=lane)
    shut = gate.until is not None  # it was the probe
    if not shut and failures < OPENS_AFTER and asked_s is None:
        return counted
    rounds = gate.rounds + 1
    wait = min(MOST_S, BASE_S * 2.0 ** min(rounds - 1, 10))
    # Half of it for sure: workers that asked together do not ask together again, nor at once.
    seconds = wait * (0.5 + chance / 2)
    if asked_s is not None:
        seconds = max(0.0, min(asked_s, MOST_RETRY_AFTER_S)) + chance
    return replace(counted, rounds=rounds, until=now + timedelta(seconds=seconds), probe=None, most=FIRST)


def call(gate: Gate, per_second: float, now: datetime) -> tuple[Gate, float]:
    """The gate afterwards, and how many seconds to wait before the next request of any worker."""
    at = max(now, gate.next_call or now)
    following = at + timedelta(seconds=1 / per_second)
    return replace(gate, next_call=following), (at - now).total_seconds()
