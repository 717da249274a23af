"""From sent JSON to a canonical event: the one list of event types, and the one way in."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from marshmallow import ValidationError

from . import (
    alarm,
    assessment,
    complication,
    device,
    document,
    dose_change,
    education,
    evaluation,
    follow_up,
    interrogation,
    oral_baclofen,
    procedure,
    refill,
    screening,
)
from .envelope import Event, identity, is_retracted, lane_key, occurred, pump_of, version
from .event_schema import Loader, loader
from .fields import instant, issues_of
from .paths import Json
from .rows import Issue, MappingError
from .telling import Telling

__all__ = [
    "EVENTS_TOLD_BY",
    "EVENT_TYPES",
    "MAPPINGS",
    "Event",
    "identity",
    "instant",
    "is_retracted",
    "lane_key",
    "load_event",
    "occurred",
    "pump_of",
    "telling_of",
    "version",
]

MAPPINGS: dict[str, Any] = {
    "device": device,
    "refill": refill,
    "dose-change": dose_change,
    "evaluation": evaluation,
    "screening": screening,
    "procedure": procedure,
    "interrogation": interrogation,
    "alarm": alarm,
    "complication": complication,
    "assessment": assessment,
    "education": education,
    "oral-baclofen": oral_baclofen,
    "follow-up": follow_up,
}
"""Every event type and the module that knows it: SCHEMA, issues, TELLS, MAPPED, encode, decode."""

EVENT_TYPES = tuple(MAPPINGS)
DEFAULTS = {"version": 1, "status": "final"}
_TELLING: dict[str, list[tuple[Telling, Any]]] = {}
for _module in MAPPINGS.values():
    for _telling in _module.TELLS:
        _TELLING.setdefault(_telling.type, []).append((_telling, _module))
EVENTS_TOLD_BY = tuple(_TELLING)
"""The resource types that tell events; besides these, a document of any event does."""
_TELLING["DocumentReference"] = [(document.TELLING, document)]


def telling_of(resource: Json) -> tuple[Telling, Any] | None:
    """How a resource tells an event, and the module that reads it; None for one that tells none."""
    for telling, module in _TELLING.get(resource.get("resourceType", ""), ()):
        if telling.tells(resource):
            return telling, module
    return None


@lru_cache(None)
def _plainly(kind: str) -> Loader:
    """The compiled loader of a type: most events are plainly right."""
    return loader(MAPPINGS[kind].SCHEMA)


def _thoroughly(schema: Any, raw: Json) -> Event:
    """marshmallow's verdict, field by field; raises `MappingError`."""
    try:
        event: Event = schema.load(raw)
    except ValidationError as error:
        raise MappingError(issues_of(error.messages)) from None
    return event


def load_event(raw: Json) -> Event:
    """The canonical event of parsed JSON: checked, UCUM units, contract key order, defaults left out.

    Raises `MappingError` with every issue found.
    """
    if not isinstance(raw, dict):
        raise MappingError([Issue("$", "type", "an event is a JSON object")])
    kind = raw.get("type")
    if "type" not in raw:
        raise MappingError([Issue("type", "required", "is required")])
    if not isinstance(kind, str) or kind not in MAPPINGS:
        known = ", ".join(EVENT_TYPES)
        raise MappingError([Issue("type", "type", f"unknown event type; known: {known}")])
    mapping = MAPPINGS[kind]
    event: Event = _plainly(kind)(raw) or _thoroughly(mapping.SCHEMA, raw)
    for name, default in DEFAULTS.items():
        if event.get(name) == default:
            del event[name]
    found = mapping.issues(event)
    if found:
        raise MappingError(found)
    return event
