"""Intrathecal baclofen events to and from FHIR R4: pure functions, no IO, no clock.

`load_event` checks one event, `to_fhir` gives its transaction Bundle, `from_fhir` reads it back;
`stream.Converter` carries each pump's last program forward over many events.
"""

from .bundle import Reading, from_fhir, read_fhir, resources, to_fhir
from .event import EVENT_TYPES, MAPPINGS, Event, load_event
from .rows import Issue, MappingError

__all__ = [
    "EVENT_TYPES",
    "MAPPINGS",
    "Event",
    "Issue",
    "MappingError",
    "Reading",
    "from_fhir",
    "load_event",
    "read_fhir",
    "resources",
    "to_fhir",
]
