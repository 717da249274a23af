"""Education of patient and family: a Procedure that names its topics and who was taught.

docs/fhir.md, "Education".
"""

from __future__ import annotations

from typing import Any

from .codes import definition, extension, local, local_concepts
from .envelope import Envelope, Event, Recorded
from .fields import Flag, Line, Words
from .paths import Json
from .rows import Always, Codec, Group, Issue, Mapping, Row
from .shared_rows import STATUS, SUBJECT, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import PERFORMERS

TOPICS = (
    "alarms",
    "withdrawal",
    "overdose",
    "refills",
    "emergency-card",
    "mri",
    "wound-care",
    "patient-bolus",
    "oral-baclofen",
)
AUDIENCE = ("patient", "family", "carer", "school")


class EducationSchema(Recorded, Envelope):
    """What was taught, to whom, with which material, and whether it was understood."""

    topics = Words(*TOPICS, required=True)
    audience = Words(*AUDIENCE)
    material = Line()
    understood = Flag()


SCHEMA = EducationSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole: nothing beyond its fields."""
    return []


TOPIC = local_concepts("education-", *TOPICS, value_set="itb-education-topic")
TOPIC_URL = definition("itb-education-topic")
AUDIENCE_URL = definition("itb-education-audience")


def _lists_out(found: Json) -> Json:
    made = [{"url": TOPIC_URL, "valueCodeableConcept": TOPIC.to_fhir(t)} for t in found.get("topics", ())]
    made += [{"url": AUDIENCE_URL, "valueCode": word} for word in found.get("audience", ())]
    return {"extension": made}


def _lists_in(found: Json) -> Json:
    made: Json = {"topics": [], "audience": []}
    rest = []
    for item in found.get("extension", []):
        if item["url"] == TOPIC_URL:
            made["topics"].append(TOPIC.from_fhir(item["valueCodeableConcept"]))
        elif item["url"] == AUDIENCE_URL:
            made["audience"].append(item["valueCode"])
        else:
            rest.append(item)
    if "extension" in found:
        found["extension"] = rest
    return {name: words for name, words in made.items() if words}


LESSON = Mapping(
    Always("resourceType", "Procedure"),
    claim("itb-education"),
    VERSION,
    Row("understood", extension("itb-education-understood", "valueBoolean")),
    Group(("topics", "audience"), ("extension",), Codec(_lists_out, _lists_in)),
    key("education"),
    Row("status", "status", STATUS, required=True),
    Always("code", local("education")),
    SUBJECT,
    Row("occurred_at", "performedDateTime", required=True),
    Group(("performer", "verifier"), ("performer",), PERFORMERS),
    Row("note", "note[0].text"),
    Row("material", "usedCode[0].text"),
)

TELLS = (Telling("Procedure", "education", "code", ("education",), "itb-education"),)
MAPPED = (("Procedure", "", LESSON),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The one Procedure."""
    return [LESSON.encode({"status": "final", **event})]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Procedure, and the residue."""
    return {"type": "education", **LESSON.read(resource)}, {"Procedure": resource}
