"""An assessment: scores of tone, function, pain and goals at one visit (docs/fhir.md, "Scores").

An Observation that groups one Observation a score (`hasMember`); Ashworth grades stand muscle by muscle.
"""

from __future__ import annotations

from typing import Any

from . import scores
from .codes import OBSERVATION_CATEGORY, bare, local
from .envelope import Envelope, Event, Recorded
from .fields import Part
from .paths import Json
from .rows import Always, Issue, Mapping, Row
from .shared_rows import OBSERVED, SUBJECT, VERIFIER, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import PERSON


class AssessmentSchema(Recorded, Envelope):
    """Scores of one visit."""

    scores = Part(scores.SCORE_SCHEMA, many=True, required=True)

    def whole(self, data: Any) -> None:
        scores.tidy(data)


SCHEMA = AssessmentSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    return scores.issues(event)


PANEL = Mapping(
    Always("resourceType", "Observation"),
    claim("itb-assessment"),
    VERSION,
    VERIFIER,
    key("assessment"),
    Row("status", "status", OBSERVED, required=True),
    Always("category[0]", bare(OBSERVATION_CATEGORY, "survey")),
    Always("code", local("itb-assessment")),
    SUBJECT,
    Row("occurred_at", "effectiveDateTime", required=True),
    Row("performer", "performer[0]", PERSON),
    Row("note", "note[0].text"),
)

TELLS = (Telling("Observation", "assessment", "code", ("itb-assessment",), "itb-assessment"),)
MAPPED = (("Observation", "", PANEL), ("Observation", "scores.", scores.SCORE))
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The panel, and an Observation for each score."""
    panel = PANEL.encode({"status": "final", **event}) | {"hasMember": scores.SCORES.references(event)}
    return [panel, *scores.SCORES.encode(event)]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a panel and its members, and the residue."""
    event = {"type": "assessment", **PANEL.read(resource)}
    scores.SCORES.decode(resource, sources, event)
    return event, {"Observation": resource}
