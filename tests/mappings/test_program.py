"""A flex program's steps: every day said or not, the same is refused with the same words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mappings.program import DAYS, issues

STEP = st.builds(
    lambda hour, minute, minutes: {
        "start": f"{hour:02}:{minute:02}",
        "duration": {"value": Decimal(minutes), "unit": "min"},
        "dose": {"value": Decimal(10), "unit": "ug"},
    },
    st.integers(0, 23),
    st.sampled_from([0, 30]),
    st.sampled_from([30, 360, 720, 1440, 2880, 10080]),
)


def in_turn(lengths: list[int], start: int) -> list[dict[str, Any]]:
    """Steps one after another, of so many half hours."""
    steps = []
    for length in lengths:
        clock = f"{start // 2 % 24:02}:{start % 2 * 30:02}"
        span = {"value": Decimal(length * 30), "unit": "min"}
        steps.append({"start": clock, "duration": span, "dose": {"value": Decimal(10), "unit": "ug"}})
        start += length
    return steps


WHOLE_DAYS = st.builds(
    in_turn, st.sampled_from([[48], [12, 36], [16, 16, 16], [1, 46, 1]]), st.integers(0, 47)
)


@given(st.one_of(st.lists(STEP, min_size=1, max_size=4), WHOLE_DAYS))
def test_no_days_are_all_days(steps: list[dict[str, Any]]) -> None:
    program: dict[str, Any] = {
        "mode": "flex",
        "daily_dose": {"value": Decimal(10 * len(steps)), "unit": "ug/d"},
        "concentration": {"value": Decimal(2000), "unit": "ug/mL"},
    }
    said = [step | {"days": list(DAYS)} for step in steps]
    assert issues(program | {"steps": steps}, "after") == issues(program | {"steps": said}, "after")


@given(WHOLE_DAYS)
def test_a_day_that_is_covered_once_is_accepted(steps: list[dict[str, Any]]) -> None:
    dose = {"value": Decimal(10 * len(steps)), "unit": "ug/d"}
    strength = {"value": Decimal(2000), "unit": "ug/mL"}
    program = {"mode": "flex", "daily_dose": dose, "concentration": strength, "steps": steps}
    assert issues(program, "after") == []
