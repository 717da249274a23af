"""R4's element table (`r4_types.json`) and the patterns of its primitive types.

The table is made from HL7's own definitions by tests/r4_definitions.py: elements, cardinalities, required
codes and reference targets of each resource type that is written or read, and of the datatypes they use.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import msgspec

from .paths import Json

YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
DAY = (
    rf"(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP}-02-29)"
)
"""A day of the Gregorian calendar: 30 February is none."""
DATE = rf"(?:{YEAR}(?:-(?:0[1-9]|1[0-2]))?|{DAY})"
CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
ZONE = r"(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
OID = r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"
UUID = r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
URI = rf"(?:(?!urn:oid:|urn:uuid:)\S+|{OID}|{UUID})"
"""An OID or UUID in a URI is written as one alone is (R4 uri: urn:uuid in small letters)."""
ABSOLUTE = r"[A-Za-z][A-Za-z0-9+.-]*:"
PATTERNS = {
    "id": r"[A-Za-z0-9\-.]{1,64}",
    "code": r"[^\s]+( [^\s]+)*",
    "uri": URI,
    "url": URI,
    "canonical": rf"(?={ABSOLUTE}\S|#){URI}",
    "oid": OID,
    "uuid": UUID,
    "date": DATE,
    "dateTime": rf"(?:{DATE}|{DAY}T{CLOCK}{ZONE})",
    "instant": rf"{DAY}T{CLOCK}{ZONE}",
    "time": CLOCK,
    "string": r"[\s\S]+",
    "markdown": r"[\s\S]+",
    "base64Binary": r"(\s*([0-9a-zA-Z+/=]){4}\s*)+",
    "xhtml": r"[\s\S]+",
}
"""R4 Data types: the patterns of the primitive types that JSON writes as strings."""


@lru_cache(1)
def table() -> Json:
    """The element table, read once."""
    return msgspec.json.decode(files("mappings").joinpath("r4_types.json").read_bytes())


CHECKED = tuple(name for name in table()["types"] if name in table()["resourceTypes"])
"""The resource types that are checked in full."""
RESOURCE_TYPES = frozenset(table()["resourceTypes"])
"""Every resource type of R4."""
