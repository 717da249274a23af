"""A dose change: the session (Procedure), the new program (MedicationRequest) and what then runs
(an infusion segment, and a bridge bolus), with the program and segment before it closed.

The Procedure holds the event; its `programAfter` points to the MedicationRequest, its `programBefore`
to a contained copy of the program as the session found it. docs/fhir.md, "Dose change".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from . import identity, program
from .codes import (
    DATA_ABSENT_REASON,
    DEVICE_ACTION,
    MODES,
    definition,
    extension,
    intrathecal,
    local,
    part,
    sid,
)
from .envelope import BRIDGE, Event, PumpEnvelope, Recorded, bridge_issues, is_retracted, occurred
from .fields import Code, Part, Prose
from .limits import LIMITS, NO_LIMITS, Limits
from .paths import MISSING, Json, take
from .rows import Always, Derived, Group, Issue, Mapping, MappingError, Row
from .shared_rows import REQUESTER, STATUS, SUBJECT, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import ML, PATIENT, PERFORMERS, PERSON, PUMP, TIME_SPAN, UG, shown, shown_quantity, ucum


class DoseChangeSchema(Recorded, PumpEnvelope):
    """A programming of the pump: what it was set to, and what it is set to now."""

    before = Part(program.PROGRAM_SCHEMA)
    after = Part(program.PROGRAM_SCHEMA, required=True)
    reason = Prose()
    hold = Code("mri", "temporary")
    bridge = Part(BRIDGE)


SCHEMA = DoseChangeSchema()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program stands in its pump's chain: its neighbours, and whether it is on hold.

    On hold is a program that was stopped for a while and not yet resumed or replaced. `changes` counts how
    often later changes have rewritten it.
    """

    before: Event | None = None
    after: Event | None = None
    held: bool = False
    changes: int = 0


ALONE = Place()


def issues(event: Event, limits: Limits = LIMITS) -> list[Issue]:
    """What is wrong with the event as a whole; rule ids as in docs/clinical.md, "Rules"."""
    limits = NO_LIMITS if is_retracted(event) else limits
    found = bridge_issues(event) + program.issues(event["after"], "after", limits)
    if "before" in event:
        found += program.issues(event["before"], "before", limits)
    if "hold" in event and event["after"]["mode"] != "stopped":
        found.append(Issue("hold", "mode", "belongs to a programming that stops the pump"))
    if found or "before" not in event:
        return found
    old, new = (event[side].get("daily_dose", {}).get("value") for side in ("before", "after"))
    if old and new and (new >= old * limits.dose_ratio_max or old >= new * limits.dose_ratio_max):
        why = f"from {shown(old)} to {shown(new)} ug/d is a change by {limits.dose_ratio_max} times or more"
        found.append(Issue("after.daily_dose", "U2", f"{why}: a mix-up of units?"))
    return found


def percent_change(event: Event) -> Decimal | None:
    """(new - old) / old * 100, to one decimal, half to even; None without two doses above zero."""
    old = event.get("before", {}).get("daily_dose", {}).get("value")
    new = event["after"].get("daily_dose", {}).get("value")
    if not old or new is None:
        return None
    percent: Decimal = (new - old) / old * 100
    return percent.quantize(Decimal("0.1"), ROUND_HALF_EVEN)


DETAIL = "itb-dose-change"


def _event_key(event: Event) -> str:
    return identity.business_value(event["source"], event["id"])


def _dose(side: str) -> Any:
    def make(event: Event) -> Json:
        dose = event.get(side, {}).get("daily_dose")
        return ucum(dose["value"], "ug/d") if dose else None

    return make


def _mode(side: str) -> Any:
    return lambda event: MODES[event[side]["mode"]] if side in event else None


BRIDGE_ROWS = (
    Row("bridge.volume", part("itb-bridge", "volume", "valueQuantity"), ML),
    Row("bridge.duration", part("itb-bridge", "duration", "valueDuration"), TIME_SPAN),
    Row("bridge.ends_at", part("itb-bridge", "endsAt", "valueDateTime")),
    Row("bridge.not_required", part("itb-bridge", "notRequired", "valueString")),
)
SESSION_ROWS = (
    SUBJECT,
    Row("occurred_at", "performedDateTime", required=True),
    Group(("performer", "verifier"), ("performer",), PERFORMERS),
    Row("reason", "reasonCode[0].text"),
    Row("hold", extension("itb-hold", "valueCode")),
    Always("focalDevice[0].action", {"coding": [{"system": DEVICE_ACTION, "code": "manipulated"}]}),
    Row("pump", "focalDevice[0].manipulated", PUMP, required=True),
    Row("note", "note[0].text"),
)
"""Who did it, when and why, and on which pump."""

CHANGE_ROWS = (
    Derived(part(DETAIL, "doseBefore", "valueQuantity"), _dose("before"), strict=True),
    Derived(part(DETAIL, "doseAfter", "valueQuantity"), _dose("after"), strict=True),
    Derived(part(DETAIL, "percentChange", "valueDecimal"), percent_change, strict=True),
    Derived(part(DETAIL, "modeBefore", "valueCode"), _mode("before"), strict=True),
    Derived(part(DETAIL, "modeAfter", "valueCode"), _mode("after"), strict=True),
)
"""What the session's extension says of both programs; it must follow from them."""

SESSION = Mapping(
    Always("resourceType", "Procedure"),
    claim("itb-programming-session"),
    VERSION,
    *BRIDGE_ROWS,
    key("programming-session"),
    Row("status", "status", STATUS, required=True),
    Always("code", local("pump-reprogramming")),
    *SESSION_ROWS,
    *CHANGE_ROWS,
)
"""The Procedure but for its two programs."""

PROFILES = {"segment": "itb-infusion-segment", "bolus": "itb-bolus"}
"""The profiles of the MedicationAdministrations, by kind of identifier."""

PROGRAM_AFTER = part(DETAIL, "programAfter", "valueReference").steps
PROGRAM_BEFORE = part(DETAIL, "programBefore", "valueReference").steps

ORDER = Mapping(
    Always("resourceType", "MedicationRequest"),
    claim("itb-therapy-order"),
    key("program"),
    Always("intent", "order"),
    SUBJECT,
    Row("occurred_at", "authoredOn", required=True),
    REQUESTER,
    Row("performer", "recorder", PERSON),
    Row("pump", "performer", PUMP, required=True),
    Derived(extension("itb-pump-clock-offset", "valueString"), lambda event: _offset(event["occurred_at"])),
)
"""The MedicationRequest but for the program's own rows and its place in the chain."""


TELLS = (
    Telling("Procedure", "programming-session", "code", ("pump-reprogramming",), "itb-programming-session"),
)
MAPPED = (
    ("Procedure", "", SESSION),
    ("MedicationRequest", "after.", program.PROGRAM),
    ("Procedure.contained[0]", "before.", program.PROGRAM),
)
DERIVED = frozenset({"type"})


def _offset(moment: str) -> str:
    return "+00:00" if moment.endswith("Z") else moment[-6:]


def _merged(one: Json, other: Json) -> Json:
    both = one | other
    if "extension" in one and "extension" in other:
        both["extension"] = one["extension"] + other["extension"]
    return both


def _prior(event: Event, before: Event | None) -> Json:
    """priorPrescription: the program before, or that it is not known; None for the first programming."""
    if before is not None:
        return identity.own("MedicationRequest", "program", _event_key(before))
    if "before" not in event:
        return None
    unknown = [{"url": DATA_ABSENT_REASON, "valueCode": "unknown"}]
    return {"extension": unknown, "display": "The record of the program before this one is not known"}


def order(event: Event, place: Place) -> Json:
    """The program as a MedicationRequest, closed when another has replaced it."""
    after = place.after
    resource = _merged(ORDER.encode(event), program.PROGRAM.encode(event["after"]))
    resource["status"], ended = "active", None
    if is_retracted(event):
        resource["status"] = "entered-in-error"
    elif place.held:
        resource["status"], resource["statusReason"] = "on-hold", {"text": "Pump stopped for a while"}
    elif after is not None:
        resource["status"], ended = "stopped", after["occurred_at"]
        resource["statusReason"] = {"text": "Superseded by reprogramming"}
    elif event["after"]["mode"] == "stopped":
        resource["status"], resource["statusReason"] = "stopped", {"text": "Pump stopped"}
    prior = _prior(event, place.before)
    if prior is not None:
        resource["priorPrescription"] = prior
    bounds = {"start": event["occurred_at"]} | ({"end": ended} if ended else {})
    for dosage in resource.get("dosageInstruction", []):
        repeat = dosage.setdefault("timing", {}).setdefault("repeat", {})
        dosage["timing"]["repeat"] = {"boundsPeriod": dict(bounds), **repeat}
    return resource


def segment(event: Event, place: Place) -> Json | None:
    """What the pump gives under this program: open until the next one; None for a stopped pump.

    A hold leaves it open, `on-hold`; what resumes closes it when the hold began, and opens its own.
    """
    if event["after"]["mode"] == "stopped":
        return None
    ended = None
    if place.after is not None and not place.held and not is_retracted(event):
        ended = place.after["occurred_at"]
    status = "completed" if ended else "on-hold" if place.held else "in-progress"
    if is_retracted(event):
        status = "entered-in-error"
    reason = {"statusReason": [{"text": "Pump stopped for a while"}]} if status == "on-hold" else {}
    return _administration(event, "segment", status, MODES[event["after"]["mode"]]) | {
        **reason,
        "medicationCodeableConcept": program.medication(event["after"]),
        "effectivePeriod": {"start": event["occurred_at"]} | ({"end": ended} if ended else {}),
        "dosage": {
            "text": program.summary(event["after"]),
            "route": intrathecal(),
            "rateRatio": program.mean_rate(event["after"]),
        },
    }


def bridge_bolus(event: Event) -> Json | None:
    """The bridge bolus: the old drug between pump and catheter tip; None without a bridge volume."""
    bridge = event.get("bridge", {})
    if "volume" not in bridge:
        return None
    strength = event.get("before", {}).get("concentration")
    dose = ML.to_fhir(bridge["volume"])
    if strength:
        dose = UG.to_fhir({"value": bridge["volume"]["value"] * strength["value"], "unit": "ug"})
    drug = program.medication({"concentration": strength} if strength else {})
    status = "entered-in-error" if is_retracted(event) else "completed"
    resource = _administration(event, "bolus", status, "bridge") | {
        "medicationCodeableConcept": drug,
        "dosage": {
            "text": f"Bridge bolus: {shown_quantity(bridge['volume'])} of the previous {drug['text']}",
            "route": intrathecal(),
            "dose": dose,
        },
    }
    if "ends_at" in bridge:
        resource["effectivePeriod"] = {"start": event["occurred_at"], "end": bridge["ends_at"]}
    else:
        resource["effectiveDateTime"] = event["occurred_at"]
    return resource


def _administration(event: Event, kind: str, status: str, mode: str) -> Json:
    """What segment and bolus share."""
    value = _event_key(event)
    pump = identity.own("Device", "device", event["pump"])
    return {
        "resourceType": "MedicationAdministration",
        "meta": {"profile": [definition(PROFILES[kind])]},
        "extension": [{"url": definition("itb-infusion-mode"), "valueCodeableConcept": local(mode)}],
        "identifier": [{"system": sid(kind), "value": value}],
        "status": status,
        "subject": PATIENT.to_fhir(event["patient"]),
        "performer": [{"actor": pump}],
        "request": identity.own("MedicationRequest", "program", value),
        "device": [pump],
    }


def _session(event: Event) -> Json:
    resource = SESSION.encode({"status": "final", **event})
    detail = next(e for e in resource["extension"] if e["url"] == definition(DETAIL))["extension"]
    if "before" in event:
        found = {"resourceType": "MedicationRequest", "id": "before", "status": "stopped", "intent": "order"}
        found["subject"] = PATIENT.to_fhir(event["patient"])
        resource["contained"] = [found | program.PROGRAM.encode(event["before"])]
        detail.append({"url": "programBefore", "valueReference": {"reference": "#before"}})
    after = identity.own("MedicationRequest", "program", _event_key(event))
    detail.append({"url": "programAfter", "valueReference": after})
    return resource


def encode(event: Event, place: Place = ALONE) -> list[Json]:
    """The resources of a dose change at its place in its pump's chain."""
    made = [order(event, place), segment(event, place), _session(event), bridge_bolus(event)]
    return [resource for resource in made if resource is not None]


def chain_resources(event: Event, place: Place) -> list[Json]:
    """Of `event`'s resources those that its place in the chain changes: program and segment."""
    made = [order(event, place), segment(event, place)]
    return [resource for resource in made if resource is not None]


def sort_key(event: Event) -> tuple[Any, str, str]:
    """The order of a pump's programs: by instant, then by identity."""
    return occurred(event), event["source"], event["id"]


def chain(events: Sequence[Event]) -> list[Event]:
    """The programs of one pump in order, without those entered in error."""
    return sorted((e for e in events if not is_retracted(e)), key=sort_key)


def places(ordered: Sequence[Event]) -> list[Place]:
    """The place of each program of an ordered chain."""
    found = []
    for at, event in enumerate(ordered):
        after = ordered[at + 1] if at + 1 < len(ordered) else None
        stops = after is not None and "hold" in after and event["after"]["mode"] != "stopped"
        resumed = at + 2 < len(ordered)
        held = stops and not resumed
        changes = (after is not None) + (stops and resumed)
        found.append(Place(ordered[at - 1] if at else None, after, held, changes))
    return found


def _read_program(resource: Json) -> Json:
    read, _ = program.PROGRAM.decode(resource)
    wrong = program.dosage_issues(read, resource)
    if wrong:
        raise MappingError(wrong)
    return read


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Procedure and the MedicationRequest it points to, and the residue (in place)."""
    event: Json = {"type": "dose-change", **SESSION.read(resource)}
    for steps, side, needed in ((PROGRAM_BEFORE, "before", False), (PROGRAM_AFTER, "after", True)):
        reference = take(resource, steps)
        found = sources.find(reference, resource) if reference is not MISSING else None
        if found is not None:
            event[side] = _read_program(found)
        elif needed or reference is not MISSING:
            why = f"the MedicationRequest of the program {side} the change did not come with it"
            raise MappingError(
                [Issue(f"Procedure.extension[{DETAIL}].program{side.title()}", "reference", why)]
            )
    resource.pop("contained", None)
    SESSION.check(resource, event)
    return event, {"Procedure": resource}
