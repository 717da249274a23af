"""A refill: what went into the reservoir. Never a dose to the patient (docs/fhir.md, "Refill").

The route is `pump-reservoir`, never intrathecal: 20 mL of 2000 ug/mL is 40 mg in a tank, and would be
a lethal dose if it read as given to the spine.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from .codes import BACLOFEN, NDC, definition, extension, local, part
from .envelope import BRIDGE, Event, PumpEnvelope, Recorded, Strictly, bridge_issues, in_order
from .fields import Count, Day, Flag, Line, Moment, Part, Quantity
from .rows import Always, Codec, Derived, Group, Issue, Json, Mapping, Refused, Row, at
from .shared_rows import STATUS, SUBJECT, VERSION, key
from .sources import Sources
from .values import ML, PERFORMERS, PUMP, TIME_SPAN, UG_PER_ML, shown


class DrugSchema(Strictly):
    """What was filled in."""

    name = Line()
    concentration = Quantity("ug/mL", required=True, above_zero=True)
    ndc = Line(pattern=r"[0-9]+(-[0-9]+){0,2}", words="must be an NDC such as 70121-2503-01")
    lot = Line(required=True)
    expires_on = Day(required=True, month_enough=True)
    compounded = Flag()


class RefillSchema(Recorded, PumpEnvelope):
    """A refill of the pump's reservoir, as it was done."""

    drug = Part(DrugSchema(), required=True)
    volume_expected = Quantity("mL")
    volume_removed = Quantity("mL")
    volume_discarded = Quantity("mL")
    volume_instilled = Quantity("mL", required=True)
    low_alarm_volume = Quantity("mL")
    alarm_on = Day()
    refill_by = Day()
    needle_passes = Count(most=99)
    started_at = Moment()
    bridge = Part(BRIDGE)


SCHEMA = RefillSchema()
BRAND = re.compile(r"\b(baclofen|lioresal|gablofen)\b", re.I)
MIXED = re.compile(r"[+&]|\b(and|with|plus)\b", re.I)


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    found = in_order(event, "started_at", "occurred_at") + bridge_issues(event)
    name = event["drug"].get("name")
    if name is not None and (not BRAND.search(name) or MIXED.search(name)):
        why = "must name baclofen (or Lioresal, Gablofen) alone: other drugs and mixtures are not carried"
        found.append(Issue("drug.name", "drug", why))
    return found


def _effective_out(found: Json) -> Json:
    if "started_at" in found:
        return {"effectivePeriod": {"start": found["started_at"], "end": found["occurred_at"]}}
    return {"effectiveDateTime": found["occurred_at"]}


def _effective_in(found: Json) -> Json:
    if "effectivePeriod" in found:
        period = found["effectivePeriod"]
        if "end" not in period or "start" not in period:
            raise Refused("required", "needs a start and an end")
        return {"started_at": period.pop("start"), "occurred_at": period.pop("end")}
    if "effectiveDateTime" not in found:
        raise Refused("required", "effectiveDateTime or effectivePeriod is required")
    return {"occurred_at": found.pop("effectiveDateTime")}


EFFECTIVE = Group(
    ("started_at", "occurred_at"),
    ("effectivePeriod", "effectiveDateTime"),
    Codec(_effective_out, _effective_in),
)


def _words(event: Event) -> str:
    volume, strength = event["volume_instilled"]["value"], event["drug"]["concentration"]["value"]
    drug = f"baclofen {shown(strength)} mcg/mL ({shown(volume * strength / Decimal(1000))} mg)"
    return f"Pump reservoir filled with {shown(volume)} mL {drug}. NOT a patient dose."


DETAIL = "itb-refill-detail"
FILL = "contained[id=fill]"

REFILL = Mapping(
    Always("resourceType", "MedicationAdministration"),
    Always(f"{FILL}.resourceType", "Medication"),
    Row("drug.name", f"{FILL}.code.text"),
    Row("drug.ndc", f"{FILL}.code.coding[system={NDC}].code"),
    Row("drug.compounded", at(FILL, extension("itb-compounded", "valueBoolean").text)),
    Always(f"{FILL}.ingredient[0].itemCodeableConcept", BACLOFEN),
    Row("drug.concentration", f"{FILL}.ingredient[0].strength", UG_PER_ML, required=True),
    Row("drug.lot", f"{FILL}.batch.lotNumber", required=True),
    Row("drug.expires_on", f"{FILL}.batch.expirationDate", required=True),
    VERSION,
    Row("volume_expected", part(DETAIL, "volumeExpected", "valueQuantity"), ML),
    Row("volume_removed", part(DETAIL, "volumeRemoved", "valueQuantity"), ML),
    Row("volume_discarded", part(DETAIL, "volumeDiscarded", "valueQuantity"), ML),
    Derived(
        part(DETAIL, "volumeInstilled", "valueQuantity"),
        lambda event: ML.to_fhir(event["volume_instilled"]),
        strict=True,
    ),
    Row("low_alarm_volume", part(DETAIL, "lowReservoirAlarmVolume", "valueQuantity"), ML),
    Row("alarm_on", part(DETAIL, "alarmDate", "valueDate")),
    Row("refill_by", part(DETAIL, "refillBy", "valueDate")),
    Row("needle_passes", part(DETAIL, "needlePasses", "valuePositiveInt")),
    Row("bridge.volume", part("itb-bridge", "volume", "valueQuantity"), ML),
    Row("bridge.duration", part("itb-bridge", "duration", "valueDuration"), TIME_SPAN),
    Row("bridge.ends_at", part("itb-bridge", "endsAt", "valueDateTime")),
    Row("bridge.not_required", part("itb-bridge", "notRequired", "valueString")),
    key("refill"),
    Row("status", "status", STATUS, required=True),
    Always("medicationReference.reference", "#fill"),
    SUBJECT,
    EFFECTIVE,
    Group(("performer", "verifier"), ("performer",), PERFORMERS),
    Row("note", "note[0].text"),
    Row("pump", "device[0]", PUMP, required=True),
    Derived("dosage.text", _words),
    Always("dosage.route", local("pump-reservoir")),
    Always("dosage.method", local("reservoir-fill")),
    Row("volume_instilled", "dosage.dose", ML, required=True),
)


MAPPED = (("MedicationAdministration", "", REFILL),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The one MedicationAdministration of a refill."""
    return [REFILL.encode({"status": "final", **event})]


def is_primary(resource: Json) -> bool:
    """True for a MedicationAdministration that says it fills a pump's reservoir, or claims our profile."""
    if resource.get("resourceType") != "MedicationAdministration":
        return False
    if definition("itb-refill") in (resource.get("meta") or {}).get("profile", []):
        return True
    wanted = local("pump-reservoir")["coding"][0]
    codings = ((resource.get("dosage") or {}).get("route") or {}).get("coding", [])
    return any((c.get("system"), c.get("code")) == (wanted["system"], wanted["code"]) for c in codings)


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a refill, and the residue."""
    event = REFILL.read(resource)
    REFILL.check(resource, event)
    return {"type": "refill", **event}, {"MedicationAdministration": resource}
