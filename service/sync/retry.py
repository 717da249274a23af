"""What to do after a failed call to an EHR: one table, a row for each class of failure. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

BASE_S = 1.0
MOST_S = 300.0
TRIES = 12


class Act(Enum):
    """Try again later, hold the lane for a person, or give up on this content."""

    RETRY = "retry"
    PARK = "park"
    FAIL = "fail"


TABLE: dict[str, Act] = {
    "Unreachable": Act.RETRY,  # not sent
    "Ambiguous": Act.RETRY,  # sent, no usable answer: the next attempt reads back first
    "Stale": Act.RETRY,  # 409, 412: somebody was faster; read back and compare
    "Throttled": Act.RETRY,  # 429, 502, 503, 504
    "Missing": Act.RETRY,  # 404, 410: a link that points nowhere is found out by reading back
    "Unauthorized": Act.PARK,  # 401, 403: a person must mend the credentials
    "Refused": Act.FAIL,  # 400, 422 and the rest: the same content will be refused again
    "Unresolved": Act.PARK,  # no patient, or several: a person must decide
}


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The act, and for a retry the delay."""

    act: Act
    delay: timedelta = timedelta(0)


def decide(failure: str, attempts: int, chance: float, retry_after_s: float | None = None) -> RetryDecision:
    """The decision after `attempts` earlier tries; `chance` in [0, 1) spreads the retries (full jitter)."""
    act = TABLE[failure]
    if act is not Act.RETRY:
        return RetryDecision(act)
    if attempts + 1 >= TRIES:
        return RetryDecision(Act.FAIL)
    if retry_after_s is not None:
        return RetryDecision(act, timedelta(seconds=retry_after_s))
    return RetryDecision(act, timedelta(seconds=chance * min(MOST_S, BASE_S * 2**attempts)))
