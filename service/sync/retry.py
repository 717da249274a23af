"""What to do after a failed call to an EHR: a row for each class of failure, status and issue code. Pure.

`classify` names the class of an answer, `decide` says what becomes of the delivery. What passes by itself
is tried for as long as it takes: an outage of a day needs nobody. What will be refused again stops at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum

BASE_S = 1.0
MOST_S = 300.0
MOST_RETRY_AFTER_S = 3600.0
"""Longer than that is not waited for on a server's word: it may be a slip, and asking again is cheap."""


class Act(Enum):
    """Try again later, hold the lane for a person, or give up on this content."""

    RETRY = "retry"
    PARK = "park"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from a class of failure.

    `tries` is how often in a row it is tried before `then`; None: for ever. `endpoint`: it tells of the
    server and not of the content, so that it counts for the endpoint's breaker. `split`: one entry of a
    bundle may be to blame, so its halves are sent by themselves.
    """

    act: Act
    tries: int | None = None
    then: Act = Act.PARK
    endpoint: bool = False
    split: bool = False


TABLE: dict[str, Rule] = {
    "Unreachable": Rule(Act.RETRY, endpoint=True),  # not sent
    "Ambiguous": Rule(Act.RETRY, endpoint=True),  # sent, no usable answer: the next try reads back first
    "Throttled": Rule(Act.RETRY, endpoint=True),  # 429, 503: later, and less
    "Busy": Rule(Act.RETRY),  # refused for a reason that passes: a lock, a store that is away
    "Stale": Rule(Act.RETRY, tries=20, split=True),  # 409, 412: somebody was faster; read back and compare
    "Missing": Rule(Act.RETRY, tries=5, split=True),  # 404: reading back finds what points nowhere
    "Gone": Rule(Act.PARK, split=True),  # 410: deleted there, and not ours to bring back
    "Unauthorized": Rule(Act.RETRY, tries=2, endpoint=True),  # 401: once with a new token, then a person
    "Forbidden": Rule(Act.PARK, split=True),  # 403: a person must mend the rights
    "TooLarge": Rule(Act.FAIL, split=True),  # 413: less in a bundle, if there is less
    "Declined": Rule(Act.RETRY, tries=5),  # HL7 v2, AR: may pass (§2.9.2), else a person must mend a setting
    "Refused": Rule(Act.FAIL, split=True),  # 400, 422 and the rest: the same content is refused again
    "Unresolved": Rule(Act.RETRY, tries=3),  # no patient, several: asked thrice, then a person decides
    "Damaged": Rule(Act.PARK),  # a row of the ledger is not what was accepted: never sent, a person must look
    "Bug": Rule(Act.PARK),  # a failure of ours, with this content
}

STATUS: dict[int, str] = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Missing",
    408: "Ambiguous",
    409: "Stale",  # HAPI answers a stale If-Match so; the specification says 412
    410: "Gone",
    412: "Stale",
    413: "TooLarge",
    423: "Busy",
    425: "Busy",
    429: "Throttled",
    501: "Refused",
    503: "Throttled",
}
"""The class of a status, whatever the body says; else a 5xx is Ambiguous, and ISSUE_CODES decide."""

ISSUE_CODES: dict[str, str] = {
    "invalid": "Refused",
    "structure": "Refused",
    "required": "Refused",
    "value": "Refused",
    "invariant": "Refused",
    "security": "Refused",
    "login": "Unauthorized",
    "unknown": "Refused",
    "expired": "Unauthorized",
    "forbidden": "Forbidden",
    "suppressed": "Refused",
    "processing": "Refused",
    "not-supported": "Refused",
    "duplicate": "Stale",
    "multiple-matches": "Stale",
    "not-found": "Missing",
    "deleted": "Gone",
    "too-long": "TooLarge",
    "code-invalid": "Refused",
    "extension": "Refused",
    "too-costly": "TooLarge",
    "business-rule": "Refused",
    "conflict": "Stale",
    "transient": "Busy",
    "lock-error": "Busy",
    "no-store": "Busy",
    "exception": "Busy",
    "timeout": "Busy",
    "incomplete": "Busy",
    "throttled": "Throttled",
    "informational": "Refused",
}
"""The class of a 4xx by its OperationOutcome.issue.code (R4 issue-type), where the status says no more."""


def classify(status: int, codes: Sequence[str]) -> str:
    """The class of an answer that is not a success; `codes` are those of its issues that are errors.

    Several codes: a refusal among them counts, else the first.
    """
    if status in STATUS:
        return STATUS[status]
    if status >= 500:
        return "Ambiguous"
    found = [ISSUE_CODES.get(code, "Refused") for code in codes]
    return "Refused" if not found or "Refused" in found else found[0]


ERROR_CODES: dict[str, str] = {
    "100": "Refused",  # segment sequence
    "101": "Refused",  # a required field is missing
    "102": "Refused",  # data type
    "103": "Refused",  # not in the table
    "104": "Refused",  # too long
    "200": "Declined",  # message type
    "201": "Declined",  # event
    "202": "Declined",  # processing id
    "203": "Declined",  # version
    "204": "Missing",  # unknown key: a patient whom it may be told of later
    "205": "Declined",  # duplicate key: the control id, or the record, belongs to another content
    "206": "Busy",  # the record, or the store, is locked
}
"""HL7 table 0357 (ERR-3): the class of a refusal; of 207 and of none MSA-1 decides."""
ACCEPTED = ("AA", "CA")
NO_ERROR = ("W", "I")
"""HL7 table 0516 (ERR-4): a warning, an information: no reason to refuse."""


def classify_answer(code: str, errors: Sequence[tuple[str, str]]) -> str | None:
    """The class of an acknowledgement by MSA-1 and its (ERR-3, ERR-4); None where the message was taken.

    Of several errors one that is about the content counts, then one that is about the message.
    """
    if code in ACCEPTED:
        return None
    otherwise = "Refused" if code in ("AE", "CE") else "Declined"
    found = [ERROR_CODES.get(number, otherwise) for number, severity in errors if severity not in NO_ERROR]
    return min(found, key=("Refused", "Declined", "Missing", "Busy").index, default=otherwise)


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The act, and for a retry the delay."""

    act: Act
    delay: timedelta = timedelta(0)


def decide(
    failure: str, attempts: int, repeats: int, chance: float, retry_after_s: float | None = None
) -> RetryDecision:
    """The decision after `attempts` earlier tries, of which the last `repeats` ended in the same class.

    `chance` in [0, 1) spreads the retries over the whole delay (full jitter); what the server asked for is
    waited for, and then up to a second more.
    """
    rule = TABLE[failure]
    if rule.act is not Act.RETRY:
        return RetryDecision(rule.act)
    if rule.tries is not None and repeats + 1 >= rule.tries:
        return RetryDecision(rule.then)
    if retry_after_s is not None:
        asked = min(max(retry_after_s, 0.0), MOST_RETRY_AFTER_S)
        return RetryDecision(rule.act, timedelta(seconds=asked + chance))
    grown = repeats if rule.tries is not None else attempts
    return RetryDecision(rule.act, timedelta(seconds=chance * backoff_s(grown)))


def backoff_s(tries: int) -> float:
    """The longest delay after so many tries, in seconds: 1, 2, 4, … up to MOST_S."""
    return min(MOST_S, BASE_S * 2.0 ** min(tries, 30))


def retry_after_s(text: str, now: datetime) -> float | None:
    """Retry-After (RFC 9110 §10.2.3): seconds, or an HTTP date seen from `now`; None where it is neither."""
    words = text.strip()
    if words.isascii() and words.isdigit():
        return float(words[:12])
    try:
        at = parsedate_to_datetime(words)
    except ValueError:
        return None
    if at.tzinfo is None:  # "-0000": no zone is known
        return None
    return max(0.0, (at - now).total_seconds())
