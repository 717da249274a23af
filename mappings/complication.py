"""A problem of the therapy: withdrawal, overdose, infection, leak, catheter, pocket (docs/clinical.md,
"Problems to report").

A Condition tells it. No AdverseEvent is written: docs/decisions/0008.
"""

from __future__ import annotations

from typing import Any

from .codes import (
    ADVERSE_EVENT_SEVERITY,
    CONDITION_CATEGORY,
    CONDITION_CLINICAL,
    CONDITION_VERIFICATION,
    bare,
    concepts,
    definition,
    extension,
    local_concepts,
)
from .envelope import Event, PumpEnvelope, Recorded, in_order
from .fields import Code, Moment, Prose
from .paths import Json
from .rows import Always, Codec, Group, Issue, Mapping, Refused, Row
from .shared_rows import SUBJECT, VERIFIER, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import PERSON, PUMP

PROBLEMS = (
    "withdrawal",
    "overdose",
    "infection",
    "csf-leak",
    "catheter-problem",
    "pocket-fill",
    "seroma",
    "pump-flip",
    "erosion",
    "mri-effect",
)
SEVERITY = concepts(
    {word: bare(ADVERSE_EVENT_SEVERITY, word) for word in ("mild", "moderate", "severe")}, "itb-severity"
)


class ComplicationSchema(Recorded, PumpEnvelope):
    """One problem: `occurred_at` is when it began, `ended_at` when it was over."""

    problem = Code(*PROBLEMS, required=True)
    severity = Code("mild", "moderate", "severe")
    ended_at = Moment()
    signs = Prose()


SCHEMA = ComplicationSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    return in_order(event, "occurred_at", "ended_at")


ENDED_BEFORE = f"extension[url={definition('itb-ended-before-error')}].valueDateTime"


def _state_out(found: Json) -> Json:
    """R4 con-4: what has abated has a clinical status; con-5: what was entered in error has none."""
    if found.get("status") == "entered-in-error":
        ended = {ENDED_BEFORE: found["ended_at"]} if "ended_at" in found else {}
        return {"verificationStatus": bare(CONDITION_VERIFICATION, "entered-in-error"), **ended}
    ended = {"abatementDateTime": found["ended_at"]} if "ended_at" in found else {}
    return {
        "clinicalStatus": bare(CONDITION_CLINICAL, "resolved" if ended else "active"),
        "verificationStatus": bare(CONDITION_VERIFICATION, "confirmed"),
        **ended,
    }


def _state_in(found: Json) -> Json:
    made = {"ended_at": found.pop("abatementDateTime")} if "abatementDateTime" in found else {}
    if VERIFICATION.from_fhir(found.pop("verificationStatus")) == "entered-in-error":
        held = found.pop(ENDED_BEFORE, None)
        return made | {"status": "entered-in-error"} | ({"ended_at": held} if held else {})
    if (CLINICAL.from_fhir(found.pop("clinicalStatus")) == "resolved") != ("ended_at" in made):
        raise Refused("derived", "clinicalStatus resolved and an abatementDateTime belong together")
    return made


VERIFICATION = concepts({c: bare(CONDITION_VERIFICATION, c) for c in ("confirmed", "entered-in-error")})
CLINICAL = concepts({c: bare(CONDITION_CLINICAL, c) for c in ("active", "resolved")})

PROBLEM = Mapping(
    Always("resourceType", "Condition"),
    claim("itb-complication"),
    VERSION,
    VERIFIER,
    Row("pump", extension("itb-affected-pump", "valueReference"), PUMP, required=True),
    key("complication"),
    Group(
        ("status", "ended_at"),
        ("verificationStatus", "clinicalStatus", "abatementDateTime", ENDED_BEFORE),
        Codec(_state_out, _state_in),
    ),
    Always("category[0]", bare(CONDITION_CATEGORY, "problem-list-item")),
    Row("severity", "severity", SEVERITY),
    Row("problem", "code", local_concepts("", *PROBLEMS, value_set="itb-problem"), required=True),
    SUBJECT,
    Row("occurred_at", "onsetDateTime", required=True),
    Row("performer", "recorder", PERSON),
    Row("signs", "evidence[0].code[0].text"),
    Row("note", "note[0].text"),
)


TELLS = (Telling("Condition", "complication", "code", PROBLEMS, "itb-complication"),)
MAPPED = (("Condition", "", PROBLEM),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The one Condition."""
    return [PROBLEM.encode(event)]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Condition, and the residue."""
    return {"type": "complication", **PROBLEM.read(resource)}, {"Condition": resource}
