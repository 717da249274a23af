"""How each derived value of a pump's state came about: the formula, with its numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from .models import model_of
from .reservoir import Thresholds, rounded
from .run import Run


def derivation(run: Run, facts: dict[str, Any], thresholds: Thresholds) -> dict[str, str]:
    """Value name -> words, for the values of `facts` that are known; formulas: docs/clinical.md, "Dosing"."""
    words = {
        **_of_program(run, facts),
        **_of_reservoir(run, facts, thresholds),
        **_of_pump(facts, thresholds),
        "path_volume": "V_path = implanted length * volume per length + pump tubing",
    }
    return {name: text for name, text in words.items() if facts.get(name) is not None}


def _of_program(run: Run, facts: dict[str, Any]) -> dict[str, str]:
    if run.programming is None:
        return {}
    program = run.program
    words = {"daily_dose": f"as programmed at {run.programming['occurred_at']}"}
    if "daily_dose" in program and "concentration" in program and program["mode"] != "stopped":
        dose, strength = program["daily_dose"]["value"], program["concentration"]["value"]
        mean = ", the mean of its steps over a week" if program["mode"] == "flex" else ""
        words["flow_rate"] = f"q = D / C = {shown(dose)} mcg/day / {shown(strength)} mcg/mL{mean}"
    else:
        words["flow_rate"] = f"q = 0: mode {program['mode']}"
    bolus = program.get("patient_bolus")
    if bolus is not None:
        words["worst_case_daily_dose"] = (
            f"D + n * bolus of {shown(bolus['dose']['value'])} mcg, n by max_per_day and lockout"
        )
    bridge = facts.get("bridge")
    if bridge is not None:
        words["bridge"] = (
            f"t = V / q = {bridge.volume} mL / {shown(bridge.flow_rate)} mL/d = {bridge.duration} h, "
            "with q = intended D / old C; drug = V * old C"
        )
    return words


def _of_reservoir(run: Run, facts: dict[str, Any], thresholds: Thresholds) -> dict[str, str]:
    if run.refill is None or run.volume is None:
        return {}
    fill, filled = run.refill["volume_instilled"]["value"], run.refill["occurred_at"]
    last = run.refill
    if run.programming is not None and run.programming["occurred_at"] != filled:
        last = run.programming
    then = f"{shown(rounded(run.volume, 4))} mL at the last refill or programming, then q dt on"
    passed = run.alarm is not None
    margin, stable = thresholds.refill_margin_days, thresholds.stability_days
    alarm = "the worst-case alarm date" if facts.get("alarm_at_worst_case") else "the alarm date"
    low = shown(rounded(run.alarm_volume, 4))
    words = {
        "concentration": f"as filled at {filled}",
        "reservoir_volume": f"V = V_fill - integral of q dt since {filled}: {shown(fill)} mL filled, {then}",
        "alarm_at": f"when V reaches {low} mL: {then}; cut to the second"
        if not passed
        else f"when V reached {low} mL, before {last['occurred_at']}; cut to the second",
        "alarm_at_worst_case": "as alarm_at, with every patient bolus that is allowed",
        "empty_at": f"when V reaches 0 mL: {then}; cut to the second",
        "stability_on": f"fill date + {stable} d",
        "refill_by": f"the earlier of {alarm} - {margin} d and fill date + {stable} d",
    }
    if run.residual is not None:
        words["last_refill"] = (
            f"expected = {shown(run.residual.fill)} mL - integral of q dt; discrepancy = actual - expected; "
            "ratio = (V_fill - actual) / (V_fill - expected)"
        )
    return words


def _of_pump(facts: dict[str, Any], thresholds: Thresholds) -> dict[str, str]:
    model = model_of(facts.get("device"), thresholds.models)
    words = {}
    if model is not None and facts.get("concentration") is not None:
        strength = f"mL/d of a {model.name} * {shown(facts['concentration'])} mcg/mL"
        words = {
            "least_daily_dose": f"D = q * C = {model.least_flow} {strength}",
            "greatest_daily_dose": f"D = q * C = {model.greatest_flow} {strength}",
        }
    limit = f"implant date + {model.service_years} years" if model is not None else ""
    days = model.indicator_days if model is not None else None
    eri = {
        "service-life": f"{limit} - {days} d",
        "interrogation": "as the newest interrogation forecasts; of a month its first day",
        "reported": "as the pump reported it, in its log, by an alarm or at an interrogation",
    }
    eos = {
        "service-life": limit,
        "interrogation": f"ERI as forecast + {days} d",
        "reported": f"ERI as reported + {days} d, or the day on which the pump reported its end of service",
    }
    return words | {
        "eri_on": eri.get(facts.get("eri_decided_by") or "", ""),
        "eos_on": eos.get(facts.get("eos_decided_by") or "", ""),
        "plan_replacement_by": f"ERI - {thresholds.replacement_notice_months} months",
    }


def shown(value: Any) -> str:
    """A number for people, without needless zeros, at most 6 places."""
    number = value if isinstance(value, Decimal) else rounded(value, 6)
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
