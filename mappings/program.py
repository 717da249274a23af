"""The pump program: its schema, what is refused, and program ⇄ `MedicationRequest.dosageInstruction`.

All dosages of a program share `sequence` 1: flex steps repeat side by side every day, they are not
one after the other (R4 Dosage.sequence; docs/fhir.md, "Program").
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from .codes import DOSE_RATE_TYPE, MODE, MODES, baclofen, definition, extension, intrathecal
from .envelope import Strictly
from .fields import Code, Line, Part, Quantity, Whole, Words
from .limits import LIMITS, Limits
from .paths import Json, copy
from .rows import Codec, Derived, Group, Issue, Mapping, Refused, Row
from .values import TIME_SPAN, UG, UG_PER_D, UG_PER_ML_QUANTITY, read_ucum, shown, shown_quantity, ucum

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT = {day: number * 1440 for number, day in enumerate(DAYS)}
"""When each day begins, in minutes of the week."""
MINUTES = {"h": 60, "min": 1, "d": 1440}
SPAN = ("h", "min", "d")


class StepSchema(Strictly):
    """One flex step."""

    start = Line(required=True, pattern=r"([01]\d|2[0-3]):[0-5]\d", words="must be a pump clock time HH:MM")
    duration = Quantity(*SPAN, required=True, above_zero=True)
    dose = Quantity("ug", required=True)
    days = Words(*DAYS)


class PeriodicBolusSchema(Strictly):
    """A bolus the pump gives by itself, every `interval`."""

    dose = Quantity("ug", required=True, above_zero=True)
    duration = Quantity(*SPAN, above_zero=True)
    interval = Quantity(*SPAN, required=True, above_zero=True)


class PatientBolusSchema(Strictly):
    """A bolus the patient may ask the pump for."""

    dose = Quantity("ug", required=True, above_zero=True)
    duration = Quantity(*SPAN, above_zero=True)
    lockout = Quantity(*SPAN, above_zero=True)
    max_per_day = Whole(1, 1000)


class ProgramSchema(Strictly):
    """What the pump is set to do."""

    mode = Code(*MODES, required=True)
    daily_dose = Quantity("ug/d")
    concentration = Quantity("ug/mL", above_zero=True)
    steps = Part(StepSchema(), many=True)
    periodic_bolus = Part(PeriodicBolusSchema())
    patient_bolus = Part(PatientBolusSchema())


PROGRAM_SCHEMA = ProgramSchema()


def issues(program: Json, path: str, limits: Limits = LIMITS) -> list[Issue]:
    """What is wrong with a program as a whole; rule ids as in docs/clinical.md, "Rules"."""
    found = []
    mode = program["mode"]
    for field, needed in (
        ("daily_dose", mode != "stopped"),
        ("concentration", mode != "stopped"),
        ("steps", mode == "flex"),
        ("periodic_bolus", mode == "periodic-bolus"),
    ):
        if needed and field not in program:
            found.append(Issue(f"{path}.{field}", "required", f"is required in mode {mode}"))
        if field in ("steps", "periodic_bolus") and field in program and not needed:
            found.append(Issue(f"{path}.{field}", "mode", f"has no place in mode {mode}"))
    if mode == "stopped" and program.get("daily_dose", {}).get("value"):
        found.append(Issue(f"{path}.daily_dose", "mode", "a stopped pump gives nothing: leave it out or 0"))
    if not found:
        found.extend(_limit_issues(program, path, limits))
        if mode == "flex":
            found.extend(_flex_issues(program, path, limits))
    return found


def _limit_issues(program: Json, path: str, limits: Limits) -> list[Issue]:
    found = []
    if program["mode"] in ("simple", "flex", "periodic-bolus"):
        dose = program["daily_dose"]["value"]
        if not limits.daily_dose_min <= dose <= limits.daily_dose_max:
            why = f"{shown(dose)} ug/d is outside {limits.daily_dose_min} to {limits.daily_dose_max} ug/d"
            found.append(Issue(f"{path}.daily_dose", "U2", f"{why}: a mix-up of mg and ug?"))
    strength = program.get("concentration", {}).get("value")
    if strength is not None and not limits.concentration_min <= strength <= limits.concentration_max:
        why = f"{limits.concentration_min} to {limits.concentration_max} ug/mL"
        found.append(Issue(f"{path}.concentration", "C1", f"{shown(strength)} ug/mL is outside {why}"))
    return found


def _minutes(step: Json, days: tuple[str, ...]) -> list[tuple[int, Decimal | int]]:
    """(start, length) in minutes of the week, one for each day of the step, or of those `days`."""
    hour, minute = step["start"].split(":")
    length: Decimal | int = step["duration"]["value"] * MINUTES[step["duration"]["unit"]]
    if length == (whole := int(length)):
        length = whole  # nearly always, and then quick to add and compare
    start = int(hour) * 60 + int(minute)
    return [(MIDNIGHT[day] + start, length) for day in step.get("days", days)]


def _flex_issues(program: Json, path: str, limits: Limits) -> list[Issue]:
    """F1: the steps must cover the pump's week exactly once; U3: they must add up to the daily dose."""
    found = []
    steps = program["steps"]
    # Where every day is the same, the second one says whether the first ends when it began.
    days = DAYS if any("days" in step for step in steps) else DAYS[:2]
    spans = sorted([span for step in steps for span in _minutes(step, days)])
    at: Decimal | int = spans[0][0]
    for start, length in spans:
        if start != at:
            word = "overlap" if start < at else "leave a gap"
            found.append(Issue(f"{path}.steps", "F1", f"the steps {word} at {_clock(start)}"))
            break
        at = start + length
    else:
        if at - spans[0][0] != len(days) * 1440:
            found.append(Issue(f"{path}.steps", "F1", "the steps must cover 24 h of every day exactly once"))
    weekly = sum((s["dose"]["value"] * len(s.get("days", DAYS)) for s in steps), Decimal(0))
    said = program["daily_dose"]["value"]
    if abs(weekly - said * 7) > said * 7 * limits.dose_tolerance:
        given = shown((weekly / 7).quantize(Decimal("0.01")))
        why = f"the steps give {given} ug/d, daily_dose says {shown(said)}"
        found.append(Issue(f"{path}.daily_dose", "U3", why))
    return found


def _clock(minute: int) -> str:
    return f"{DAYS[minute // 1440 % 7]} {minute % 1440 // 60:02}:{minute % 60:02}"


def mean_rate(program: Json) -> Json:
    """The 24 h total as a Ratio, true for every mode: `264 ug : 1 d` (docs/fhir.md, "Segments")."""
    return {"numerator": ucum(program["daily_dose"]["value"], "ug"), "denominator": ucum(1, "d")}


def medication(program: Json) -> Json:
    """The drug in words and code: baclofen of this concentration, for the spinal fluid."""
    from_strength = f" {shown_quantity(program['concentration'])}" if "concentration" in program else ""
    return baclofen() | {"text": f"baclofen{from_strength} intrathecal solution"}


def summary(program: Json) -> str:
    """One line for people."""
    mode = program["mode"]
    if mode == "stopped":
        return "Pump stopped: nothing is given"
    dose = shown_quantity(program["daily_dose"])
    if mode == "flex":
        return f"FLEX {dose}; steps in MedicationRequest; rateRatio is the 24 h total, not an hourly rate"
    names = {
        "simple": "Simple continuous",
        "minimum-rate": "Minimum rate",
        "periodic-bolus": "PERIODIC BOLUS",
    }
    tail = "; rateRatio is the 24 h total, not an hourly rate" if mode == "periodic-bolus" else ""
    return f"{names[mode]} {dose}{tail}"


def _ordered(dose: Json) -> Json:
    return {
        "type": {"coding": [{"system": DOSE_RATE_TYPE, "code": "ordered"}]},
        "doseQuantity": UG.to_fhir(dose),
    }


def _repeat(span: Json) -> Json:
    return {"duration": span["value"], "durationUnit": span["unit"]}


def _span(repeat: Json) -> Json:
    unit = repeat.pop("durationUnit")
    if unit not in SPAN:
        raise Refused("unit", f"a duration in {unit!r} is not carried")
    return {"value": Decimal(repeat.pop("duration")), "unit": unit}


STEP_NUMBER = definition("itb-step-number")
LOCKOUT = definition("itb-bolus-lockout")
MAX_PER_DAY = definition("itb-bolus-max-per-day")


def _continuous(program: Json) -> Json:
    return {
        "sequence": 1,
        "text": summary(program),
        "route": intrathecal(),
        "doseAndRate": [{"rateRatio": mean_rate(program)}],
    }


def _step_out(number: int, step: Json) -> Json:
    days = f" on {', '.join(step['days'])}" if "days" in step else ""
    span = shown_quantity(step["duration"])
    repeat = _repeat(step["duration"])
    if "days" in step:
        repeat["dayOfWeek"] = list(step["days"])
    repeat["timeOfDay"] = [f"{step['start']}:00"]
    calculated = {
        "type": {"coding": [{"system": DOSE_RATE_TYPE, "code": "calculated"}]},
        "rateRatio": {
            "numerator": ucum(step["dose"]["value"], "ug"),
            "denominator": ucum(step["duration"]["value"], step["duration"]["unit"]),
        },
    }
    return {
        "extension": [{"url": STEP_NUMBER, "valuePositiveInt": number}],
        "sequence": 1,
        "text": f"Step {number}: {shown_quantity(step['dose'])} over {span} from {step['start']}{days}",
        "timing": {"repeat": repeat},
        "route": intrathecal(),
        "doseAndRate": [_ordered(step["dose"]), calculated],
    }


def _step_in(dosage: Json) -> Json:
    repeat = dosage["timing"]["repeat"]
    times = repeat["timeOfDay"]
    if len(times) != 1 or not times[0].endswith(":00"):
        raise Refused("time", "a step starts at one time of day, on a full minute")
    step: Json = {"start": times[0][:-3], "duration": _span(repeat), "dose": _dose(dosage)}
    if "dayOfWeek" in repeat:
        step["days"] = repeat["dayOfWeek"]
    return step


def _dose(dosage: Json) -> Json:
    for item in dosage["doseAndRate"]:
        if "doseQuantity" in item:
            return read_ucum(item["doseQuantity"], "ug")
    raise Refused("dose", "a step or bolus needs a doseQuantity")


def _periodic_out(bolus: Json) -> Json:
    every = shown_quantity(bolus["interval"])
    repeat: Json = _repeat(bolus["duration"]) if "duration" in bolus else {}
    period = {"frequency": 1, "period": bolus["interval"]["value"], "periodUnit": bolus["interval"]["unit"]}
    return {
        "sequence": 1,
        "text": f"Bolus {shown_quantity(bolus['dose'])} every {every}",
        "timing": {"repeat": repeat | period},
        "route": intrathecal(),
        "doseAndRate": [_ordered(bolus["dose"])],
    }


def _periodic_in(dosage: Json) -> Json:
    repeat = dosage["timing"]["repeat"]
    bolus = {"dose": _dose(dosage)}
    if "duration" in repeat:
        bolus["duration"] = _span(repeat)
    if repeat["frequency"] != 1 or repeat["periodUnit"] not in SPAN:
        raise Refused("timing", "a periodic bolus is given once each period, in h, min or d")
    bolus["interval"] = {"value": Decimal(repeat["period"]), "unit": repeat["periodUnit"]}
    return bolus


def _patient_bolus_out(bolus: Json) -> Json:
    words = [f"Patient bolus {shown_quantity(bolus['dose'])}"]
    extensions: list[Json] = []
    dosage: Json = {"sequence": 1}
    if "lockout" in bolus:
        extensions.append({"url": LOCKOUT, "valueDuration": TIME_SPAN.to_fhir(bolus["lockout"])})
        words.append(f"lockout {shown_quantity(bolus['lockout'])}")
    if "max_per_day" in bolus:
        extensions.append({"url": MAX_PER_DAY, "valuePositiveInt": bolus["max_per_day"]})
        words.append(f"max {bolus['max_per_day']}/day")
        most = ucum(bolus["dose"]["value"] * bolus["max_per_day"], "ug")
        dosage["maxDosePerPeriod"] = {"numerator": most, "denominator": ucum(24, "h")}
    if extensions:
        dosage["extension"] = extensions
    if "duration" in bolus:
        dosage["timing"] = {"repeat": _repeat(bolus["duration"])}
    return dosage | {
        "text": ", ".join(words),
        "asNeededBoolean": True,
        "route": intrathecal(),
        "doseAndRate": [_ordered(bolus["dose"])],
    }


def _patient_bolus_in(dosage: Json) -> Json:
    bolus = {"dose": _dose(dosage)}
    repeat = dosage.get("timing", {}).get("repeat", {})
    if "duration" in repeat:
        bolus["duration"] = _span(repeat)
    for item in dosage.get("extension", []):
        if item["url"] == LOCKOUT:
            bolus["lockout"] = TIME_SPAN.from_fhir(item["valueDuration"])
        elif item["url"] == MAX_PER_DAY:
            bolus["max_per_day"] = item["valuePositiveInt"]
    return bolus


def _dosages_out(program: Json) -> Json:
    mode = program["mode"]
    if mode == "stopped":
        dosages = []
    elif mode == "flex":
        dosages = [_step_out(n, step) for n, step in enumerate(program["steps"], start=1)]
    elif mode == "periodic-bolus":
        dosages = [_continuous(program), _periodic_out(program["periodic_bolus"])]
    else:
        dosages = [_continuous(program)]
    if "patient_bolus" in program:
        dosages.append(_patient_bolus_out(program["patient_bolus"]))
    return {"dosageInstruction": dosages} if dosages else {}


def _step_number(dosage: Json) -> int:
    return next((e["valuePositiveInt"] for e in dosage.get("extension", []) if e["url"] == STEP_NUMBER), 0)


def _dosages_in(found: Json) -> Json:
    """The program's parts; what a dosage says must be just what we would write for them."""
    dosages: list[Json] = copy(found.pop("dosageInstruction", []))
    program: Json = {}
    steps = []
    for dosage in dosages:
        repeat = dosage.get("timing", {}).get("repeat", {})
        if dosage.get("asNeededBoolean"):
            program["patient_bolus"] = _patient_bolus_in(dosage)
        elif "timeOfDay" in repeat:
            steps.append((_step_number(dosage), dosage))
        elif "period" in repeat:
            program["periodic_bolus"] = _periodic_in(dosage)
        elif "rateRatio" not in dosage["doseAndRate"][0]:
            raise Refused("rate-unit", "a continuous program needs a rateRatio of ug per 1 d")
    if steps:
        program["steps"] = [_step_in(dosage) for _, dosage in sorted(steps, key=lambda pair: pair[0])]
    return program


def _plain(value: Any) -> Any:
    """A dosage without its words: what counts when two are compared."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in ("text", "display", "boundsPeriod", "id")}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def dosage_issues(program: Json, resource: Json) -> list[Issue]:
    """U3: the dosages of `resource` must say what this program says, not another rate or sum."""
    wanted = [_plain(d) for d in _dosages_out(program).get("dosageInstruction", [])]
    said = [_plain(d) for d in resource.get("dosageInstruction", [])]
    for dosage in [*wanted, *said]:
        if not dosage.get("timing", {}).get("repeat", True):
            dosage.pop("timing")
    if said == wanted:
        return []
    at = next((i for i, pair in enumerate(zip(said, wanted, strict=False)) if pair[0] != pair[1]), 0)
    path = f"{resource['resourceType']}.dosageInstruction[{at}]"
    return [Issue(path, "U3", "does not agree with the program's mode, daily dose and steps")]


PROGRAM = Mapping(
    Row("mode", extension("itb-infusion-mode", "valueCodeableConcept"), MODE, required=True),
    Row("daily_dose", extension("itb-daily-dose", "valueQuantity"), UG_PER_D),
    Row("concentration", extension("itb-concentration", "valueQuantity"), UG_PER_ML_QUANTITY),
    Group(
        ("mode", "daily_dose", "steps", "periodic_bolus", "patient_bolus"),
        ("dosageInstruction",),
        Codec(_dosages_out, _dosages_in),
    ),
    Derived("medicationCodeableConcept", medication),
)
"""The rows of a MedicationRequest that hold the program itself."""
