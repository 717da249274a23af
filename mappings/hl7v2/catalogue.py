"""Which message tells which event, and which maps a message may be read by: the one list."""

from __future__ import annotations

from mappings.envelope import Event
from mappings.rows import Issue, MappingError, Refused

from .oru_r01 import ORU_R01
from .oru_r40 import ORU_R40
from .oru_r42 import ORU_R42
from .ras_o17 import RAS_O17
from .rde_o11 import RDE_O11
from .rows import Group, MessageMap
from .siu_s12 import SIU_S12
from .updates import KINDS
from .values import Context, nth, parts, word_in

READ = {
    "RAS^O17": RAS_O17,
    "RDE^O11": RDE_O11,
    "ORU^R40": ORU_R40,
    "ORU^R42": ORU_R42,
    **{f"SIU^{code}": SIU_S12 for code in ("S12", "S13", "S14", "S15", "S26")},
}
"""MSH-9 -> its map; ORU^R01 is told apart by OBR-4."""
WRITTEN = {"refill": RAS_O17, "dose-change": RDE_O11, "alarm": ORU_R40}
"""Type of event -> its message; ORU^R01 for those that have none of their own."""
MAPS = (RAS_O17, RDE_O11, ORU_R40, ORU_R42, SIU_S12, *ORU_R01.values())
CHOICES = tuple(sorted({m.name.partition(" ")[0] for m in MAPS}))


def map_for(event: Event, message: str = "") -> MessageMap:
    """How to write an event: as the message that is wanted, or as that of its type."""
    kind = event["type"]
    if not message:
        if kind == "follow-up" and event["kind"] == "visit":
            return SIU_S12
        return WRITTEN.get(kind, ORU_R01[kind])
    found = ORU_R01[kind] if message == "ORU^R01" else READ.get(message)
    visit = found is not SIU_S12 or event.get("kind") == "visit"
    if found is None or found.type != kind or not visit:
        raise MappingError(
            [Issue("type", "message", f"{message[:20]} does not tell an event of type {kind}")]
        )
    return found


def map_of(name: str, group: Group, c: Context) -> MessageMap:
    """How to read a group of a message `name` (`ORU^R01`); raises `MappingError`."""
    found = READ.get(name)
    if found is not None:
        return found
    if name != "ORU^R01":
        why = f"{name[:20]!r} is not read; known: ORU^R01, {', '.join((*READ, *KINDS))}"
        raise MappingError([Issue("MSH[1]-9", "message-type", why)])
    text = group.text("OBR", 4)
    try:
        kind = word_in(text, c) if text else ""
    except Refused as error:
        raise MappingError([Issue("OBR[1]-4", error.rule, str(error))]) from None
    if kind not in ORU_R01:
        raise MappingError([Issue("OBR[1]-4", "code", "names no type of event")])
    return ORU_R01[kind]


def message_name(text: str, c: Context) -> str:
    """`RAS^O17` of MSH-9."""
    found = parts(text, c)
    return f"{nth(found, 1, c)}^{nth(found, 2, c)}"
