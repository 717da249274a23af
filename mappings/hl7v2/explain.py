"""Where each element of the FHIR of a message comes from: the event field, and the field of the message.

As in mappings/explain.py nothing is listed by hand: the rows by which a message is read (rows.py), and the
codes of its OBX (observed.py), say which place told which leaf of the event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from mappings import explain
from mappings.explain import COPIED
from mappings.paths import Json

from .convert import Came, Reading, read
from .leaves import Key, flat
from .message import Message, Separators
from .rows import MessageMap
from .sender import SenderMap
from .values import Leaf, Texts

CONVERTED = "converted"


@dataclass(frozen=True, slots=True)
class Told:
    """A field of an event, the place in the message that told it, and the texts there.

    `how`: copied (it stands so in a component, a number digit for digit) or converted (by its row's codec);
    `rule` the file that says so.
    """

    field: str
    place: str
    texts: Texts
    how: str
    rule: str


def told(event: Json, came: Came, separators: Separators) -> list[Told]:
    """What the places of a message told of its event, in the event's order."""
    m, places = came
    return [
        Told(_path(key), *places[key], _how(leaf, places[key][1], separators), _rule(m, places[key][0]))
        for key, leaf in flat(event).items()
        if key in places
    ]


def _path(key: Key) -> str:
    pattern, at = key
    return pattern.replace("[]", f"[{at}]")


def _how(leaf: Leaf, texts: Texts, separators: Separators) -> str:
    value = leaf["value"] if isinstance(leaf, dict) else leaf
    said = format(value, "f") if isinstance(value, Decimal) else str(value)
    marks = re.escape(separators.component + separators.repetition + separators.subcomponent)
    return COPIED if any(said in re.split(f"[{marks}]", text) for text in texts) else CONVERTED


def _rule(m: MessageMap, place: str) -> str:
    file = m.name.partition(" ")[0].replace("^", "_").lower()
    return f"mappings/hl7v2/{'observed' if place.startswith('OBX') else file}.py"


def shown(message: Message, sender: SenderMap) -> tuple[list[Json], Reading]:
    """`explain.shown` of each event of a message, each element with the places that told it (`hl7`)."""
    came: list[Came] = []
    reading = read(message, sender, came)
    made = []
    for event, one in zip(reading.events, came, strict=True):
        places = told(event, one, message.separators)
        of_event = explain.shown(event)
        elements = [{**element, "hl7": _of(element["from"], places)} for element in of_event["elements"]]
        made.append({**of_event, "elements": elements})
    return made, reading


def _of(fields: list[str], places: list[Told]) -> list[Json]:
    """The places that told these fields, what they are parts of, or parts of them."""
    return [
        {"field": one.field, "place": one.place, "text": list(one.texts), "how": one.how, "rule": one.rule}
        for one in places
        if any(_within(field, one.field) or _within(one.field, field) for field in fields)
    ]


def _within(one: str, other: str) -> bool:
    return one == other or one.startswith((f"{other}.", f"{other}["))
