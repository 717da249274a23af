"""What the formulas of an intrathecal pump give: rates, volumes, dates, bridges, doses.

Formulas: docs/clinical.md, "Dosing". Amounts are exact rationals between the formulas, so nothing is
rounded twice; `rounded` makes the Decimal that is shown (half to even). A time of alarm, of empty or
of refill is cut to the second, or to the day, that came before it: never later.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction

from .models import MODELS, Model

Number = Decimal | Fraction | int
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_US = 86_400_000_000
HOURS_PER_DAY = 24
DAYS_OF_SPAN = {"d": Fraction(1), "h": Fraction(1, 24), "min": Fraction(1, 1440)}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers a site may set; the sources are in docs/clinical.md, "Dosing" and §Rules."""

    refill_margin_days: int = 5
    """Refills are booked 3 to 5 days before the alarm date (leaflet on refills, Gillette Children's)."""
    stability_days: int = 180
    """Commercial pumps are to be refilled within 180 days (product labelling)."""
    low_alarm_volume: Decimal = Decimal(2)
    """mL, where a refill names none: the maker's recommendation (Sweeney, Neurosurgery 2004)."""
    discrepancy_volume: Decimal = Decimal(2)
    """mL between actual and expected residual, above which R2 speaks (best-practice poster, ASRA 2017)."""
    dose_tolerance: Decimal = Decimal("0.01")
    """Share by which boluses may exceed the daily dose they are part of, as for U3. A design choice."""
    bridge_tolerance: Decimal = Decimal("0.05")
    """Share by which a recorded bridge duration may differ from volume / flow. A design choice."""
    doubling: int = 2
    """New to old daily dose from which U2 speaks, and its inverse from which D6 does. A design choice."""
    increase_percent_spinal: Decimal = Decimal(40)
    increase_percent_cerebral: Decimal = Decimal(20)
    """The largest increases that are published, at maintenance (Lioresal monograph, minclinic.eu)."""
    decrease_percent: Decimal = Decimal(20)
    """The largest decrease that is published (same monograph)."""
    high_daily_dose: Decimal = Decimal(1000)
    """ug/d, "not to exceed" in the same monograph; D1."""
    usual_daily_dose: Decimal = Decimal(2000)
    """ug/d, the most that is usually listed (pedmed.org)."""
    long_effect_hours: int = 8
    """A screening effect that lasts longer halves the first dose (Saulino 2015)."""
    stopped_hours: int = 48
    """A pump that stands still for longer gives a critical alarm (patient pages of the maker)."""
    clock_skew_minutes: int = 5
    """Between the pump's clock and the reading. A design choice."""
    low_alarm_least: Decimal = Decimal(2)
    """mL, below which R5 speaks: some patients withdrew above 2 mL (Sweeney, Neurosurgery 2004)."""
    strengths: tuple[Decimal, ...] = (Decimal(500), Decimal(1000), Decimal(2000))
    """ug/mL of products made for refills (openFDA NDC listings); others are diluted or compounded."""
    injury_years: int = 1
    """Between a brain injury and the implant (Lioresal screening page)."""
    models: tuple[Model, ...] = MODELS
    """What each pump model can do and how long it serves."""
    replacement_notice_months: int = 3
    """A replacement is booked at least that long before the indicator (Boster 2016)."""
    horizon_days: int = 36_525
    """A date further away than a century is no date: the pump as good as stands still. A design choice."""


THRESHOLDS = Thresholds()


# --- exact numbers and moments ----------------------------------------------------------------------------


def rounded(value: Number, places: int) -> Decimal:
    """The Decimal with that many places, half to even."""
    return Decimal(f"{round(Fraction(value) * 10**places)}E-{places}")


def day_number(moment: datetime) -> Fraction:
    """Days since 1970-01-01T00:00Z, exactly."""
    return Fraction((moment - EPOCH) // MICROSECOND, DAY_US)


def moment_of(day: Fraction, zone: tzinfo | None) -> datetime | None:
    """The moment in `zone`, cut to the second before; None beyond the calendar."""
    try:
        return (EPOCH + timedelta(seconds=int(day * 86_400 // 1))).astimezone(zone)
    except OverflowError:
        return None


def later(moment: datetime, days: Fraction | None, horizon: int = THRESHOLDS.horizon_days) -> datetime | None:
    """`moment` + `days`, cut to the second; None for never, or beyond the horizon."""
    if days is None or days > horizon:
        return None
    return moment_of(day_number(moment) + days, moment.tzinfo)


def later_on(day: date, days: int) -> date | None:
    """`day` + `days`; None beyond the calendar."""
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return None


def months_later(day: date, months: int) -> date | None:
    """`day` + calendar months, the last day of a month that is too short; None beyond the calendar."""
    year, month = divmod(12 * day.year + day.month - 1 + months, 12)
    if not MINYEAR <= year <= MAXYEAR:
        return None
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def span_days(span: Mapping[str, Decimal | str]) -> Fraction:
    """The days of a `{"value", "unit"}` in h, min or d."""
    return Fraction(span["value"]) * DAYS_OF_SPAN[str(span["unit"])]


# --- rates ------------------------------------------------------------------------------------------------


def flow(dose: Number, concentration: Number) -> Fraction:
    """q = D / C: mL/d from ug/d and ug/mL."""
    return Fraction(dose) / Fraction(concentration)


def daily_dose(flow: Number, concentration: Number) -> Fraction:
    """D = q * C: ug/d from mL/d and ug/mL; at a pump's least flow, the least dose it can give."""
    return Fraction(flow) * Fraction(concentration)


def percent_change(old: Number, new: Number) -> Fraction:
    """(new - old) / old * 100."""
    return (Fraction(new) - Fraction(old)) / Fraction(old) * 100


def flex_daily_dose(steps: Iterable[tuple[Number, Number]]) -> Fraction:
    """sum(rate_i * h_i): ug/d from the (ug/h, h) steps of one day."""
    return sum((Fraction(rate) * Fraction(hours) for rate, hours in steps), Fraction(0))


def weekly_mean(daily_doses: Iterable[Number]) -> Fraction:
    """The mean ug/d of seven days."""
    days = [Fraction(dose) for dose in daily_doses]
    if len(days) != 7:
        raise ValueError("a week has seven days")
    return sum(days, Fraction(0)) / 7


def periodic_bolus_daily_dose(background: Number, bolus: Number, per_day: Number) -> Fraction:
    """background + n * bolus, in ug/d."""
    return Fraction(background) + Fraction(per_day) * Fraction(bolus)


def worst_case_daily_dose(base: Number, bolus: Number, max_per_day: Number) -> Fraction:
    """What the patient gets on a day with every bolus allowed, in ug/d."""
    return Fraction(base) + Fraction(max_per_day) * Fraction(bolus)


def delivered_daily_dose(programmed: Number, programmed_concentration: Number, filled: Number) -> Fraction:
    """What arrives when the pump believes another concentration than it holds: q * C_filled."""
    return daily_dose(flow(programmed, programmed_concentration), filled)


# --- volumes and dates ------------------------------------------------------------------------------------


def days_to_alarm(volume: Number, alarm_volume: Number, flow: Number) -> Fraction | None:
    """(V - L) / q: days until the low-reservoir volume; 0 when it is already reached, None at no flow."""
    if volume <= alarm_volume:
        return Fraction(0)
    return (Fraction(volume) - Fraction(alarm_volume)) / Fraction(flow) if flow else None


def alarm_at(filled_at: datetime, volume: Number, alarm_volume: Number, flow: Number) -> datetime | None:
    """filled_at + (V - L) / q."""
    return later(filled_at, days_to_alarm(volume, alarm_volume, flow))


def empty_at(filled_at: datetime, volume: Number, flow: Number) -> datetime | None:
    """filled_at + V / q."""
    return alarm_at(filled_at, volume, 0, flow)


def refill_by(
    alarm_at: datetime | None, filled_on: date, thresholds: Thresholds = THRESHOLDS
) -> tuple[date | None, str | None]:
    """min(alarm date - margin, fill date + stability), and which of the two decides."""
    stable = later_on(filled_on, thresholds.stability_days)
    alarm = later_on(alarm_at.date(), -thresholds.refill_margin_days) if alarm_at is not None else None
    if alarm is not None and (stable is None or alarm <= stable):
        return alarm, "alarm"
    return stable, "stability" if stable is not None else None


def expected_residual(volume: Number, periods: Iterable[tuple[Fraction, Fraction]]) -> Fraction:
    """V - integral of q dt over the (mL/d, d) periods; an empty reservoir stays at 0."""
    left = Fraction(volume) - sum((rate * days for rate, days in periods), Fraction(0))
    return max(left, Fraction(0))


def discrepancy(actual: Number, expected: Number) -> Fraction:
    """actual - expected: above 0 too little was delivered, below 0 too much (or drug lost)."""
    return Fraction(actual) - Fraction(expected)


def delivery_ratio(fill: Number, actual: Number, expected: Number) -> Fraction | None:
    """(V_fill - actual) / (V_fill - expected): delivered to programmed; None when nothing was due."""
    due = Fraction(fill) - Fraction(expected)
    return (Fraction(fill) - Fraction(actual)) / due if due else None


# --- catheter and bridge ----------------------------------------------------------------------------------


def catheter_volume(implanted_length: Number, volume_per_length: Number) -> Fraction:
    """V_cath = implanted_cm * mL_per_cm."""
    return Fraction(implanted_length) * Fraction(volume_per_length)


def path_volume(catheter: Number, tubing: Number) -> Fraction:
    """V_path = V_cath + V_pump_tubing: the old drug between reservoir and catheter tip."""
    return Fraction(catheter) + Fraction(tubing)


def bridge_days(volume: Number, flow: Number) -> Fraction:
    """V_path / q_old, with q_old = intended D / C_old: the old drug at its own rate."""
    return Fraction(volume) / Fraction(flow)


def bridge_drug(volume: Number, old_concentration: Number) -> Fraction:
    """V_path * C_old: ug of old drug given during the bridge."""
    return Fraction(volume) * Fraction(old_concentration)


# --- start, titration, end of service ---------------------------------------------------------------------


def start_daily_dose(screening_dose: Number, *, effect_over_8_h: bool = False) -> Fraction:
    """Twice the effective screening bolus; the bolus itself when its effect outlasted 8 h."""
    return Fraction(screening_dose) * (1 if effect_over_8_h else 2)


def changed_dose(dose: Number, percent: Number) -> Fraction:
    """dose * (1 + percent / 100)."""
    return Fraction(dose) * (1 + Fraction(percent) / 100)


def end_of_service(implanted_on: date, service_years: int, indicator_days: int) -> tuple[date, date] | None:
    """The last day of (replacement indicator, service) of a pump that stops after `service_years`."""
    ends = months_later(implanted_on, 12 * service_years)
    return (ends - timedelta(days=indicator_days), ends) if ends is not None else None
