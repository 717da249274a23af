"""What a person should look at in the running program: whether this pump can give it, and its boluses.

One function a rule, in the table of `checks`. A model without a row in `models` gets no claim.
docs/clinical.md, "Rules".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mappings.envelope import occurred

from .derivation import shown
from .flow import DAYS, boluses_per_day
from .models import Model
from .reservoir import daily_dose, flow, rounded, span_days
from .state import CRITICAL, WARNING, OpenIssue
from .view import View


def deliverable(view: View) -> Iterator[OpenIssue]:
    """F1: a flow below or above what the model can give: the pump does not run such a program."""
    model = view.model
    if model is None or model.least_flow is None or model.greatest_flow is None:
        return
    for what, words, rate in _flows(view):
        least = _least(model, view.run.program["mode"], what)
        if least <= rate <= model.greatest_flow:
            continue
        bound = f"< {least}" if rate < least else f"> {model.greatest_flow}"
        reach = f"; at {least} mL/d it is {_dose_at(view, least)}" if rate < least else ""
        yield OpenIssue(
            "F1",
            WARNING,
            f"{what} needs {shown(rounded(rate, 6))} mL/d, a {model.name} gives {least} to "
            f"{model.greatest_flow} mL/d",
            f"{words} = {shown(rounded(rate, 6))} mL/d {bound} mL/d{reach}",
        )


def _least(model: Model, mode: str, what: str) -> Decimal:
    slow = mode == "minimum-rate" and what == "the program" and model.minimum_rate is not None
    least = model.minimum_rate if slow else model.least_flow
    assert least is not None
    return least


def _dose_at(view: View, rate: Decimal) -> str:
    strength = view.run.program["concentration"]["value"]
    return f"{shown(rounded(daily_dose(rate, strength), 2))} mcg/day of {shown(strength)} mcg/mL"


def _flows(view: View) -> Iterator[tuple[str, str, Fraction]]:
    """(what, its sum in words, mL/d) of each different flow that the program and its bridge ask for."""
    program = view.run.program
    if program is None or program["mode"] == "stopped":
        return
    strength = program["concentration"]["value"]
    dose = program["daily_dose"]["value"]
    per = f"/ {shown(strength)}"
    if program["mode"] == "flex":
        for number, step in enumerate(program["steps"], start=1):
            yield _bolus(f"step {number}", step, strength)
    elif program["mode"] == "periodic-bolus":
        bolus = program["periodic_bolus"]
        often = 1 / span_days(bolus["interval"])
        rest = Fraction(dose) - often * Fraction(bolus["dose"]["value"])
        words = f"({shown(dose)} - {shown(rounded(often, 4))} * {shown(bolus['dose']['value'])}) {per}"
        if rest >= 0:
            yield "the background", words, flow(rest, strength)
        if "duration" in bolus:
            yield _bolus("the periodic bolus", bolus, strength)
    else:
        yield "the program", f"{shown(dose)} {per}", flow(dose, strength)
    if "duration" in program.get("patient_bolus", {}):
        yield _bolus("the patient bolus", program["patient_bolus"], strength)
    bridge = view.run.bridge
    if bridge is not None and bridge.concentration is not None:
        yield "the bridge", f"{shown(dose)} / {shown(bridge.concentration)}", bridge.rate


def _bolus(what: str, given: Any, strength: Decimal) -> tuple[str, str, Fraction]:
    dose, days = given["dose"]["value"], span_days(given["duration"])
    span = f"{shown(given['duration']['value'])} {given['duration']['unit']}"
    return what, f"{shown(dose)} mcg in {span} / {shown(strength)}", flow(dose, strength) / days


def too_many_steps(view: View) -> Iterator[OpenIssue]:
    """F1: more flex steps in a day than the model has."""
    most = view.model.most_steps if view.model is not None else None
    steps = (view.run.program or {}).get("steps", ())
    if view.model is None or most is None or not steps:
        return
    number = max(sum(day in step.get("days", DAYS) for step in steps) for day in DAYS)
    if number > most:
        yield OpenIssue(
            "F1",
            WARNING,
            f"the program has {number} steps in a day, a {view.model.name} has at most {most}",
            f"{number} > {most}",
        )


def boluses_fit_the_dose(view: View) -> Iterator[OpenIssue]:
    """U3: periodic boluses that alone give more than the daily dose they are part of."""
    program = view.run.program or {}
    if program.get("mode") != "periodic-bolus":
        return
    bolus, dose = program["periodic_bolus"], program["daily_dose"]["value"]
    often = 1 / span_days(bolus["interval"])
    given = often * Fraction(bolus["dose"]["value"])
    if given > dose * (1 + view.thresholds.dose_tolerance):
        total = shown(rounded(given, 2))
        yield OpenIssue(
            "U3",
            WARNING,
            f"the periodic boluses give {total} mcg/day, more than the daily dose of {shown(dose)} mcg/day",
            f"{shown(rounded(often, 4))} * {shown(bolus['dose']['value'])} = {total} > {shown(dose)}",
        )


def bolus_not_permitted(view: View) -> Iterator[OpenIssue]:
    """F2: a patient bolus of baclofen on a model whose maker does not permit it."""
    if view.model is None or view.model.permits_patient_bolus is not False:
        return
    if "patient_bolus" in (view.run.program or {}):
        yield OpenIssue(
            "F2",
            CRITICAL,
            f"the program has a patient bolus, and the maker of {view.model.name} does not permit "
            "patient boluses of baclofen",
            "no sum",
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


def lockout_and_maximum(view: View) -> Iterator[OpenIssue]:
    """F2: a lockout so long that the maximum a day cannot be reached: one of both is wrong."""
    bolus = (view.run.program or {}).get("patient_bolus", {})
    if not {"lockout", "max_per_day"} <= bolus.keys():
        return
    most, hours = bolus["max_per_day"], span_days(bolus["lockout"]) * 24
    # The first one may be at the very beginning of the 24 h, so n of them need n - 1 lockouts.
    if (most - 1) * hours >= 24:
        shown_hours = shown(rounded(hours, 2))
        yield OpenIssue(
            "F2",
            WARNING,
            f"the patient bolus has a lockout of {shown_hours} h and a maximum of {most} a day, "
            "which do not fit in 24 h",
            f"({most} - 1) * {shown_hours} h = {shown(rounded((most - 1) * hours, 2))} h >= 24 h",
        )


def clock_changed(view: View) -> Iterator[OpenIssue]:
    """F3: a later record has another UTC offset than the flex program, whose steps do not follow."""
    program = view.run.programming
    if program is None or program["after"]["mode"] != "flex":
        return
    set_to = occurred(program)
    later = [e for e in view.of_type("refill", "interrogation") if occurred(e) > set_to]
    if not later or occurred(later[-1]).utcoffset() == set_to.utcoffset():
        return
    here = occurred(later[-1])
    moved = rounded(((here.utcoffset() or _NO) - (set_to.utcoffset() or _NO)) // _MINUTE * Fraction(1, 60), 2)
    yield OpenIssue(
        "F3",
        WARNING,
        f"the flex steps run on the clock of {program['occurred_at']}; {later[-1]['occurred_at']} has "
        "another offset: daylight saving time or travel moves the steps in local time",
        f"{here:%z} - {set_to:%z} = {shown(moved)} h",
    )


_NO, _MINUTE = timedelta(0), timedelta(minutes=1)
