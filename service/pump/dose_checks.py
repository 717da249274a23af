"""What a person should look at in a change of dose: its size, its pace, its start and its end.

One function a rule, in the table of `checks`. A limit that depends on an age is not checked: no event
carries one. docs/clinical.md, "Rules".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from mappings.envelope import Event, occurred

from .derivation import shown
from .reservoir import percent_change, rounded, span_days, start_daily_dose
from .state import CRITICAL, WARNING, OpenIssue
from .view import View

DAY = timedelta(days=1)
CEREBRAL = ("cerebral-palsy", "traumatic-brain-injury", "stroke")
SPINAL = ("spinal-cord-injury",)


@dataclass(frozen=True, slots=True)
class DoseStep:
    """A programming that changed the daily dose, ug/d; `old` is None for the first one."""

    event: Event
    old: Decimal | None
    new: Decimal

    @property
    def raises(self) -> bool:
        """More than before, and not a start."""
        return bool(self.old) and self.old is not None and self.new > self.old

    @property
    def words(self) -> str:
        """From, to, and when."""
        start = f"from {shown(self.old)} " if self.old is not None else ""
        return f"the dose went {start}to {shown(self.new)} mcg/day at {self.event['occurred_at']}"


def dose_steps(view: View) -> list[DoseStep]:
    """Every change of the daily dose; a hold and the resumption of what ran before it are none."""
    found = []
    dose: Decimal | None = None
    held = False
    for event in view.of_type("dose-change"):
        if "hold" in event:
            held = True
            continue
        if "before" in event and not held:
            dose = _dose(event["before"])
        new = _dose(event["after"])
        if new != dose:
            found.append(DoseStep(event, dose, new))
        dose, held = new, False
    return found


def _dose(program: Any) -> Decimal:
    stopped = program["mode"] == "stopped" or "daily_dose" not in program
    return Decimal(0) if stopped else Decimal(program["daily_dose"]["value"])


def _latest(view: View) -> DoseStep | None:
    """The last change of dose, if no refill came after it: then somebody has seen the patient since."""
    steps = dose_steps(view)
    if not steps or (view.run.refill is not None and occurred(steps[-1].event) < occurred(view.run.refill)):
        return None
    return steps[-1]


def doubled(view: View) -> Iterator[OpenIssue]:
    """U2: a dose that was at least doubled."""
    step = _latest(view)
    if step is None or not step.old or step.new < view.thresholds.doubling * step.old:
        return
    ratio = rounded(step.new / step.old, 2)
    yield OpenIssue(
        "U2",
        CRITICAL,
        f"{step.words}, {shown(ratio)} times as much",
        f"{shown(step.new)} / {shown(step.old)} = {shown(ratio)} >= {view.thresholds.doubling}",
    )


def step_is_large(view: View) -> Iterator[OpenIssue]:
    """D3: an increase beyond what is published for its origin, or a decrease by more than a fifth."""
    step, limits = _latest(view), view.thresholds
    if step is None or not step.old or step.new >= limits.doubling * step.old:
        return
    if step.new * limits.doubling <= step.old:
        return  # D6 speaks
    origin, most = _increase_limit(view)
    percent = percent_change(step.old, step.new)
    if -limits.decrease_percent <= percent <= most:
        return
    bound = f"> {most} %, the most that is published for {origin}"
    if percent < 0:
        bound = f"< -{limits.decrease_percent} %"
    said = rounded(percent, 1)
    yield OpenIssue(
        "D3",
        WARNING,
        f"{step.words}: {said:+} %",
        f"({shown(step.new)} - {shown(step.old)}) / {shown(step.old)} * 100 = {said} % {bound}",
    )


def _increase_limit(view: View) -> tuple[str, Decimal]:
    causes = [e["indication"].get("cause") for e in view.of_type("evaluation")]
    cause = causes[-1] if causes else None
    if cause in CEREBRAL:
        return "spasticity of cerebral origin", view.thresholds.increase_percent_cerebral
    origin = "spasticity of spinal origin" if cause in SPINAL else "any origin"
    return origin, view.thresholds.increase_percent_spinal


def steps_are_close(view: View) -> Iterator[OpenIssue]:
    """D3: a second increase within 24 h, or an increase within 24 h of the implant."""
    step = _latest(view)
    if step is None or not step.raises:
        return
    raised = occurred(step.event)
    earlier = [s for s in dose_steps(view)[:-1] if s.raises]
    if earlier and raised - occurred(earlier[-1].event) < DAY:
        yield _close(step, earlier[-1].event["occurred_at"], "the increase before it")
    implanted = _implanted(view, raised)
    if implanted is not None:
        yield _close(step, implanted, "the implant")


def _close(step: DoseStep, since: str, what: str) -> OpenIssue:
    at = step.event["occurred_at"]
    return OpenIssue("D3", WARNING, f"{step.words}, within 24 h of {what}", f"{at} - {since} < 24 h")


def _implanted(view: View, raised: datetime) -> str | None:
    """When the pump was implanted, if that was less than 24 h before; a date counts on its own day only."""
    for event in reversed(view.of_type("procedure")):
        if event["action"] == "implant":
            soon = timedelta(0) <= raised - occurred(event) < DAY
            return str(event["occurred_at"]) if soon else None
    day = (view.state.device or {}).get("implanted_on")
    return str(day) if day == raised.date().isoformat() else None


def dose_is_high(view: View) -> Iterator[OpenIssue]:
    """D1: a daily dose, or one with every patient bolus, above what one reference advises."""
    state, limits = view.state, view.thresholds
    worst = state.worst_case_daily_dose
    dose = state.daily_dose if worst is None else worst
    if dose is None or dose <= limits.high_daily_dose:
        return
    what = "the daily dose" if dose == state.daily_dose else "the daily dose with every patient bolus"
    usual = f"; above {limits.usual_daily_dose} it is outside what is usually listed"
    beyond = dose > limits.usual_daily_dose
    yield OpenIssue(
        "D1",
        WARNING,
        f"{what} is {shown(dose)} mcg/day, above {limits.high_daily_dose}{usual if beyond else ''}",
        f"{shown(dose)} > {limits.usual_daily_dose if beyond else limits.high_daily_dose} mcg/day",
    )


def screenings_are_close(view: View) -> Iterator[OpenIssue]:
    """D5: a screening bolus less than 24 h after the one before."""
    trials = view.of_type("screening")
    for first, second in pairwise(trials):
        if occurred(second) - occurred(first) < DAY:
            at, since = second["occurred_at"], first["occurred_at"]
            why = f"the screening bolus of {at} was given less than 24 h after that of {since}"
            yield OpenIssue("D5", WARNING, why, f"{at} - {since} < 24 h")


def start_after_screening(view: View) -> Iterator[OpenIssue]:
    """D4: a first dose above what the screening allows, or after screenings without a response."""
    steps = dose_steps(view)
    replaces = view.other_pumps or any(e["action"] == "replacement" for e in view.of_type("procedure"))
    if len(steps) != 1 or steps[0].old is not None or replaces:
        return
    start = steps[0]
    trials = [e for e in view.of_type("screening") if occurred(e) <= occurred(start.event)]
    effective = [e for e in trials if e.get("responder")]
    if trials and not effective and all("responder" in e for e in trials):
        yield OpenIssue(
            "D4",
            WARNING,
            "the therapy was started, and no screening on record had a response",
            f"of {len(trials)} screening bolus{'es' if len(trials) > 1 else ''} 0 had a response",
        )
    allowed = [(_start_dose(view, e), e) for e in effective]
    if not allowed:
        return
    most, trial = max(allowed, key=lambda pair: pair[0])
    if start.new <= most:
        return
    bolus = shown(trial["bolus"]["value"])
    factor = shown(most / Fraction(trial["bolus"]["value"]))
    yield OpenIssue(
        "D4",
        WARNING,
        f"the first dose is {shown(start.new)} mcg/day, the screening of {bolus} mcg allows {shown(most)}",
        f"{shown(start.new)} > {factor} * {bolus} = {shown(most)} mcg/day",
    )


def _start_dose(view: View, trial: Event) -> Fraction:
    span = trial.get("effect_duration")
    long = span is not None and span_days(span) * 24 > view.thresholds.long_effect_hours
    return start_daily_dose(trial["bolus"]["value"], effect_over_8_h=long)


def stopped_or_halved(view: View) -> Iterator[OpenIssue]:
    """D6: a stop without a taper on record, or a dose that was at least halved."""
    steps = dose_steps(view)
    if not steps or not steps[-1].old or not view.state.in_use:
        return
    step = steps[-1]
    assert step.old is not None
    if not step.new:
        tapered = len(steps) > 1 and steps[-2].old is not None and steps[-2].new < steps[-2].old
        if not tapered:
            yield OpenIssue(
                "D6",
                CRITICAL,
                f"the pump was stopped at {step.event['occurred_at']} and no taper is recorded: "
                "sudden interruption can cause a withdrawal that kills",
                f"{shown(step.old)} mcg/day -> 0; the dose before was not a reduction",
            )
    elif _latest(view) is not None and step.new * view.thresholds.doubling <= step.old:
        share = shown(rounded(step.new / step.old, 2))
        yield OpenIssue(
            "D6",
            CRITICAL,
            f"{step.words}: a cut that can cause withdrawal",
            f"{shown(step.new)} / {shown(step.old)} = {share} <= 1 / {view.thresholds.doubling}",
        )


def oral_at_full_dose(view: View) -> Iterator[OpenIssue]:
    """K1: the pump's dose was raised while oral baclofen stands at its highest step."""
    step = _latest(view)
    if step is None or not step.raises:
        return
    today = view.state.at.date()
    for order in view.of_type("oral-baclofen"):
        now = _current_step(order, today)
        if now is None:
            continue
        full = max(s["dose"]["value"] * s["times_per_day"] for s in order["steps"])
        taken = now["dose"]["value"] * now["times_per_day"]
        if taken and taken == full:
            yield OpenIssue(
                "K1",
                WARNING,
                f"{step.words}, and oral baclofen is still at its full {shown(taken)} mg/day",
                f"{shown(now['dose']['value'])} mg * {now['times_per_day']} = {shown(taken)} mg/day, "
                f"the highest of {len(order['steps'])} steps",
            )


def _current_step(order: Event, today: date) -> Any:
    if "ended_on" in order and date.fromisoformat(order["ended_on"]) <= today:
        return None
    begun = [s for s in order["steps"] if date.fromisoformat(s["starts_on"]) <= today]
    if not begun or ("ends_on" in begun[-1] and date.fromisoformat(begun[-1]["ends_on"]) < today):
        return None
    return begun[-1]
