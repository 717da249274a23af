"""What comes next: a refill that is due (Task), or a visit that is booked (Appointment).

The alarm date is a date and stays one. docs/fhir.md, "Follow-up".
"""

from __future__ import annotations

from typing import Any

from .codes import local, local_concepts
from .envelope import Event, PumpEnvelope, Recorded, in_order
from .fields import Code, Day, Moment, Prose
from .paths import Json
from .rows import Always, Codec, Group, Issue, Mapping, Row
from .shared_rows import VERIFIER, VERSION, claim, key, status_of
from .sources import Sources
from .telling import Telling
from .values import PATIENT, PERSON, PUMP

PURPOSES = ("refill-visit", "titration-visit", "follow-up-visit", "annual-review")
TASK_STATES = {"due": "requested", "done": "completed", "cancelled": "cancelled"}
VISIT_STATES = {
    "proposed": "proposed",
    "booked": "booked",
    "done": "fulfilled",
    "cancelled": "cancelled",
    "missed": "noshow",
}
FIELDS = {"refill-due": ("due_on", "alarm_on"), "visit": ("starts_at", "ends_at", "purpose")}


class FollowUpSchema(Recorded, PumpEnvelope):
    """A refill that is due, or a visit; `occurred_at` is when this was decided."""

    kind = Code("refill-due", "visit", required=True)
    state = Code("due", "proposed", "booked", "done", "cancelled", "missed", required=True)
    due_on = Day()
    alarm_on = Day()
    starts_at = Moment()
    ends_at = Moment()
    purpose = Code(*PURPOSES)
    reason = Prose()


SCHEMA = FollowUpSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    kind = event["kind"]
    found = in_order(event, "starts_at", "ends_at")
    known = TASK_STATES if kind == "refill-due" else VISIT_STATES
    if event["state"] not in known:
        found.append(Issue("state", "code", f"is no state of {kind}; known: {', '.join(known)}"))
    for other, names in FIELDS.items():
        for name in names:
            if name in event and other != kind:
                found.append(Issue(name, "kind", f"has no place in a follow-up of kind {kind}"))
    if kind == "refill-due" and "due_on" not in event:
        found.append(Issue("due_on", "required", "is required of a refill that is due"))
    if kind == "visit":
        # R4 app-3: only a proposed or cancelled appointment may be without its times
        if event["state"] not in ("proposed", "cancelled") and "starts_at" not in event:
            found.append(Issue("starts_at", "required", f"is required of a visit that is {event['state']}"))
        if ("starts_at" in event) != ("ends_at" in event):
            found.append(Issue("ends_at", "required", "starts_at and ends_at belong together"))
        if "purpose" not in event:
            found.append(Issue("purpose", "required", "is required of a visit"))
    return found


def _alarm_out(found: Json) -> Json:
    if "alarm_on" not in found:
        return {}
    return {"input": [{"type": local("low-reservoir-alarm-date"), "valueDate": found["alarm_on"]}]}


def _alarm_in(found: Json) -> Json:
    rest = [item for item in found.get("input", []) if "valueDate" not in item]
    days = [item["valueDate"] for item in found.get("input", []) if "valueDate" in item]
    if "input" in found:
        found["input"] = rest
    return {"alarm_on": days[0]} if days else {}


TASK = Mapping(
    Always("resourceType", "Task"),
    claim("itb-refill-due"),
    VERSION,
    VERIFIER,
    key("follow-up"),
    status_of("state", TASK_STATES),
    Always("intent", "order"),
    Always("code", local("refill-due")),
    Row("pump", "focus", PUMP, required=True),
    Row("patient", "for", PATIENT, required=True),
    Row("occurred_at", "authoredOn", required=True),
    Row("performer", "requester", PERSON),
    Row("reason", "reasonCode.text"),
    Row("note", "note[0].text"),
    Row("due_on", "restriction.period.end"),
    Group(("alarm_on",), ("input",), Codec(_alarm_out, _alarm_in)),
)


def _who_out(found: Json) -> Json:
    people = [
        {"actor": PATIENT.to_fhir(found["patient"]), "status": "accepted"},
        {"actor": PUMP.to_fhir(found["pump"]), "status": "accepted"},
    ]
    if "performer" in found:
        people.append({"actor": PERSON.to_fhir(found["performer"]), "status": "accepted"})
    return {"participant": people}


def _who_in(found: Json) -> Json:
    made: Json = {}
    rest = []
    codecs = {
        "Patient": ("patient", PATIENT),
        "Device": ("pump", PUMP),
        "Practitioner": ("performer", PERSON),
    }
    for item in found.get("participant", []):
        type = item.get("actor", {}).get("type")
        name, codec = codecs.get(str(type), (None, None))
        if name is None or codec is None or name in made:
            rest.append(item)
        else:
            made[name] = codec.from_fhir(item["actor"])
    if "participant" in found:
        found["participant"] = rest
    return made


PURPOSE = local_concepts("", *PURPOSES, value_set="itb-visit-purpose")

VISIT = Mapping(
    Always("resourceType", "Appointment"),
    claim("itb-visit"),
    VERSION,
    VERIFIER,
    key("follow-up"),
    status_of("state", VISIT_STATES),
    Always("serviceType[0]", local("pump-visit")),
    Row("purpose", "appointmentType", PURPOSE, required=True),
    Row("reason", "description"),
    Row("starts_at", "start"),
    Row("ends_at", "end"),
    Row("occurred_at", "created", required=True),
    Row("note", "comment"),
    Group(("patient", "pump", "performer"), ("participant",), Codec(_who_out, _who_in)),
)

MAPPING_OF = {"refill-due": TASK, "visit": VISIT}
TELLS = (
    Telling("Task", "follow-up", "code", ("refill-due",), "itb-refill-due"),
    Telling("Appointment", "follow-up", "serviceType", ("pump-visit",), "itb-visit"),
)
MAPPED = (("Task", "", TASK), ("Appointment", "", VISIT))
DERIVED = frozenset({"type", "kind"})


def encode(event: Event) -> list[Json]:
    """The Task or the Appointment."""
    return [MAPPING_OF[event["kind"]].encode(event)]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Task or Appointment, and the residue."""
    kind = "refill-due" if resource["resourceType"] == "Task" else "visit"
    type = resource["resourceType"]
    return {"type": "follow-up", "kind": kind, **MAPPING_OF[kind].read(resource)}, {type: resource}
