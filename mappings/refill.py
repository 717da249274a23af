"""A refill: what went into the reservoir. Never a dose to the patient (docs/fhir.md, "Refill").

The route is `pump-reservoir`, never intrathecal: 20 mL of 2000 ug/mL is 40 mg in a tank, and would be
a lethal dose if it read as given to the spine.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from .codes import BACLOFEN, NDC, extension, local, part
from .envelope import BRIDGE, Event, PumpEnvelope, Recorded, Strictly, bridge_issues, in_order
from .fields import Day, Flag, Line, Moment, Part, Prose, Quantity, Whole
from .paths import Json, at
from .rows import Always, Codec, Derived, Group, Issue, Mapping, Refused, Row
from .shared_rows import STATUS, SUBJECT, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import ML, PERFORMERS, PUMP, TIME_SPAN, UG_PER_ML, shown


class LotSchema(Strictly):
    """One more lot of the same drug in the same fill, and how much of it."""

    lot = Line(required=True)
    expires_on = Day(required=True, month_enough=True)
    volume = Quantity("mL", required=True, above_zero=True)


class DrugSchema(Strictly):
    """What was filled in; `lot` is the first one where there are several."""

    name = Line()
    concentration = Quantity("ug/mL", required=True, above_zero=True)
    ndc = Line(pattern=r"[0-9]+(-[0-9]+){0,2}", words="must be an NDC such as 70121-2503-01")
    lot = Line(required=True)
    expires_on = Day(required=True, month_enough=True)
    compounded = Flag()
    other_lots = Part(LotSchema(), many=True)


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
    needle_passes = Whole(1, 99)
    started_at = Moment()
    stopped_because = Prose()
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
    others = sum(lot["volume"]["value"] for lot in event["drug"].get("other_lots", ()))
    if others > event["volume_instilled"]["value"]:
        why = f"the other lots are {others} mL, more than was instilled"
        found.append(Issue("drug.other_lots", "R1", why))
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


def words(event: Event) -> str:
    """What went into the reservoir, in a sentence that cannot be read as a dose to the patient."""
    volume, strength = event["volume_instilled"]["value"], event["drug"]["concentration"]["value"]
    drug = f"baclofen {shown(strength)} mcg/mL ({shown(volume * strength / Decimal(1000))} mg)"
    return f"Pump reservoir filled with {shown(volume)} mL {drug}. NOT a patient dose."


def _status_out(found: Json) -> Json:
    """A refill that failed, or was broken off, is `stopped`; how far it came says the volume."""
    if "stopped_because" not in found:
        return {"status": STATUS.to_fhir(found["status"])}
    status = "entered-in-error" if found["status"] == "entered-in-error" else "stopped"
    return {"status": status, "statusReason": [{"text": found["stopped_because"]}]}


def _status_in(found: Json) -> Json:
    status = found.pop("status", None)
    made = {}
    reasons = found.get("statusReason") or [{}]
    if "text" in reasons[0] and status in ("stopped", "entered-in-error"):
        made["stopped_because"] = reasons[0].pop("text")
        found["statusReason"] = [reason for reason in reasons if reason]
    elif status == "stopped":
        raise Refused("required", "a refill that was stopped says why: statusReason[0].text")
    return made | {"status": "final" if status == "stopped" else STATUS.from_fhir(status)}


LOT = Mapping(
    Always("resourceType", "Medication"),
    Row("number", "id"),
    Row("volume", extension("itb-lot-volume", "valueQuantity"), ML, required=True),
    Always("ingredient[0].itemCodeableConcept", BACLOFEN),
    Row("lot", "batch.lotNumber", required=True),
    Row("expires_on", "batch.expirationDate", required=True),
)
"""One more lot, as a contained Medication that `supportingInformation` points to (docs/decisions/0009)."""


def _lots_out(found: Json) -> Json:
    lots = [
        LOT.encode({"number": f"lot-{number}", **lot})
        for number, lot in enumerate(found.get("drug.other_lots", ()), start=2)
    ]
    if not lots:
        return {}
    return {"contained": lots, "supportingInformation": [{"reference": f"#{lot['id']}"} for lot in lots]}


def _lots_in(found: Json) -> Json:
    lots = [item for item in found.get("contained", ()) if str(item.get("id")).startswith("lot-")]
    named = {f"#{lot['id']}" for lot in lots}
    for name, kept in (
        ("contained", [i for i in found.get("contained", ()) if i not in lots]),
        (
            "supportingInformation",
            [r for r in found.get("supportingInformation", ()) if r.get("reference") not in named],
        ),
    ):
        if name in found:
            found[name] = kept
    read = [LOT.read(lot) for lot in lots]
    ordered = sorted(read, key=lambda lot: int(lot.pop("number").removeprefix("lot-")))
    return {"drug.other_lots": ordered} if ordered else {}


DETAIL = "itb-refill-detail"
FILL = "contained[id=fill]"

DETAIL_ROWS = (
    Row("volume_expected", part(DETAIL, "volumeExpected", "valueQuantity"), ML),
    Row("volume_removed", part(DETAIL, "volumeRemoved", "valueQuantity"), ML),
    Row("volume_discarded", part(DETAIL, "volumeDiscarded", "valueQuantity"), ML),
    Row("low_alarm_volume", part(DETAIL, "lowReservoirAlarmVolume", "valueQuantity"), ML),
    Row("alarm_on", part(DETAIL, "alarmDate", "valueDate")),
    Row("refill_by", part(DETAIL, "refillBy", "valueDate")),
    Row("needle_passes", part(DETAIL, "needlePasses", "valuePositiveInt")),
    Row("bridge.volume", part("itb-bridge", "volume", "valueQuantity"), ML),
    Row("bridge.duration", part("itb-bridge", "duration", "valueDuration"), TIME_SPAN),
    Row("bridge.ends_at", part("itb-bridge", "endsAt", "valueDateTime")),
    Row("bridge.not_required", part("itb-bridge", "notRequired", "valueString")),
)
"""The volumes and dates of a refill (what was instilled aside), and its bridge."""

REFILL = Mapping(
    Always("resourceType", "MedicationAdministration"),
    claim("itb-refill"),
    Always(f"{FILL}.resourceType", "Medication"),
    Row("drug.name", f"{FILL}.code.text"),
    Row("drug.ndc", f"{FILL}.code.coding[system={NDC}].code"),
    Row("drug.compounded", at(FILL, extension("itb-compounded", "valueBoolean").text)),
    Always(f"{FILL}.ingredient[0].itemCodeableConcept", BACLOFEN),
    Row("drug.concentration", f"{FILL}.ingredient[0].strength", UG_PER_ML, required=True),
    Row("drug.lot", f"{FILL}.batch.lotNumber", required=True),
    Row("drug.expires_on", f"{FILL}.batch.expirationDate", required=True),
    VERSION,
    *DETAIL_ROWS,
    Derived(
        part(DETAIL, "volumeInstilled", "valueQuantity"),
        lambda event: ML.to_fhir(event["volume_instilled"]),
        strict=True,
    ),
    key("refill"),
    Group(("status", "stopped_because"), ("status", "statusReason"), Codec(_status_out, _status_in)),
    Group(("drug.other_lots",), ("contained", "supportingInformation"), Codec(_lots_out, _lots_in)),
    Always("medicationReference.reference", "#fill"),
    SUBJECT,
    EFFECTIVE,
    Group(("performer", "verifier"), ("performer",), PERFORMERS),
    Row("note", "note[0].text"),
    Row("pump", "device[0]", PUMP, required=True),
    Derived("dosage.text", words),
    Always("dosage.route", local("pump-reservoir")),
    Always("dosage.method", local("reservoir-fill")),
    Row("volume_instilled", "dosage.dose", ML, required=True),
)


TELLS = (Telling("MedicationAdministration", "refill", "dosage.route", ("pump-reservoir",), "itb-refill"),)
MAPPED = (("MedicationAdministration", "", REFILL),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The one MedicationAdministration of a refill."""
    return [REFILL.encode({"status": "final", **event})]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a refill, and the residue."""
    event = REFILL.read(resource)
    REFILL.check(resource, event)
    return {"type": "refill", **event}, {"MedicationAdministration": resource}
