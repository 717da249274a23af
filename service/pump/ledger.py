"""What a pump's events add up to at a moment: `pump_state`, a fold over them in their own order.

The order in which events arrived does not matter, nor does it whether one was right at once or was
corrected: the same current events give the same state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mappings.envelope import Event, identity, is_retracted, occurred, version

from . import reservoir
from .checks import open_issues
from .derivation import derivation
from .flow import boluses_per_day
from .reservoir import THRESHOLDS, Thresholds, rounded
from .run import Run, advance, alarm_day, empty_day, step
from .state import BridgeState, PumpState, RefillCheck, to_json

__all__ = ["PumpState", "current", "pump_state", "to_json"]

ORDER = {"device": 0, "refill": 1, "dose-change": 2}
"""At one moment the device stands first, then what it is filled with, then how it is set."""

DEVICE_FACTS = (
    "manufacturer",
    "model",
    "serial",
    "lot",
    "udi",
    "device_status",
    "implanted_on",
    "explanted_on",
    "reservoir_capacity",
    "implanted_length",
    "volume_per_length",
    "tip_level",
)


def current(events: Iterable[Event], at: datetime) -> list[Event]:
    """The newest version of each record, without those entered in error or after `at`, in order."""
    newest: dict[tuple[str, str], Event] = {}
    for event in events:
        known = newest.get(identity(event))
        if known is None or version(event) >= version(known):
            newest[identity(event)] = event
    kept = [e for e in newest.values() if e["type"] in ORDER and not is_retracted(e) and occurred(e) <= at]
    return sorted(kept, key=lambda e: (occurred(e), ORDER[e["type"]], *identity(e)))


def fold(events: Iterable[Event], thresholds: Thresholds, *, with_boluses: bool = False) -> Run:
    """The run after the ordered events."""
    run = Run()
    for event in events:
        run = step(run, event, thresholds, with_boluses=with_boluses)
    return run


def pump_state(events: Iterable[Event], at: datetime, thresholds: Thresholds = THRESHOLDS) -> PumpState:
    """The state at `at` (aware) of the one pump that `events` are about; never raises on odd histories.

    Times are given in the offset of the pump's last record, cut to the second.
    """
    ordered = current(events, at)
    run = fold(ordered, thresholds)
    bolus = any("patient_bolus" in e["after"] for e in ordered if e["type"] == "dose-change")
    worst = fold(ordered, thresholds, with_boluses=True) if bolus else run
    zone = occurred(ordered[-1]).tzinfo if ordered else at.tzinfo
    pump, catheter = _devices(ordered)
    in_use = _in_use(pump, at)
    facts: dict[str, Any] = {
        "pump": next((_serial(e) for e in reversed(ordered) if _serial(e)), None),
        "patient": ordered[-1]["patient"] if ordered else None,
        "device": pump,
        "catheter": catheter,
        "in_use": in_use,
        "path_volume": _path_volume(pump, catheter, thresholds),
        **_programmed(run, at, zone),
        **_filled(run),
    }
    if in_use:
        facts |= _dates(run, worst, at, zone, thresholds)
    state = PumpState(at=at, derivation=derivation(run, facts, thresholds), **facts)
    return replace(state, open_issues=open_issues(state, run, worst, thresholds))


def _serial(event: Event) -> str | None:
    return event.get("pump") or (event.get("serial") if event.get("kind") == "pump" else event.get("parent"))


def _devices(ordered: list[Event]) -> tuple[Any, Any]:
    """(pump, catheter): the newest record of each, on top of what older records of the same one say.

    A catheter that was explanted gives way to one that was not.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in ordered:
        if event["type"] == "device":
            key = (event["kind"], event.get("serial") or "/".join(identity(event)))
            facts = {name: event[name] for name in DEVICE_FACTS if name in event}
            found[key] = found.pop(key, {}) | facts
    pumps = [facts for (kind, _), facts in found.items() if kind == "pump"]
    catheters = [facts for (kind, _), facts in found.items() if kind == "catheter"]
    active = [c for c in catheters if _stays(c)] or catheters
    return pumps[-1] if pumps else None, active[-1] if active else None


def _stays(device: Any) -> bool:
    return device.get("device_status") != "inactive" and "explanted_on" not in device


def _in_use(pump: Any, at: datetime) -> bool:
    if pump is None or _stays(pump):
        return True
    return str(pump.get("explanted_on", "")) > at.date().isoformat()


def _path_volume(pump: Any, catheter: Any, thresholds: Thresholds) -> Decimal | None:
    """Catheter and pump tubing; None unless both are known."""
    model = (pump or {}).get("model", "")
    tubing = next((v for start, v in thresholds.tubing_volume if model.startswith(start)), None)
    if tubing is None or not {"implanted_length", "volume_per_length"} <= (catheter or {}).keys():
        return None
    length, per_cm = catheter["implanted_length"]["value"], catheter["volume_per_length"]["value"]
    return rounded(reservoir.path_volume(reservoir.catheter_volume(length, per_cm), tubing), 4)


def _programmed(run: Run, at: datetime, zone: tzinfo | None) -> dict[str, Any]:
    if run.programming is None:
        return {}
    program = run.program
    dose = program.get("daily_dose", {"value": Decimal(0)})["value"]
    most = boluses_per_day(program)
    worst = None
    if "patient_bolus" in program and most is not None:
        bolus = program["patient_bolus"]["dose"]["value"]
        worst = rounded(reservoir.worst_case_daily_dose(dose, bolus, most), 2)
    return {
        "program": program,
        "programmed_at": run.programming["occurred_at"],
        "flow_rate": rounded(run.flow.mean, 6),
        "daily_dose": rounded(dose, 2),
        "worst_case_daily_dose": worst,
        "bridge": _bridge(run, at, zone),
    }


def _bridge(run: Run, at: datetime, zone: tzinfo | None) -> BridgeState | None:
    bridge = run.bridge
    if bridge is None:
        return None
    drug = None
    if bridge.concentration is not None:
        drug = rounded(reservoir.bridge_drug(bridge.volume, bridge.concentration), 2)
    return BridgeState(
        volume=rounded(bridge.volume, 4),
        flow_rate=rounded(bridge.rate, 6),
        duration=rounded((bridge.ends - bridge.starts) * reservoir.HOURS_PER_DAY, 2),
        drug=drug,
        starts_at=reservoir.moment_of(bridge.starts, zone),
        ends_at=reservoir.moment_of(bridge.ends, zone),
        running=reservoir.day_number(at) < bridge.ends,
    )


def _filled(run: Run) -> dict[str, Any]:
    if run.refill is None:
        return {}
    return {
        "concentration": run.concentration,
        "low_alarm_volume": rounded(run.alarm_volume, 4),
        "last_refill_at": run.refill["occurred_at"],
        "last_refill": _check(run),
    }


def _check(run: Run) -> RefillCheck | None:
    found = run.residual
    if found is None:
        return None
    expected = rounded(found.expected, 4)
    if found.actual is None:
        return RefillCheck(expected, None, None, None)
    ratio = reservoir.delivery_ratio(found.fill, found.actual, found.expected)
    return RefillCheck(
        expected_residual=expected,
        actual_residual=rounded(found.actual, 4),
        discrepancy=rounded(reservoir.discrepancy(found.actual, found.expected), 4),
        delivery_ratio=rounded(ratio, 3) if ratio is not None else None,
    )


def _dates(run: Run, worst: Run, at: datetime, zone: tzinfo | None, thresholds: Thresholds) -> dict[str, Any]:
    """Volume and dates; the refill date reckons with every patient bolus that may be asked for."""
    if run.refill is None:
        return {}
    zone = max(occurred(e) for e in (run.refill, run.programming) if e is not None).tzinfo
    filled = occurred(run.refill)

    def when(day: Fraction | None) -> datetime | None:
        beyond = day is None or day - run.clock > thresholds.horizon_days
        return None if beyond or day is None else reservoir.moment_of(day, zone)

    alarm, soonest = when(alarm_day(run)), when(alarm_day(worst))
    due, decided_by = reservoir.refill_by(soonest, filled.date(), thresholds)
    now = advance(run, reservoir.day_number(at))
    return {
        "reservoir_volume": rounded(now.volume, 4) if now.volume is not None else None,
        "alarm_at": alarm,
        "alarm_at_worst_case": soonest if worst is not run else None,
        "empty_at": when(empty_day(run)),
        "stability_on": reservoir.later_on(filled.date(), thresholds.stability_days),
        "refill_by": due,
        "refill_by_decided_by": decided_by,
    }
