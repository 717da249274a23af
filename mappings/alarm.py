"""An alarm of the pump: an Observation from when it began to when it ended, and a Flag while it lasts.

docs/fhir.md, "Alarms"; which alarms are critical: docs/clinical.md, "Alarms and log".
"""

from __future__ import annotations

from typing import Any

from .codes import FLAG_CATEGORY, bare, concepts, local
from .envelope import Event, PumpEnvelope, Recorded, in_order
from .fields import Code, Moment
from .paths import Json
from .rows import Always, Codec, Derived, Group, Issue, Mapping, Refused, Row
from .shared_rows import OBSERVED, SUBJECT, VERIFIER, VERSION, claim, event_status, key, part_key
from .sources import Sources
from .telling import Telling
from .values import PERSON, PUMP

ALARMS = {
    "low-reservoir": "alarm-low-reservoir",
    "empty-reservoir": "alarm-empty",
    "eri": "alarm-eri",
    "eos": "alarm-eos",
    "motor-stall": "alarm-stall",
    "stopped-pump": "alarm-stopped",
    "critical-memory-error": "alarm-memory",
    "noncritical-memory-error": "alarm-memory-noncritical",
}


class AlarmSchema(Recorded, PumpEnvelope):
    """One alarm: `occurred_at` is when it began, `ended_at` when it was over."""

    alarm = Code(*ALARMS, required=True)
    ended_at = Moment()


SCHEMA = AlarmSchema()


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    return in_order(event, "occurred_at", "ended_at")


def _period(found: Json) -> Json:
    return {"start": found["occurred_at"]} | ({"end": found["ended_at"]} if "ended_at" in found else {})


def _period_in(found: Json) -> Json:
    if "start" not in found.get("effectivePeriod", {}):
        raise Refused("required", "effectivePeriod.start is required: when the alarm began")
    period = found["effectivePeriod"]
    made = {"occurred_at": period.pop("start")}
    return made | ({"ended_at": period.pop("end")} if "end" in period else {})


KIND = concepts({k: local(v) for k, v in ALARMS.items()}, "itb-pump-alarm")

ALARM = Mapping(
    Always("resourceType", "Observation"),
    claim("itb-alarm"),
    VERSION,
    VERIFIER,
    key("alarm"),
    Row("status", "status", OBSERVED, required=True),
    Always("code", local("pump-alarm")),
    SUBJECT,
    Row("pump", "focus[0]", PUMP, required=True),
    Group(
        ("occurred_at", "ended_at"),
        ("effectivePeriod",),
        Codec(lambda found: {"effectivePeriod": _period(found)}, _period_in),
    ),
    Row("performer", "performer[0]", PERSON),
    Row("alarm", "valueCodeableConcept", KIND, required=True),
    Row("note", "note[0].text"),
)

FLAG = Mapping(
    Always("resourceType", "Flag"),
    claim("itb-alarm-flag"),
    part_key("alarm-flag"),
    Derived("status", lambda event: event_status(event, "inactive" if "ended_at" in event else "active")),
    Always("category[0]", bare(FLAG_CATEGORY, "safety")),
    Derived("code", lambda event: local(ALARMS[event["alarm"]])),
    SUBJECT,
    Derived("period", _period),
)
"""What warns an EHR's user; a projection (docs/decisions/0005)."""

TELLS = (Telling("Observation", "alarm", "code", ("pump-alarm",), "itb-alarm"),)
MAPPED = (("Observation", "", ALARM),)
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The Observation and its Flag."""
    return [ALARM.encode({"status": "final", **event}), FLAG.encode(event)]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of an Observation, and the residue."""
    return {"type": "alarm", **ALARM.read(resource)}, {"Observation": resource}
