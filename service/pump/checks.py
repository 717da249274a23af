"""What a person should look at: advisory rules over a pump's state, one function a rule.

Rule ids and sources: docs/clinical.md, "Rules". None of them stops a record or a therapy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from fractions import Fraction

from mappings.envelope import occurred

from . import reservoir
from .derivation import shown
from .flow import boluses_per_day
from .reservoir import rounded
from .state import CRITICAL, WARNING, OpenIssue, PumpState
from .view import View


def open_issues(view: View) -> tuple[OpenIssue, ...]:
    """Every finding that is open, in the order of CHECKS."""
    return tuple(issue for check in CHECKS for issue in check(view))


def discrepancy_at_refill(view: View) -> Iterator[OpenIssue]:
    """R2: more or less was left than expected; patient boluses widen what is expected."""
    found, least = view.run.residual, view.worst.residual
    if found is None or least is None or found.actual is None:
        return
    expected = found.expected if found.actual > least.expected else least.expected
    if least.expected <= found.actual <= found.expected:
        return
    difference = reservoir.discrepancy(found.actual, expected)
    if abs(difference) <= view.thresholds.discrepancy_volume:
        return
    ratio = reservoir.delivery_ratio(found.fill, found.actual, expected)
    fill, actual, due = shown(found.fill), shown(found.actual), shown(rounded(expected, 4))
    which = "under-delivery: check catheter and pump" if difference > 0 else "over-delivery or drug lost"
    parts = f"{actual} mL - {due} mL = {shown(rounded(difference, 4))} mL"
    if ratio is not None:
        parts += f"; ({fill} - {actual}) / ({fill} - {due}) = {rounded(ratio, 3)}"
    yield OpenIssue(
        "R2",
        WARNING,
        f"at the refill {found.event['occurred_at']} {actual} mL were left, {due} mL expected: {which}",
        parts,
    )


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
    """C4: a bridge while the volume of the catheter is unknown."""
    facts = view.state.catheter or {}
    if view.run.bridge is None or {"implanted_length", "volume_per_length"} <= facts.keys():
        return
    yield OpenIssue(
        "C4",
        WARNING,
        "a bridge was programmed, but the catheter's implanted length or volume per length is not recorded",
        "V_path = implanted length * volume per length + pump tubing",
    )


def programs_chain(view: View) -> Iterator[OpenIssue]:
    """A programming found another program than the one recorded before it: a record is missing."""
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


def unlimited_boluses(view: View) -> Iterator[OpenIssue]:
    """F2: nothing limits the patient's boluses, so there is no worst case to reckon with."""
    if view.run.program is not None and boluses_per_day(view.run.program) is None:
        yield OpenIssue(
            "F2",
            WARNING,
            "the patient bolus has neither max_per_day nor lockout: the alarm date counts no boluses",
            "n is unknown",
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
    discrepancy_at_refill,
    unbridged_concentration,
    program_and_reservoir,
    bridge_as_recorded,
    unknown_path,
    unlimited_boluses,
    programs_chain,
)
