"""Oral baclofen beside the pump: an order in steps, usually a taper, in milligrams.

The only event in mg: a thousand times the pump's unit (docs/clinical.md, "Words"). Its steps follow one
another, so their `sequence` counts up, unlike a pump's flex steps (docs/fhir.md, "Oral baclofen").
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from .codes import BACLOFEN, DOSE_RATE_TYPE, ORAL, bare, local
from .envelope import Envelope, Event, Recorded, Strictly
from .fields import Day, Part, Prose, Quantity, Whole
from .paths import Json, copy
from .rows import Always, Codec, Group, Issue, Mapping, Refused, Row
from .shared_rows import REQUESTER, SUBJECT, VERIFIER, VERSION, claim, event_status, key
from .sources import Sources
from .telling import Telling
from .values import MG, PERSON, shown_quantity


class OralStepSchema(Strictly):
    """One step: a dose, how often a day, and from when."""

    dose = Quantity("mg", required=True)
    times_per_day = Whole(1, 24, required=True)
    starts_on = Day(required=True)
    ends_on = Day()


class OralBaclofenSchema(Recorded, Envelope):
    """An order of oral baclofen; `ended_on` when all of it is over."""

    steps = Part(OralStepSchema(), many=True, required=True)
    ended_on = Day()
    reason = Prose()


SCHEMA = OralBaclofenSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole: the steps must follow one another."""
    found = []
    before: Json = None
    for index, step in enumerate(event["steps"]):
        path = f"steps[{index}]"
        if step.get("ends_on", step["starts_on"]) < step["starts_on"]:
            found.append(Issue(f"{path}.ends_on", "order", "lies before starts_on"))
        if before is not None and before.get("ends_on", before["starts_on"]) > step["starts_on"]:
            found.append(Issue(f"{path}.starts_on", "order", "lies before the end of the step before it"))
        before = step
    return found


def daily_dose(step: Json) -> Decimal:
    """mg a day of one step."""
    return Decimal(step["dose"]["value"] * step["times_per_day"])


def _step_out(number: int, step: Json) -> Json:
    period = {"start": step["starts_on"]} | ({"end": step["ends_on"]} if "ends_on" in step else {})
    total = shown_quantity({"value": daily_dose(step), "unit": "mg/d"})
    return {
        "sequence": number,
        "text": f"{shown_quantity(step['dose'])}, {step['times_per_day']} times a day ({total})",
        "timing": {
            "repeat": {
                "boundsPeriod": period,
                "frequency": step["times_per_day"],
                "period": 1,
                "periodUnit": "d",
            }
        },
        "route": copy(ORAL),
        "doseAndRate": [{"type": bare(DOSE_RATE_TYPE, "ordered"), "doseQuantity": MG.to_fhir(step["dose"])}],
    }


def _step_in(dosage: Json) -> Json:
    repeat = dosage["timing"]["repeat"]
    if repeat.get("period", 1) != 1 or repeat.get("periodUnit", "d") != "d":
        raise Refused("timing", "a step is taken so many times in 1 d")
    bounds = repeat["boundsPeriod"]
    step = {
        "dose": MG.from_fhir(dosage["doseAndRate"][0]["doseQuantity"]),
        "times_per_day": repeat["frequency"],
        "starts_on": bounds["start"],
    }
    return step | ({"ends_on": bounds["end"]} if "end" in bounds else {})


def _steps_out(found: Json) -> Json:
    return {"dosageInstruction": [_step_out(n, step) for n, step in enumerate(found["steps"], start=1)]}


def _steps_in(found: Json) -> Json:
    dosages = found.pop("dosageInstruction", [])
    steps = [_step_in(d) for d in sorted(dosages, key=lambda dosage: dosage["sequence"])]
    return {"steps": steps} if steps else {}


def _state_out(found: Json) -> Json:
    ended = "ended_on" in found
    made = {"status": event_status(found, "stopped" if ended else "active")}
    return made | ({"dispenseRequest": {"validityPeriod": {"end": found["ended_on"]}}} if ended else {})


def _state_in(found: Json) -> Json:
    """What is active is not over, whatever end its validity has: that is until when it may be dispensed."""
    status = found.pop("status", None)
    if status not in ("active", "stopped", "completed", "entered-in-error"):
        raise Refused("code", f"unknown code {status!r}; known: active, stopped, completed, entered-in-error")
    made: Json = {"status": status} if status == "entered-in-error" else {}
    request = found.get("dispenseRequest", {})
    if status != "active" and "end" in request.get("validityPeriod", {}):
        made["ended_on"] = request["validityPeriod"].pop("end")
        if not request["validityPeriod"]:
            del request["validityPeriod"]
    if status in ("stopped", "completed") and "ended_on" not in made:
        raise Refused("derived", "an order that is over has the end of its validityPeriod")
    return made


ORDER = Mapping(
    Always("resourceType", "MedicationRequest"),
    claim("itb-oral-baclofen"),
    VERSION,
    VERIFIER,
    key("oral-baclofen"),
    Group(("status", "ended_on"), ("status", "dispenseRequest"), Codec(_state_out, _state_in)),
    Always("intent", "order"),
    Always("category[0]", local("oral-baclofen")),
    Always("medicationCodeableConcept", BACLOFEN),
    SUBJECT,
    Row("occurred_at", "authoredOn", required=True),
    REQUESTER,
    Row("performer", "recorder", PERSON),
    Row("reason", "reasonCode[0].text"),
    Row("note", "note[0].text"),
    Group(("steps",), ("dosageInstruction",), Codec(_steps_out, _steps_in)),
)

TELLS = (
    Telling("MedicationRequest", "oral-baclofen", "category", ("oral-baclofen",), "itb-oral-baclofen", True),
)
MAPPED = (("MedicationRequest", "", ORDER),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The one MedicationRequest."""
    return [ORDER.encode(event)]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a MedicationRequest, and the residue."""
    return {"type": "oral-baclofen", **ORDER.read(resource)}, {"MedicationRequest": resource}
