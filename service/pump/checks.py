"""What a person should look at: advisory rules over a pump's state, one function a rule.

Rule ids and sources: docs/clinical.md, "Rules". None of them stops a record or a therapy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from fractions import Fraction

from mappings.envelope import occurred
from mappings.fields import instant

from . import reservoir
from .derivation import shown
from .device_checks import (
    clock_is_off,
    full_before_scan,
    implanted_with_infection,
    log_is_critical,
    outside_its_use,
    scan_without_reading,
    second_pump,
    service_ends,
    stopped_for_long,
    too_soon_after_injury,
)
from .dose_checks import (
    dose_is_high,
    doubled,
    oral_at_full_dose,
    screenings_are_close,
    start_after_screening,
    step_is_large,
    steps_are_close,
    stopped_or_halved,
)
from .program_checks import (
    bolus_not_permitted,
    boluses_fit_the_dose,
    clock_changed,
    deliverable,
    lockout_and_maximum,
    too_many_steps,
    unlimited_boluses,
)
from .refill_checks import (
    expired_lot,
    low_alarm_is_low,
    product_and_strength,
    strength_for_the_model,
    unusual_strength,
)
from .reservoir import rounded
from .run import Residual
from .state import CRITICAL, WARNING, OpenIssue, PumpState
from .view import View


def open_issues(view: View) -> tuple[OpenIssue, ...]:
    """Every finding that is open, in the order of CHECKS."""
    return tuple(issue for check in CHECKS for issue in check(view))


def discrepancy_at_refill(view: View) -> Iterator[OpenIssue]:
    """R2: more or less was left than expected; patient boluses widen what is expected."""
    most = view.thresholds.discrepancy_volume
    pairs = list(zip(view.run.residuals, view.worst.residuals, strict=True))
    expected, difference = _discrepancy(*pairs[-1]) if pairs else (Fraction(0), Fraction(0))
    if abs(difference) <= most:
        return
    found = pairs[-1][0]
    assert found.actual is not None
    ratio = reservoir.delivery_ratio(found.fill, found.actual, expected)
    fill, actual, due = shown(found.fill), shown(found.actual), shown(rounded(expected, 4))
    signs = _signs(view, occurred(found.event))
    which = "under-delivery: check catheter and pump" if difference > 0 else "over-delivery or drug lost"
    alike = [abs(d) > most and (d > 0) == (difference > 0) for _, d in (_discrepancy(*p) for p in pairs)]
    row = next((n for n, same in enumerate(reversed(alike)) if not same), len(alike))
    words = f"at the refill {found.event['occurred_at']} {actual} mL were left, {due} mL expected: {which}"
    if row > 1:
        words += f"; {row} refills in a row"
    if signs:
        words += f"; on record since the refill before: {', '.join(signs)}"
    parts = f"{actual} mL - {due} mL = {shown(rounded(difference, 4))} mL"
    if ratio is not None:
        parts += f"; ({fill} - {actual}) / ({fill} - {due}) = {rounded(ratio, 3)}"
    yield OpenIssue("R2", CRITICAL if signs else WARNING, words, parts)


def _discrepancy(found: Residual, least: Residual) -> tuple[Fraction, Fraction]:
    """(expected, actual - expected) with the expectation that is nearest; 0 within the two, or unmeasured."""
    if found.actual is None or least.expected <= found.actual <= found.expected:
        return found.expected, Fraction(0)
    expected = found.expected if found.actual > least.expected else least.expected
    return expected, reservoir.discrepancy(found.actual, expected)


def more_than_was_filled(view: View) -> Iterator[OpenIssue]:
    """R1: more was taken out than the refill before had put in."""
    found = view.run.residual
    if found is not None and found.actual is not None and found.actual > found.fill:
        actual, fill = shown(found.actual), shown(found.fill)
        yield OpenIssue(
            "R1",
            WARNING,
            f"at the refill {found.event['occurred_at']} {actual} mL were taken out, more than the {fill} mL "
            "that were filled in before: a record is missing or wrong",
            f"{actual} > {fill} mL",
        )


def _signs(view: View, refilled: datetime) -> list[str]:
    """Withdrawal and overdose that were there at some time since the refill before."""
    fills = [occurred(e) for e in view.of_type("refill") if occurred(e) < refilled]
    since = fills[-1] if fills else refilled
    return [
        e["problem"]
        for e in view.of_type("complication")
        if e["problem"] in ("withdrawal", "overdose")
        and ("ended_at" not in e or instant(e["ended_at"]) >= since)
    ]


def unbridged_concentration(view: View) -> Iterator[OpenIssue]:
    """C3: the concentration changed, and nothing tells of a bridge or why none was needed."""
    if view.run.unbridged is None:
        return
    old, new = view.run.unbridged
    yield OpenIssue(
        "C3",
        CRITICAL,
        f"the concentration changed from {shown(old)} to {shown(new)} mcg/mL without a bridge "
        "or a reason why none was required",
        f"until the old drug is flushed the patient gets {shown(old)} / {shown(new)} = "
        f"{rounded(Fraction(old) / Fraction(new), 3)} of the programmed dose",
    )


def bridge_as_recorded(view: View) -> Iterator[OpenIssue]:
    """C3: a bridge whose recorded duration is not volume / flow, or that another programming cut short."""
    bridge = view.run.bridge
    said = (view.run.programming or {}).get("bridge") or (view.run.refill or {}).get("bridge") or {}
    if bridge is not None and "duration" in said:
        days = reservoir.span_days(said["duration"])
        needed = bridge.ends - bridge.starts
        if abs(days - needed) > needed * Fraction(view.thresholds.bridge_tolerance):
            hours, said_hours = rounded(needed * 24, 2), shown(rounded(days * 24, 2))
            yield OpenIssue(
                "C3",
                WARNING,
                f"the bridge was recorded for {said_hours} h; the new dose of old drug needs {hours} h",
                f"{shown(bridge.volume)} mL / {shown(rounded(bridge.rate, 6))} mL/d = {hours} h",
            )
    if view.run.cut_bridge is not None:
        ends = _text(view.run.cut_bridge.ends, view.state.at)
        yield OpenIssue(
            "C3", WARNING, f"the pump was programmed again before its bridge ended at {ends}", "no sum"
        )


def program_and_reservoir(view: View) -> Iterator[OpenIssue]:
    """C2: the program believes another concentration than the reservoir holds."""
    programmed = (view.run.program or {}).get("concentration", {}).get("value")
    if programmed is None or view.run.concentration is None or programmed == view.run.concentration:
        return
    if view.run.program["mode"] == "stopped":
        return
    dose = view.run.program["daily_dose"]["value"]
    filled = shown(view.run.concentration)
    real = rounded(reservoir.delivered_daily_dose(dose, programmed, view.run.concentration), 2)
    yield OpenIssue(
        "C2",
        CRITICAL,
        f"the pump is programmed for {shown(programmed)} mcg/mL and filled with {filled} mcg/mL: "
        f"it gives {shown(real)} instead of {shown(dose)} mcg/day",
        f"{shown(dose)} / {shown(programmed)} * {filled} = {shown(real)} mcg/day",
    )


def unknown_path(view: View) -> Iterator[OpenIssue]:
    """C4: a bridge or a prime while the volume of the catheter is unknown."""
    if {"implanted_length", "volume_per_length"} <= (view.state.catheter or {}).keys():
        return
    operations = [e for e in view.of_type("procedure") if e["pump"] == view.state.pump]
    primed = bool(operations) and "prime" in operations[-1] and "dead_space" not in operations[-1]
    for what, asked in (
        ("a bridge was programmed", view.run.bridge is not None),
        ("the pump was primed", primed),
    ):
        if asked:
            yield OpenIssue(
                "C4",
                WARNING,
                f"{what}, but the catheter's implanted length or volume per length is not recorded",
                "V_path = implanted length * volume per length + pump tubing",
            )


def programs_chain(view: View) -> Iterator[OpenIssue]:
    """chain: a programming found another program than the one recorded before it: a record is missing."""
    if view.run.missing_before is None:
        return
    left, found = view.run.missing_before
    yield OpenIssue(
        "chain",
        WARNING,
        f"the programming {found['occurred_at']} found another program than {left['occurred_at']} left: "
        "a programming in between is not recorded, so volumes and dates may be wrong",
        f"left {_dose(left['after'])}, found {_dose(found['before'])}",
    )


def refill_is_due(view: View) -> Iterator[OpenIssue]:
    """R4: past the refill date, past the alarm, or empty, whichever is view.worst."""
    limits: list[tuple[datetime | None, str]] = [
        (view.state.empty_at, "is calculated to be empty since"),
        (view.state.alarm_at, "is calculated below its low-alarm volume since"),
    ]
    for limit, words in limits:
        if limit is not None and view.state.at >= limit:
            since = limit.isoformat()
            yield OpenIssue(
                "R4", CRITICAL, f"the reservoir {words} {since}", f"{_iso(view.state)} >= {since}"
            )
            return
    if view.state.refill_by is None or view.run.refill is None:
        return
    today = view.state.at.astimezone(occurred(view.run.refill).tzinfo).date()
    if today >= view.state.refill_by:
        yield OpenIssue(
            "R4",
            WARNING,
            f"the refill is due since {view.state.refill_by}",
            f"{today} >= {view.state.refill_by}",
        )


def _text(day: Fraction, at: datetime) -> str:
    found = reservoir.moment_of(day, at.tzinfo)
    return found.isoformat() if found is not None else "no date"


def _iso(state: PumpState) -> str:
    return state.at.isoformat(timespec="seconds")


def _dose(program: dict[str, dict[str, object]]) -> str:
    words = [str(program["mode"])]
    for name in ("daily_dose", "concentration"):
        if name in program:
            words.append(f"{program[name]['value']} {program[name]['unit']}".replace("ug", "mcg"))
    return " ".join(words)


Check = Callable[[View], Iterator[OpenIssue]]
CHECKS: tuple[Check, ...] = (
    refill_is_due,
    service_ends,
    log_is_critical,
    stopped_for_long,
    scan_without_reading,
    full_before_scan,
    more_than_was_filled,
    discrepancy_at_refill,
    unbridged_concentration,
    program_and_reservoir,
    product_and_strength,
    expired_lot,
    unusual_strength,
    strength_for_the_model,
    low_alarm_is_low,
    bridge_as_recorded,
    unknown_path,
    deliverable,
    too_many_steps,
    boluses_fit_the_dose,
    bolus_not_permitted,
    unlimited_boluses,
    lockout_and_maximum,
    clock_changed,
    clock_is_off,
    dose_is_high,
    doubled,
    stopped_or_halved,
    step_is_large,
    steps_are_close,
    screenings_are_close,
    start_after_screening,
    oral_at_full_dose,
    too_soon_after_injury,
    implanted_with_infection,
    outside_its_use,
    second_pump,
    programs_chain,
)
