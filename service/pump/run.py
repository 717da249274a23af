"""One step of a pump's history: what the reservoir holds and how it empties after the next event.

A refill takes out what is left and puts its own volume in; a programming changes the rate; after a
change of concentration a bridge gives the old drug at its own rate first (docs/clinical.md, "Dosing").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mappings.envelope import Event, occurred

from . import reservoir
from .flow import Flow, constant, days_until, flow_of, periods
from .reservoir import Thresholds

STILL = constant(Fraction(0))
PROGRAM_FACTS = ("mode", "daily_dose", "concentration", "steps", "patient_bolus", "periodic_bolus")
NAMED_FACTS = ("mode", "daily_dose", "concentration")


@dataclass(frozen=True, slots=True)
class Bridge:
    """Old drug on its way to the catheter tip: mL, mL/d, ug/mL, and the day numbers of start and end."""

    volume: Fraction
    rate: Fraction
    concentration: Decimal | None
    starts: Fraction
    ends: Fraction


@dataclass(frozen=True, slots=True)
class Residual:
    """What a refill found: mL filled before, expected and (where it was measured) actual."""

    event: Event
    fill: Fraction
    expected: Fraction
    actual: Fraction | None


@dataclass(frozen=True, slots=True)
class Run:
    """A pump just after an event, at day number `clock`; `volume` is None before the first refill."""

    clock: Fraction = Fraction(0)
    flow: Flow = STILL
    bridge: Bridge | None = None
    volume: Fraction | None = None
    alarm_volume: Fraction = Fraction(0)
    alarm: Fraction | None = None
    empty: Fraction | None = None
    concentration: Decimal | None = None
    programming: Event | None = None
    refill: Event | None = None
    residuals: tuple[Residual, ...] = ()
    """What each refill found, in order."""
    unbridged: tuple[Decimal, Decimal] | None = None
    missing_before: tuple[Event, Event] | None = None
    cut_bridge: Bridge | None = None
    counted_from: Fraction | None = None
    """When the pump's count of patient boluses was last read; None when what they draw changed since."""

    @property
    def residual(self) -> Residual | None:
        """What the last refill found, or None."""
        return self.residuals[-1] if self.residuals else None

    @property
    def program(self) -> Any:
        """The program that runs, or None."""
        return self.programming["after"] if self.programming is not None else None


def step(run: Run, event: Event, thresholds: Thresholds, *, with_boluses: bool = False) -> Run:
    """The run after a refill, dose change, interrogation or operation; nothing else changes the reservoir."""
    if event["type"] == "refill":
        return _refilled(advance(run, moment(event)), event, thresholds)
    if event["type"] == "dose-change":
        return _programmed(advance(run, moment(event)), event, with_boluses)
    if event["type"] == "interrogation":
        return _interrogated(advance(run, moment(event)), event, with_boluses)
    if event["type"] == "procedure" and "prime" in event:
        return _drawn(advance(run, moment(event)), Fraction(event["prime"]["volume"]["value"]))
    return run


def moment(event: Event) -> Fraction:
    """The day number of an event."""
    return reservoir.day_number(occurred(event))


def advance(run: Run, to: Fraction) -> Run:
    """The same run at a later day number, with the alarm and the emptying it passed on the way."""
    if run.volume is None or to <= run.clock:
        return replace(run, clock=max(to, run.clock))
    left = reservoir.expected_residual(run.volume, _rates(run, to))
    return replace(
        run,
        clock=to,
        volume=left,
        alarm=alarm_day(run) if left <= run.alarm_volume else None,
        empty=empty_day(run) if not left else None,
    )


def alarm_day(run: Run) -> Fraction | None:
    """The day number at which the reservoir reaches, or reached, the low-alarm volume."""
    return run.alarm if run.alarm is not None else _reach(run, run.alarm_volume)


def empty_day(run: Run) -> Fraction | None:
    """The day number at which the reservoir is, or was, empty."""
    return run.empty if run.empty is not None else _reach(run, Fraction(0))


def bridging(run: Run) -> Bridge | None:
    """The bridge, while it lasts."""
    return run.bridge if run.bridge is not None and run.clock < run.bridge.ends else None


def _rates(run: Run, to: Fraction) -> Iterator[tuple[Fraction, Fraction]]:
    start = run.clock
    bridge = bridging(run)
    if bridge is not None:
        end = min(to, bridge.ends)
        yield bridge.rate, end - start
        start = end
    yield from periods(run.flow, start, to)


def _reach(run: Run, level: Fraction) -> Fraction | None:
    if run.volume is None:
        return None
    volume, start = run.volume - level, run.clock
    bridge = bridging(run)
    if bridge is not None:
        given = bridge.rate * (bridge.ends - start)
        if volume <= given:
            return start + max(volume, Fraction(0)) / bridge.rate
        volume, start = volume - given, bridge.ends
    days = days_until(run.flow, start, volume)
    return start + days if days is not None else None


def _refilled(run: Run, event: Event, thresholds: Thresholds) -> Run:
    if "stopped_because" in event and run.volume is not None and run.refill is not None:
        return _broken_off(run, event)
    filled = Decimal(event["drug"]["concentration"]["value"])
    old = run.concentration
    residuals = run.residuals
    if run.volume is not None and run.refill is not None:
        actual = _value(event, "volume_removed")
        fill = Fraction(run.refill["volume_instilled"]["value"])
        found = Residual(event, fill, run.volume, Fraction(actual) if actual is not None else None)
        residuals = (*residuals, found)
    low = _value(event, "low_alarm_volume")
    changed = old is not None and old != filled and not _bridged(run, event, filled)
    return replace(
        run,
        volume=Fraction(event["volume_instilled"]["value"]),
        alarm_volume=Fraction(thresholds.low_alarm_volume if low is None else low),
        alarm=None,
        empty=None,
        concentration=filled,
        refill=event,
        residuals=residuals,
        unbridged=(old, filled) if changed and old is not None else None,
        missing_before=None,
        cut_bridge=None,
        counted_from=_still_counted(run),
    )


def _still_counted(run: Run) -> Fraction | None:
    """When a count that was read just now; an older one would mix what was drawn before and after."""
    return run.counted_from if run.counted_from == run.clock else None


def _drawn(run: Run, volume: Fraction) -> Run:
    """The run after `volume` mL left the reservoir at once: a prime, or boluses that were counted."""
    if run.volume is None:
        return run
    return replace(run, volume=max(run.volume - volume, Fraction(0)))


def _interrogated(run: Run, event: Event, with_boluses: bool) -> Run:
    """The boluses that were given since the last reading, where each of them is known to be of one size.

    The run `with_boluses` has counted every one that was allowed.
    """
    program = run.program or {"mode": "stopped"}
    bolus = program.get("patient_bolus") if program["mode"] != "stopped" else None
    given = event.get("patient_boluses", {}).get("delivered")
    if bolus is not None and given and run.counted_from is not None and not with_boluses:
        run = _drawn(run, given * reservoir.flow(bolus["dose"]["value"], program["concentration"]["value"]))
    return replace(run, counted_from=run.clock)


def _broken_off(run: Run, event: Event) -> Run:
    """A refill that was stopped: what was taken out is gone, what went in is added to the rest.

    With nothing instilled the drug is still that of the refill before.
    """
    assert run.volume is not None
    removed = Fraction(_value(event, "volume_removed") or 0)
    instilled = Fraction(event["volume_instilled"]["value"])
    volume = max(run.volume - removed, Fraction(0)) + instilled
    kept = replace(run, volume=volume, alarm=None, empty=None)
    if not instilled:
        return kept
    return replace(kept, concentration=Decimal(event["drug"]["concentration"]["value"]), refill=event)


def _bridged(run: Run, refill: Event, filled: Decimal) -> bool:
    """Whether the refill, or a programming for its concentration just before it, tells of a bridge."""
    ready = run.program is not None and _value(run.program, "concentration") == filled
    return "bridge" in refill or (ready and run.programming is not None and "bridge" in run.programming)


def _programmed(run: Run, event: Event, with_boluses: bool) -> Run:
    after, before = event["after"], event.get("before", run.program)
    new = _value(after, "concentration")
    old = _value(before, "concentration") if before is not None else None
    changed = old is not None and new is not None and old != new
    said = event.get("bridge")
    if said is None and changed and run.refill is not None and run.concentration == new:
        said = run.refill.get("bridge")
    unbridged = run.unbridged
    if said is not None:
        unbridged = None
    elif changed and old is not None and new is not None:
        unbridged = (old, new)
    bridge = _bridge(said, after, old, run.clock)
    running = bridging(run)
    same = run.program is not None and _facts(run.program, PROGRAM_FACTS) == _facts(after, PROGRAM_FACTS)
    cut = running if running is not None and bridge is None and not same else None
    missing = run.programming is not None and "before" in event
    missing = missing and _facts(event["before"], NAMED_FACTS) != _facts(run.program, NAMED_FACTS)
    return replace(
        run,
        flow=flow_of(after, occurred(event), with_boluses=with_boluses),
        bridge=bridge if bridge is not None or not same else run.bridge,
        programming=event,
        unbridged=unbridged,
        cut_bridge=cut or run.cut_bridge,
        missing_before=(run.programming, event) if missing and run.programming else run.missing_before,
        counted_from=run.counted_from if same else _still_counted(run),
    )


def _bridge(said: Any, after: Any, old: Decimal | None, starts: Fraction) -> Bridge | None:
    """The bridge at the intended new dose of old drug; at volume / duration where the old one is unknown."""
    if said is None or "volume" not in said or after["mode"] == "stopped":
        return None
    volume = Fraction(said["volume"]["value"])
    dose = after["daily_dose"]["value"]
    if old is not None and dose:
        rate = reservoir.flow(dose, old)
    elif "duration" in said:
        rate = volume / reservoir.span_days(said["duration"])
    else:
        return None
    return Bridge(volume, rate, old, starts, starts + reservoir.bridge_days(volume, rate))


def _facts(program: Any, names: tuple[str, ...]) -> list[Any]:
    return [program.get(name) for name in names]


def _value(holder: Any, name: str) -> Decimal | None:
    return Decimal(holder[name]["value"]) if name in holder else None
