"""The worked examples of docs/clinical.md, "Dosing", to their last digit."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest

from service.pump import reservoir
from service.pump.reservoir import rounded

D = Decimal
FILLED = datetime(2025, 1, 15, 10, tzinfo=UTC)


def minute(moment: datetime | None) -> str:
    assert moment is not None
    return f"{moment:%Y-%m-%d %H:%M}"


def test_example_1_dates_of_a_simple_program() -> None:
    q = reservoir.flow(350, 2000)
    assert q == Fraction("0.175")
    assert rounded(reservoir.days_to_alarm(20, 2, q) or 0, 3) == D("102.857")
    alarm, empty = reservoir.alarm_at(FILLED, 20, 2, q), reservoir.empty_at(FILLED, 20, q)
    assert (minute(alarm), minute(empty)) == ("2025-04-28 06:34", "2025-05-09 16:51")
    assert reservoir.refill_by(alarm, FILLED.date()) == (date(2025, 4, 23), "alarm")
    assert rounded(Fraction(2) / q, 1) == D("11.4")


def test_example_2_the_stability_limit_wins() -> None:
    q = reservoir.flow(100, 500)
    assert reservoir.days_to_alarm(40, 2, q) == 190
    alarm = reservoir.alarm_at(FILLED, 40, 2, q)
    assert reservoir.refill_by(alarm, FILLED.date()) == (date(2025, 7, 14), "stability")


@pytest.mark.parametrize(("new", "percent"), [(385, "10.0"), (420, "20.0"), (450, "28.6")])
def test_example_3_percent_change(new: int, percent: str) -> None:
    assert rounded(reservoir.percent_change(350, new), 1) == D(percent)


def test_example_4_residual_discrepancy_and_ratio() -> None:
    q = reservoir.flow(350, 2000)
    expected = reservoir.expected_residual(20, [(q, Fraction(96))])
    assert expected == Fraction("3.2")
    ratio = reservoir.delivery_ratio(20, D("5.6"), expected)
    assert ratio is not None
    assert reservoir.discrepancy(D("5.6"), expected) == Fraction("2.4")
    assert rounded(ratio, 3) == D("0.857")
    assert rounded((ratio - 1) * 100, 1) == D("-14.3")
    assert ratio * 350 == 300
    assert reservoir.discrepancy(D("0.6"), expected) == Fraction("-2.6")
    assert rounded(reservoir.delivery_ratio(20, D("0.6"), expected) or 0, 3) == D("1.155")


def test_example_5_flex() -> None:
    day = reservoir.flex_daily_dose([(10, 6), (25, 2), (15, 12), (20, 4)])
    assert day == 370
    assert reservoir.flow(day, 1000) == Fraction("0.37")
    week = [370] * 5 + [340] * 2
    assert sum(week) == 2530
    assert rounded(reservoir.weekly_mean(week), 2) == D("361.43")


def test_example_6_periodic_bolus() -> None:
    background = reservoir.daily_dose(D("0.048"), 2000)
    dose = reservoir.periodic_bolus_daily_dose(background, 60, 4)
    assert (background, dose) == (96, 336)
    q = reservoir.flow(dose, 2000)
    assert q == Fraction("0.168")
    assert rounded(reservoir.days_to_alarm(20, 2, q) or 0, 1) == D("107.1")


@pytest.mark.parametrize(("strength", "least"), [(500, 24), (1000, 48), (2000, 96), (3000, 144), (4000, 192)])
def test_example_7_least_dose_of_a_pump(strength: int, least: int) -> None:
    assert reservoir.daily_dose(D("0.048"), strength) == least
    assert reservoir.flow(60, 2000) < Fraction("0.048") < reservoir.flow(60, 500) == Fraction("0.12")


def test_example_8_worst_case_with_every_patient_bolus() -> None:
    worst = reservoir.worst_case_daily_dose(350, 20, 4)
    assert worst == 430
    assert rounded(reservoir.days_to_alarm(20, 2, reservoir.flow(worst, 2000)) or 0, 1) == D("83.7")


def test_example_9_bridge() -> None:
    path = reservoir.path_volume(reservoir.catheter_volume(80, D("0.0022")), D("0.199"))
    assert path == Fraction("0.375")
    old = reservoir.flow(200, 500)
    assert (old, reservoir.bridge_days(path, old) * 24) == (Fraction("0.4"), Fraction("22.5"))
    assert reservoir.bridge_drug(path, 500) == Fraction("187.5")
    new = reservoir.flow(200, 2000)
    assert new == Fraction("0.1")
    assert reservoir.delivered_daily_dose(200, 2000, 500) == 50
    assert reservoir.bridge_days(path, new) * 24 == 90
    assert reservoir.delivered_daily_dose(200, 500, 2000) == 800
    assert reservoir.bridge_days(path, reservoir.flow(200, 2000)) * 24 == 90


def test_example_10_concentration_typed_wrong() -> None:
    assert reservoir.delivered_daily_dose(100, 2000, 500) == 25
    assert reservoir.delivered_daily_dose(100, 500, 2000) == 400


def test_example_11_trimmed_catheter() -> None:
    assert reservoir.catheter_volume(D(110) - D("25.5"), D("0.0026")) == Fraction("0.2197")


def test_example_12_start_and_first_steps() -> None:
    start = reservoir.start_daily_dose(75)
    assert start == 150
    assert reservoir.start_daily_dose(75, effect_over_8_h=True) == 75
    assert reservoir.changed_dose(start, 15) == Fraction("172.5")
    assert reservoir.changed_dose(start, 30) == 195


def test_example_13_end_of_service() -> None:
    assert reservoir.end_of_service(date(2019, 3, 10), 7, 90) == (date(2025, 12, 10), date(2026, 3, 10))
    assert reservoir.end_of_service(date(2020, 2, 29), 7, 90) == (date(2026, 11, 30), date(2027, 2, 28))
    assert reservoir.end_of_service(date(9999, 1, 1), 7, 90) is None


def test_a_date_is_cut_and_never_rounded_later() -> None:
    third = Fraction(1, 3) / 86_400  # a third of a second
    assert reservoir.later(FILLED, 1 - third) == FILLED + timedelta(days=1, seconds=-1)
    assert reservoir.later(FILLED, 1 + 2 * third) == FILLED + timedelta(days=1)
    late = datetime(2025, 4, 28, 23, 59, 59, tzinfo=timezone(timedelta(hours=-6)))
    assert reservoir.refill_by(late, date(2025, 1, 15)) == (date(2025, 4, 23), "alarm")


def test_no_flow_and_no_calendar_give_no_date() -> None:
    assert reservoir.alarm_at(FILLED, 20, 2, 0) is None
    assert reservoir.alarm_at(FILLED, 20, 2, Fraction(1, 10**9)) is None
    assert reservoir.later(datetime(9999, 12, 1, tzinfo=UTC), Fraction(90)) is None
    assert reservoir.refill_by(None, date(9999, 12, 1)) == (None, None)
    assert reservoir.alarm_at(FILLED, 2, 2, Fraction(1)) == FILLED


def test_shown_numbers_are_rounded_half_to_even_and_keep_their_places() -> None:
    assert [str(rounded(D(v), 1)) for v in ("0.25", "0.35", "-0.25", "20")] == ["0.2", "0.4", "-0.2", "20.0"]
    assert reservoir.delivery_ratio(20, 20, 20) is None
    with pytest.raises(ValueError, match="seven days"):
        reservoir.weekly_mean([1, 2])
