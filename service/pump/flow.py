"""How fast a program empties the reservoir at each moment: a rate, or a cycle of rates for flex.

A flex schedule repeats on the pump's own clock, which was set when it was programmed and does not
follow daylight saving time (docs/clinical.md, "Dosing"): the offset of the programming is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cached_property
from typing import Any

from . import reservoir

Program = dict[str, Any]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = 7
THURSDAY = DAYS.index("thu")  # 1970-01-01, day number 0, was one


@dataclass(frozen=True)
class Flow:
    """Rates that repeat: (days, mL/d) stretches, of which the first one starts at day number `origin`."""

    cycle: tuple[tuple[Fraction, Fraction], ...]
    origin: Fraction = Fraction(0)

    @cached_property
    def length(self) -> Fraction:
        """Days of one cycle."""
        return sum((days for days, _ in self.cycle), Fraction(0))

    @cached_property
    def mean(self) -> Fraction:
        """Mean mL/d."""
        return sum((days * rate for days, rate in self.cycle), Fraction(0)) / self.length


def constant(rate: Fraction) -> Flow:
    """One rate for good."""
    return Flow(((Fraction(1), rate),))


def flow_of(program: Program, programmed_at: datetime, *, with_boluses: bool = False) -> Flow:
    """The flow of a program; `with_boluses` adds every patient bolus the program allows."""
    extra = boluses_per_day(program) if with_boluses else None
    if program["mode"] == "stopped":
        return constant(Fraction(0))
    strength = program["concentration"]["value"]
    more = (
        reservoir.flow(extra * Fraction(program["patient_bolus"]["dose"]["value"]), strength) if extra else 0
    )
    if program["mode"] != "flex":
        return constant(reservoir.flow(program["daily_dose"]["value"], strength) + more)
    return _flex(program, programmed_at, more)


def _flex(program: Program, programmed_at: datetime, more: Fraction | int) -> Flow:
    strength = program["concentration"]["value"]
    stretches: list[tuple[Fraction, Fraction, Fraction]] = []
    for step in program["steps"]:
        hour, minute = step["start"].split(":")
        start = Fraction(int(hour) * 60 + int(minute), 1440)
        length = reservoir.span_days(step["duration"])
        rate = reservoir.flow(step["dose"]["value"], strength) / length + more
        stretches.extend((DAYS.index(day) + start, length, rate) for day in step.get("days", DAYS))
    stretches.sort()
    offset = Fraction((programmed_at.utcoffset() or timedelta(0)) // timedelta(seconds=1), 86_400)
    monday = (reservoir.day_number(programmed_at) + offset) // WEEK * WEEK - THURSDAY - offset
    return Flow(tuple((length, rate) for _, length, rate in stretches), monday + stretches[0][0])


def boluses_per_day(program: Program) -> Fraction | None:
    """How many boluses a patient may ask for a day; None where nothing limits them."""
    bolus = program.get("patient_bolus")
    if bolus is None:
        return Fraction(0)
    limits = []
    if "max_per_day" in bolus:
        limits.append(Fraction(bolus["max_per_day"]))
    if "lockout" in bolus:
        limits.append(1 / reservoir.span_days(bolus["lockout"]))
    return min(limits) if limits else None


def periods(flow: Flow, start: Fraction, end: Fraction) -> Iterator[tuple[Fraction, Fraction]]:
    """The (mL/d, d) of the flow between two day numbers; whole cycles come as one at the mean rate."""
    if end <= start:
        return
    whole = (end - start) // flow.length
    if whole:
        yield flow.mean, whole * flow.length
    start += whole * flow.length
    for days, rate in _from(flow, start):
        if start >= end:
            return
        yield rate, min(days, end - start)
        start += days


def days_until(flow: Flow, start: Fraction, volume: Fraction) -> Fraction | None:
    """Days from day number `start` until `volume` has flowed; None when it never does."""
    if volume <= 0:
        return Fraction(0)
    if not flow.mean:
        return None
    in_cycle = flow.mean * flow.length
    whole = -(-volume // in_cycle) - 1  # the last cycle is walked: its end may stand still
    left = volume - whole * in_cycle
    gone = Fraction(whole) * flow.length
    for days, rate in _from(flow, start):
        if rate * days >= left:
            return gone + left / rate
        left -= rate * days
        gone += days
    raise AssertionError("a cycle gives its own volume")


def _from(flow: Flow, start: Fraction) -> Iterator[tuple[Fraction, Fraction]]:
    """The stretches of one cycle, from `start` on round to `start`."""
    into = (start - flow.origin) % flow.length
    before = Fraction(0)
    for index, (days, rate) in enumerate(flow.cycle):
        if into < before + days:
            yield before + days - into, rate
            yield from flow.cycle[index + 1 :]
            yield from flow.cycle[:index]
            yield into - before, rate
            return
        before += days
