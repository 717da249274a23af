"""The policy table: complete, honest about what passes by itself, and spread in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.r4_table import table
from service.sync import ehr, retry
from service.sync.retry import Act, Rule, classify, decide, retry_after_s

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
KINDS = sorted(retry.TABLE)


def kinds_of(error: type[Any]) -> set[str]:
    return {error.__name__} | {name for below in error.__subclasses__() for name in kinds_of(below)}


def test_every_failure_has_a_row_and_every_row_a_failure() -> None:
    raised = kinds_of(ehr.EhrError) - {"EhrError"}
    assert set(ehr.CLASSES) == raised
    assert raised | {"Unresolved", "Damaged", "Bug"} == set(retry.TABLE)


def test_every_issue_code_of_r4_has_a_class() -> None:
    assert set(retry.ISSUE_CODES) == set(table()["codes"]["issue-type"])
    assert set(retry.ISSUE_CODES.values()) <= set(retry.TABLE)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_a_class(status: int) -> None:
    kind = classify(status, [])
    assert kind in ehr.CLASSES
    if status >= 500 and status != 501:
        assert retry.TABLE[kind].act is Act.RETRY
        assert retry.TABLE[kind].tries is None


@pytest.mark.parametrize(
    ("status", "codes", "kind"),
    [
        (400, ["transient"], "Busy"),
        (422, ["lock-error"], "Busy"),
        (400, ["throttled"], "Throttled"),
        (400, ["conflict"], "Stale"),
        (400, ["exception", "processing"], "Refused"),
        (422, ["processing"], "Refused"),
        (422, ["a code of the future"], "Refused"),
        (403, ["transient"], "Forbidden"),
        (500, ["processing"], "Ambiguous"),
        (412, ["invalid"], "Stale"),
    ],
)
def test_an_issue_code_decides_where_the_status_does_not(status: int, codes: list[str], kind: str) -> None:
    assert classify(status, codes) == kind


@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 0.999))
def test_a_decision_follows_its_row(kind: str, attempts: int, repeats: int, chance: float) -> None:
    rule = retry.TABLE[kind]
    decision = decide(kind, attempts, repeats, chance)
    assert timedelta(0) <= decision.delay <= timedelta(seconds=retry.MOST_S)
    if rule.tries is None:
        assert decision.act is rule.act
    else:
        assert decision.act is (rule.then if repeats + 1 >= rule.tries else rule.act)


def test_what_passes_by_itself_never_ends_as_failed() -> None:
    assert all(rule.then is Act.PARK for rule in retry.TABLE.values())
    for kind in ("Unreachable", "Ambiguous", "Throttled", "Busy"):
        assert decide(kind, 10**6, 10**6, 0.5).act is Act.RETRY


def test_retries_spread_grow_and_have_a_longest_delay() -> None:
    delays = [decide("Unreachable", n, 0, 0.999).delay.total_seconds() for n in range(40)]
    assert delays == sorted(delays)
    assert delays[0] < retry.BASE_S
    assert 0.99 * retry.MOST_S < delays[-1] <= retry.MOST_S
    assert decide("Unreachable", 30, 0, 0.0).delay == timedelta(0)


@given(st.floats(0, 10**9), st.floats(0, 0.999))
def test_the_wait_a_server_asks_for_is_kept_within_a_second_and_an_hour(asked: float, chance: float) -> None:
    delay = decide("Throttled", 3, 3, chance, asked).delay.total_seconds()
    kept = min(asked, retry.MOST_RETRY_AFTER_S)
    assert kept - 1e-5 <= delay <= kept + 1


@given(st.integers(-(10**6), 10**6))
def test_a_retry_after_date_is_seen_from_now(seconds: int) -> None:
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_s(text, NOW) == max(0, seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), (" 0 ", 0.0), ("9" * 40, 999999999999.0), ("soon", None), ("", None), ("-5", None)],
)
def test_retry_after_is_seconds_or_nothing(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading_of_retry_after(text: str) -> None:
    found = retry_after_s(text, NOW)
    assert found is None or found >= 0


def parks_after_a_count(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(retry.TABLE, "Unreachable", Rule(Act.RETRY, tries=12, then=Act.FAIL))


def retries_what_is_refused(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(retry.TABLE, "Refused", Rule(Act.RETRY))


def ignores_what_the_server_asks(patch: pytest.MonkeyPatch) -> None:
    right = retry.decide
    patch.setattr(retry, "decide", lambda k, a, r, chance, asked=None: right(k, a, r, chance))


@pytest.mark.parametrize(
    "bug",
    [parks_after_a_count, retries_what_is_refused, ignores_what_the_server_asks],
    ids=lambda b: b.__name__,
)
def test_a_seeded_bug_in_the_policy_is_seen(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above hold against the table, in one line each, fails under each bug."""
    bug(monkeypatch)
    held = (
        retry.decide("Unreachable", 50, 50, 0.5).act is Act.RETRY,
        retry.decide("Refused", 0, 0, 0.5).act is Act.FAIL,
        retry.decide("Throttled", 0, 0, 0.5, 42.0).delay >= timedelta(seconds=42),
    )
    assert not all(held)
