"""An evaluation before the decision for a pump: indication and cause, team, goals, medicines tried.

A ClinicalImpression tells it; it points to the Condition (`problem`), and to CareTeam, Goals and
MedicationStatements (`supportingInfo`). docs/fhir.md, "Evaluation".
"""

from __future__ import annotations

from typing import Any

from .codes import (
    CAUSES,
    CONDITION_CATEGORY,
    CONDITION_CLINICAL,
    CONDITION_VERIFICATION,
    INDICATIONS,
    bare,
    concepts,
    local,
    sid,
)
from .envelope import URI, Envelope, Event, Recorded, Strictly
from .fields import Code, Day, Line, Part, Prose
from .members import Members, numbered, parted, same_patient
from .paths import Json, at
from .rows import Always, Codec, Derived, Group, Issue, Mapping, Row
from .shared_rows import (
    MEMBER_SUBJECT,
    STATUS,
    SUBJECT,
    VERIFIER,
    VERSION,
    claim,
    event_status,
    key,
    part_key,
    part_reference,
    status_of,
)
from .sources import Sources
from .telling import Telling
from .values import PERSON

TEAM_SYSTEM = sid("care-team")
DUE_TO = "http://hl7.org/fhir/StructureDefinition/condition-dueTo"


class IndicationSchema(Strictly):
    """What the therapy is for, and what that comes from."""

    kind = Code(*INDICATIONS, required=True)
    cause = Code(*CAUSES)
    onset_on = Day(month_enough=True)
    description = Prose()


class TeamMemberSchema(Strictly):
    """One of the team: a role, and who."""

    role = Line(required=True)
    system = Line(pattern=URI, words="must be a URI such as http://hl7.org/fhir/sid/us-npi")
    value = Line()
    name = Line()


class GoalSchema(Strictly):
    """What the family and the team want to reach."""

    description = Line(required=True)
    state = Code("proposed", "accepted", "active", "completed", "cancelled", required=True)
    due_on = Day()


class MedicineSchema(Strictly):
    """A medicine that was tried before."""

    name = Line(required=True)
    state = Code("current", "past", required=True)
    dose = Line()
    result = Prose()


class EvaluationSchema(Recorded, Envelope):
    """The examination before a decision for intrathecal baclofen."""

    indication = Part(IndicationSchema(), required=True)
    team = Part(TeamMemberSchema(), many=True)
    goals = Part(GoalSchema(), many=True)
    medicines_tried = Part(MedicineSchema(), many=True)
    summary = Prose()


SCHEMA = EvaluationSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    found = []
    for index, member in enumerate(event.get("team", ())):
        if ("system" in member) != ("value" in member):
            found.append(Issue(f"team[{index}]", "required", "system and value belong together"))
        elif not member.keys() & {"value", "name"}:
            found.append(Issue(f"team[{index}]", "required", "needs a system and value, or a name"))
    return found


IMPRESSION = Mapping(
    Always("resourceType", "ClinicalImpression"),
    claim("itb-evaluation"),
    VERSION,
    VERIFIER,
    key("evaluation"),
    Row("status", "status", STATUS, required=True),
    Always("code", local("evaluation")),
    SUBJECT,
    Row("occurred_at", "effectiveDateTime", required=True),
    Row("performer", "assessor", PERSON),
    Row("summary", "summary"),
    Row("note", "note[0].text"),
)


def _certainty(event: Event) -> Json:
    return bare(CONDITION_VERIFICATION, event_status(event, "confirmed"))


def _activity(event: Event) -> Json:
    return None if event.get("status") == "entered-in-error" else bare(CONDITION_CLINICAL, "active")


INDICATION = Mapping(
    Always("resourceType", "Condition"),
    claim("itb-indication"),
    Row(
        "indication.cause",
        at(f"extension[url={DUE_TO}]", "valueCodeableConcept"),
        concepts(CAUSES, "itb-cause"),
    ),
    part_key("indication"),
    Derived("clinicalStatus", _activity),
    Derived("verificationStatus", _certainty),
    Always("category[0]", bare(CONDITION_CATEGORY, "problem-list-item")),
    Row("indication.kind", "code", concepts(INDICATIONS, "itb-indication"), required=True),
    SUBJECT,
    Row("indication.onset_on", "onsetDateTime"),
    Derived("recordedDate", lambda event: event["occurred_at"]),
    Row("indication.description", "note[0].text"),
)


def _team_out(found: Json) -> Json:
    participants = []
    for member in found.get("team", ()):
        who = {name: value for name, value in member.items() if name != "role"}
        participants.append({"role": [{"text": member["role"]}], "member": PERSON.to_fhir(who)})
    return {"participant": participants} if participants else {}


def _team_in(found: Json) -> Json:
    participants = found.pop("participant", [])
    return {"team": [{"role": p["role"][0]["text"], **PERSON.from_fhir(p["member"])} for p in participants]}


TEAM = Mapping(
    Always("resourceType", "CareTeam"),
    claim("itb-care-team"),
    part_key("care-team"),
    Derived("status", lambda event: event_status(event, "active")),
    SUBJECT,
    Group(("team",), ("participant",), Codec(_team_out, _team_in)),
)

GOAL = Mapping(
    Always("resourceType", "Goal"),
    claim("itb-goal"),
    numbered("goal"),
    status_of(
        "state",
        {c: c for c in ("proposed", "accepted", "active", "completed", "cancelled")},
        path="lifecycleStatus",
        status="event.status",
    ),
    Row("description", "description.text", required=True),
    MEMBER_SUBJECT,
    Row("due_on", "target[0].dueDate"),
)

MEDICINE = Mapping(
    Always("resourceType", "MedicationStatement"),
    claim("itb-medicine-tried"),
    numbered("medicine-tried"),
    status_of("state", {"current": "active", "past": "completed"}, status="event.status"),
    Row("name", "medicationCodeableConcept.text", required=True),
    MEMBER_SUBJECT,
    Derived("dateAsserted", lambda item: item["event"]["occurred_at"]),
    Row("result", "note[0].text"),
    Row("dose", "dosage[0].text"),
)
GOALS = Members("goals", "Goal", "goal", "supportingInfo", GOAL)
MEDICINES = Members("medicines_tried", "MedicationStatement", "medicine-tried", "supportingInfo", MEDICINE)

TELLS = (Telling("ClinicalImpression", "evaluation", "code", ("evaluation",), "itb-evaluation"),)
MAPPED = (
    ("ClinicalImpression", "", IMPRESSION),
    ("Condition", "", INDICATION),
    ("CareTeam", "", TEAM),
    ("Goal", "goals.", GOAL),
    ("MedicationStatement", "medicines_tried.", MEDICINE),
)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The impression, the condition, and team, goals and medicines where there are any."""
    impression = IMPRESSION.encode({"status": "final", **event})
    impression["problem"] = [part_reference("Condition", "indication", event)]
    made = [INDICATION.encode(event)]
    info = []
    if "team" in event:
        info.append(part_reference("CareTeam", "care-team", event))
        made.append(TEAM.encode(event))
    for members in (GOALS, MEDICINES):
        info += members.references(event)
        made += members.encode(event)
    if info:
        impression["supportingInfo"] = info
    return [impression, *made]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of an impression and what it points to, and the residue."""
    event = {"type": "evaluation", **IMPRESSION.read(resource)}
    condition = parted(resource, "problem", "indication", sources)
    event |= same_patient(INDICATION.read(condition), event, "Condition")
    residue = {"ClinicalImpression": resource, "Condition": condition}
    named = [(r.get("identifier") or {}).get("system") for r in resource.get("supportingInfo", [])]
    if TEAM_SYSTEM in named:
        team = parted(resource, "supportingInfo", "care-team", sources)
        event |= same_patient(TEAM.read(team), event, "CareTeam")
        residue["CareTeam"] = team
    for members in (GOALS, MEDICINES):
        members.decode(resource, sources, event)
    INDICATION.check(condition, event)
    return event, residue
