"""An operation on the pump system: implant, revision, replacement, explant (docs/fhir.md, "Procedures").

One Procedure with a `focalDevice` for each device that went in, came out, or was worked on: a replacement
names the old pump and the new one, and the catheter only where it was changed too.
"""

from __future__ import annotations

from typing import Any

from .codes import (
    BACLOFEN,
    DEVICE_ACTION,
    bare,
    definition,
    extension,
    intrathecal,
    local,
    local_concepts,
    part,
)
from .envelope import SERIAL, SERIAL_WORDS, Event, PumpEnvelope, Recorded, Strictly, in_order
from .fields import Code, Line, Moment, Part, Prose, Quantity
from .paths import Json
from .rows import Always, Codec, Derived, Group, Issue, Mapping, Refused, Row
from .shared_rows import STATUS, SUBJECT, VERSION, claim, event_status, key, part_key
from .sources import Sources
from .telling import Telling
from .values import ML, PERFORMERS, PUMP, TIME_SPAN, UG, shown_quantity

ACTIONS = ("implant", "revision", "replacement", "explant")
OLD = ("old_pump", "old_catheter")
ROLES = {"pump": "pump", "old_pump": "old-pump", "catheter": "catheter", "old_catheter": "old-catheter"}
ALLOWED = {
    "implant": ("pump", "catheter"),
    "revision": ("pump", "catheter", "old_catheter"),
    "replacement": ("pump", "old_pump", "catheter", "old_catheter"),
    "explant": ("pump", "catheter"),
}
"""The devices that each operation may name."""


class PrimeSchema(Strictly):
    """The priming bolus that fills pump tubing and catheter."""

    volume = Quantity("mL", required=True, above_zero=True)
    dose = Quantity("ug", above_zero=True)
    duration = Quantity("h", "min", "d", above_zero=True)


class ProcedureSchema(Recorded, PumpEnvelope):
    """An operation; devices are named by serial, or by the `source.id` of their record."""

    action = Code(*ACTIONS, required=True)
    old_pump = Line(pattern=SERIAL, words=SERIAL_WORDS)
    catheter = Line(pattern=SERIAL, words=SERIAL_WORDS)
    old_catheter = Line(pattern=SERIAL, words=SERIAL_WORDS)
    started_at = Moment()
    site = Line()
    reason = Prose()
    dead_space = Quantity("mL", above_zero=True)
    prime = Part(PrimeSchema())


SCHEMA = ProcedureSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    found = in_order(event, "started_at", "occurred_at")
    action = event["action"]
    for name in ROLES:
        if name in event and name not in ALLOWED[action]:
            found.append(Issue(name, "kind", f"has no place in an operation of kind {action}"))
    if action == "replacement" and "old_pump" not in event:
        found.append(Issue("old_pump", "required", "is required of a replacement"))
    for name in OLD:
        new = name.removeprefix("old_")
        if name in event and event.get(new) == event[name]:
            found.append(Issue(name, "duplicate", f"is the same device as {new}"))
    return found


def _device_action(action: str, name: str, event: Json) -> str:
    """What was done to a device, as R4 `device-action` has it."""
    if name in OLD or action == "explant":
        return "explanted"
    if action == "revision" and (name == "pump" or "old_catheter" not in event):
        return "manipulated"
    return "implanted"


ROLE = definition("itb-device-role")


def _devices_out(found: Json) -> Json:
    focal = []
    for name, role in ROLES.items():
        if name in found:
            done = _device_action(found["action"], name, found)
            focal.append(
                {
                    "extension": [{"url": ROLE, "valueCode": role}],
                    "action": bare(DEVICE_ACTION, done),
                    "manipulated": PUMP.to_fhir(found[name]),
                }
            )
    return {"focalDevice": focal, "code": KIND.to_fhir(found["action"])}


def _devices_in(found: Json) -> Json:
    made = {"action": KIND.from_fhir(found.pop("code"))}
    names = {role: name for name, role in ROLES.items()}
    done = {}
    for item in found.pop("focalDevice", []):
        role = next((e["valueCode"] for e in item.get("extension", []) if e["url"] == ROLE), None)
        if role not in names:
            raise Refused("code", f"needs the extension {ROLE}; known roles: {', '.join(names)}")
        made[names[role]] = PUMP.from_fhir(item["manipulated"])
        done[names[role]] = item["action"]["coding"][0]["code"]
    for name, said in done.items():
        if said != _device_action(made["action"], name, made):
            raise Refused("derived", f"a {name} is not {said} by an operation of kind {made['action']}")
    if "pump" not in made:
        raise Refused("required", "names no pump")
    return made


KIND = local_concepts("", *ACTIONS, value_set="itb-operation")


def _performed_out(found: Json) -> Json:
    if "started_at" in found:
        return {"performedPeriod": {"start": found["started_at"], "end": found["occurred_at"]}}
    return {"performedDateTime": found["occurred_at"]}


def _performed_in(found: Json) -> Json:
    if "performedPeriod" in found:
        period = found.pop("performedPeriod")
        return {"started_at": period["start"], "occurred_at": period["end"]}
    if "performedDateTime" not in found:
        raise Refused("required", "performedDateTime or performedPeriod is required")
    return {"occurred_at": found.pop("performedDateTime")}


OPERATION = Mapping(
    Always("resourceType", "Procedure"),
    claim("itb-procedure"),
    VERSION,
    Row("dead_space", extension("itb-catheter-dead-space", "valueQuantity"), ML),
    Row("prime.volume", part("itb-prime", "volume", "valueQuantity"), ML),
    Row("prime.dose", part("itb-prime", "dose", "valueQuantity"), UG),
    Row("prime.duration", part("itb-prime", "duration", "valueDuration"), TIME_SPAN),
    key("procedure"),
    Row("status", "status", STATUS, required=True),
    SUBJECT,
    Group(
        ("started_at", "occurred_at"),
        ("performedPeriod", "performedDateTime"),
        Codec(_performed_out, _performed_in),
    ),
    Group(("performer", "verifier"), ("performer",), PERFORMERS),
    Row("reason", "reasonCode[0].text"),
    Row("site", "bodySite[0].text"),
    Row("note", "note[0].text"),
    Group(("action", *ROLES), ("code", "focalDevice"), Codec(_devices_out, _devices_in)),
)


def _prime_words(event: Event) -> str:
    return f"Priming bolus: {shown_quantity(event['prime']['volume'])} to fill tubing and catheter"


def _prime_dose(event: Event) -> Json:
    dose = event["prime"].get("dose")
    return UG.to_fhir(dose) if dose else ML.to_fhir(event["prime"]["volume"])


PRIME = Mapping(
    Always("resourceType", "MedicationAdministration"),
    claim("itb-bolus"),
    Derived(
        extension("itb-infusion-mode", "valueCodeableConcept"),
        lambda event: local("prime"),
    ),
    part_key("bolus"),
    Derived("status", lambda event: event_status(event, "completed")),
    Always("medicationCodeableConcept", BACLOFEN),
    SUBJECT,
    Derived("effectiveDateTime", lambda event: event["occurred_at"]),
    Row("pump", "device[0]", PUMP),
    Derived("dosage.text", _prime_words),
    Derived("dosage.route", lambda event: intrathecal()),
    Derived("dosage.dose", _prime_dose),
)
"""What an EHR sees of the prime; the Procedure holds it (docs/decisions/0005)."""

TELLS = (Telling("Procedure", "procedure", "code", ACTIONS, "itb-procedure"),)
MAPPED = (("Procedure", "", OPERATION),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The Procedure, and the priming bolus."""
    made = [OPERATION.encode({"status": "final", **event})]
    return [*made, PRIME.encode(event)] if "prime" in event else made


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Procedure, and the residue."""
    event = {"type": "procedure", **OPERATION.read(resource)}
    return event, {"Procedure": resource}
