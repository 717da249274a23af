"""A screening bolus: one test dose before an implant, its effect, and its scores over the hours.

The Observation `trial-response` tells it; it points to the bolus (`partOf`) and to the scores
(`hasMember`). docs/clinical.md, "The course of therapy"; docs/fhir.md, "Screening".
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from . import scores
from .codes import ABSENT_REASON, BACLOFEN, INTRATHECAL, NDC, bare, component, local
from .envelope import Envelope, Event, Recorded, Strictly
from .fields import Day, Flag, Line, Part, Prose, Quantity
from .members import parted, same_patient
from .paths import Json
from .rows import Always, Codec, Derived, Group, Issue, Mapping, Row
from .shared_rows import (
    OBSERVED,
    SUBJECT,
    VERIFIER,
    VERSION,
    claim,
    event_status,
    key,
    part_key,
    part_reference,
)
from .sources import Sources
from .telling import Telling
from .values import PERSON, TIME_SPAN, UG, UG_PER_D, UG_PER_ML, shown_quantity

LARGEST_BOLUS = Decimal(100)
STRENGTH = Decimal(50)


class ScreeningDrugSchema(Strictly):
    """The ampule: 50 ug/mL, never one made for a refill."""

    name = Line()
    concentration = Quantity("ug/mL", required=True, above_zero=True)
    ndc = Line(pattern=r"[0-9]+(-[0-9]+){0,2}", words="must be an NDC such as 70121-2496-05")
    lot = Line()
    expires_on = Day(month_enough=True)


class ScreeningSchema(Recorded, Envelope):
    """One screening bolus and what came of it."""

    bolus = Quantity("ug", required=True, above_zero=True)
    drug = Part(ScreeningDrugSchema())
    site = Line()
    responder = Flag()
    effect_duration = Quantity("h", "min", "d", above_zero=True)
    recommended_daily_dose = Quantity("ug/d", above_zero=True)
    adverse_effects = Prose()
    scores = Part(scores.SCORE_SCHEMA, many=True)

    def whole(self, data: Any) -> None:
        scores.tidy(data)


SCHEMA = ScreeningSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole; D5 as in docs/clinical.md, "Rules"."""
    found = scores.issues(event)
    if event["bolus"]["value"] > LARGEST_BOLUS:
        found.append(Issue("bolus", "D5", f"a screening bolus is at most {LARGEST_BOLUS} ug"))
    strength = event.get("drug", {}).get("concentration", {}).get("value", STRENGTH)
    if strength != STRENGTH:
        why = f"{strength} ug/mL is made for refills; a screening bolus is of {STRENGTH} ug/mL"
        found.append(Issue("drug.concentration", "D5", why))
    return found


def _response_out(found: Json) -> Json:
    if "responder" in found:
        return {"valueBoolean": found["responder"]}
    return {"dataAbsentReason": bare(ABSENT_REASON, "unknown")}


def _response_in(found: Json) -> Json:
    found.pop("dataAbsentReason", None)
    return {"responder": found.pop("valueBoolean")} if "valueBoolean" in found else {}


RESPONSE = Mapping(
    Always("resourceType", "Observation"),
    claim("itb-screening"),
    VERSION,
    VERIFIER,
    key("screening"),
    Row("status", "status", OBSERVED, required=True),
    Always("code", local("trial-response")),
    SUBJECT,
    Row("occurred_at", "effectiveDateTime", required=True),
    Row("performer", "performer[0]", PERSON),
    Group(("responder",), ("valueBoolean", "dataAbsentReason"), Codec(_response_out, _response_in)),
    Row("note", "note[0].text"),
    Row("effect_duration", component("effect-duration", "valueQuantity"), TIME_SPAN),
    Row("recommended_daily_dose", component("recommended-daily-dose", "valueQuantity"), UG_PER_D),
    Row("adverse_effects", component("adverse-effects", "valueString")),
)

AMPULE = Mapping(
    Always("resourceType", "Medication"),
    Always("id", "ampule"),
    Row("name", "code.text"),
    Row("ndc", f"code.coding[system={NDC}].code"),
    Always("ingredient[0].itemCodeableConcept", BACLOFEN),
    Row("concentration", "ingredient[0].strength", UG_PER_ML, required=True),
    Row("lot", "batch.lotNumber"),
    Row("expires_on", "batch.expirationDate"),
)


def _drug_out(found: Json) -> Json:
    if "drug" not in found:
        return {"medicationCodeableConcept": BACLOFEN}
    return {"contained": [AMPULE.encode(found["drug"])], "medicationReference": {"reference": "#ampule"}}


def _drug_in(found: Json) -> Json:
    if "contained" not in found:
        found.pop("medicationCodeableConcept", None)
        return {}
    ampule = next(c for c in found["contained"] if c["id"] == "ampule")
    found.pop("medicationReference", None)
    found["contained"] = [c for c in found["contained"] if c is not ampule]
    return {"drug": AMPULE.read(ampule)}


def _words(event: Event) -> str:
    return f"Screening bolus of {shown_quantity(event['bolus'])} into the spinal fluid"


BOLUS = Mapping(
    Always("resourceType", "MedicationAdministration"),
    claim("itb-screening-bolus"),
    part_key("screening-bolus"),
    Derived("status", lambda event: event_status(event, "completed")),
    Group(
        ("drug",),
        ("contained", "medicationReference", "medicationCodeableConcept"),
        Codec(_drug_out, _drug_in),
    ),
    SUBJECT,
    Derived("effectiveDateTime", lambda event: event["occurred_at"]),
    Derived("dosage.text", _words),
    Row("site", "dosage.site.text"),
    Always("dosage.route", INTRATHECAL),
    Always("dosage.method", local("screening-bolus")),
    Row("bolus", "dosage.dose", UG, required=True),
)

TELLS = (Telling("Observation", "screening", "code", ("trial-response",), "itb-screening"),)
MAPPED = (
    ("Observation", "", RESPONSE),
    ("MedicationAdministration", "", BOLUS),
    ("Observation", "scores.", scores.SCORE),
)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The response, the bolus, and an Observation for each score."""
    whole = {"status": "final", **event}
    response = RESPONSE.encode(whole)
    response["partOf"] = [part_reference("MedicationAdministration", "screening-bolus", event)]
    members = scores.SCORES.references(event)
    if members:
        response["hasMember"] = members
    return [response, BOLUS.encode(whole), *scores.SCORES.encode(event)]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a response, its bolus and scores, and the residue."""
    event = {"type": "screening", **RESPONSE.read(resource)}
    bolus = parted(resource, "partOf", "screening-bolus", sources)
    event |= same_patient(BOLUS.read(bolus), event, "MedicationAdministration")
    scores.SCORES.decode(resource, sources, event)
    BOLUS.check(bolus, event)
    return event, {"Observation": resource, "MedicationAdministration": bolus}
