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
from .models import Model, model_of
from .reservoir import THRESHOLDS, Thresholds, rounded
from .run import Run, advance, alarm_day, empty_day, step
from .service_life import ServiceLife, service_life
from .state import BridgeState, PumpState, RefillCheck, to_json
from .view import View

__all__ = ["BESIDE", "PumpState", "current", "pump_state", "to_json"]

FOLDED = ("device", "interrogation", "refill", "procedure", "dose-change")
"""At one moment the device stands first, then what was read, filled, primed, and how the pump is set."""
BESIDE = ("evaluation", "screening", "oral-baclofen", "procedure", "device")
"""Records of the patient, or of another pump, that a pump's checks read too."""
ORDER = {type: place for place, type in enumerate(FOLDED)}

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
    kept = [e for e in newest.values() if not is_retracted(e) and occurred(e) <= at]
    return sorted(kept, key=lambda e: (occurred(e), ORDER.get(e["type"], len(ORDER)), *identity(e)))


def fold(events: Iterable[Event], thresholds: Thresholds, *, with_boluses: bool = False) -> Run:
    """The run after the ordered events."""
    run = Run()
    for event in events:
        run = step(run, event, thresholds, with_boluses=with_boluses)
    return run


def pump_state(
    events: Iterable[Event], at: datetime, thresholds: Thresholds = THRESHOLDS, *, pump: str | None = None
) -> PumpState:
    """The state at `at` (aware) of a pump, the last one that `events` name if not said; never raises.

    Events of the patient that name no pump, and of other pumps, may be among them: checks read them.
    Times are given in the offset of the pump's last record, cut to the second.
    """
    ordered = current(events, at)
    serial = pump or next((_serial(e) for e in reversed(ordered) if _serial(e)), None)
    told = [e for e in ordered if _serial(e) in (None, serial) or e.get("old_pump") == serial]
    folded = [e for e in told if e["type"] in FOLDED and _serial(e) in (None, serial)]
    run = fold(folded, thresholds)
    bolus = any("patient_bolus" in e["after"] for e in folded if e["type"] == "dose-change")
    worst = fold(folded, thresholds, with_boluses=True) if bolus else run
    zone = occurred(folded[-1]).tzinfo if folded else at.tzinfo
    device, catheter = _devices(folded)
    in_use = _in_use(device, told, serial, at)
    model = model_of(device, thresholds.models)
    facts: dict[str, Any] = {
        "pump": serial,
        "patient": told[-1]["patient"] if told else None,
        "device": device,
        "catheter": catheter,
        "in_use": in_use,
        "path_volume": _path_volume(model, catheter),
        **_programmed(run, at, zone),
        **_filled(run),
        **_deliverable(run, model),
    }
    life = ServiceLife()
    if in_use:
        life = service_life(device, model, told, thresholds)
        facts |= _dates(run, worst, at, zone, thresholds) | _service(life)
    state = PumpState(at=at, derivation=derivation(run, facts, thresholds), **facts)
    others = tuple((o, _used(o, ordered, at)) for o in _serials(ordered) if o != serial)
    view = View(state, run, worst, tuple(told), model, life, others, thresholds)
    return replace(state, open_issues=open_issues(view))


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


def _in_use(device: Any, told: list[Event], serial: str | None, at: datetime) -> bool:
    """What the last operation on the pump did decides, then what its device record says."""
    for event in reversed(told):
        if event["type"] == "procedure" and event["action"] != "revision":
            if event.get("old_pump") == serial or event["action"] == "explant":
                return False
            break
    if device is None or _stays(device):
        return True
    return str(device.get("explanted_on", "")) > at.date().isoformat()


def _serials(ordered: list[Event]) -> list[str]:
    """The pumps that have a device record."""
    return list(dict.fromkeys(str(e["serial"]) for e in ordered if e.get("kind") == "pump"))


def _used(serial: str, ordered: list[Event], at: datetime) -> bool:
    told = [e for e in ordered if _serial(e) == serial or e.get("old_pump") == serial]
    device, _ = _devices([e for e in told if _serial(e) == serial])
    return _in_use(device, told, serial, at)


def _path_volume(model: Model | None, catheter: Any) -> Decimal | None:
    """Catheter and pump tubing; None unless both are known."""
    tubing = model.tubing_volume if model is not None else None
    if tubing is None or not {"implanted_length", "volume_per_length"} <= (catheter or {}).keys():
        return None
    length, per_cm = catheter["implanted_length"]["value"], catheter["volume_per_length"]["value"]
    return rounded(reservoir.path_volume(reservoir.catheter_volume(length, per_cm), tubing), 4)


def _deliverable(run: Run, model: Model | None) -> dict[str, Any]:
    """The least and greatest daily dose that the model can give of what is in the reservoir."""
    if model is None or run.concentration is None or model.least_flow is None or model.greatest_flow is None:
        return {}
    return {
        "least_daily_dose": rounded(reservoir.daily_dose(model.least_flow, run.concentration), 2),
        "greatest_daily_dose": rounded(reservoir.daily_dose(model.greatest_flow, run.concentration), 2),
    }


def _service(life: ServiceLife) -> dict[str, Any]:
    eri, eri_by = life.eri or (None, None)
    eos, eos_by = life.eos or (None, None)
    return {
        "eri_on": eri,
        "eri_decided_by": eri_by,
        "eos_on": eos,
        "eos_decided_by": eos_by,
        "plan_replacement_by": life.plan_by,
    }


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
