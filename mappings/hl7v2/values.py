"""How one value is written in HL7 v2: codecs between the leaves of an event and the text of fields.

Each codec is an inverse pair; what one form cannot hold (nanoseconds, say) shows when it is read back, and is
then written as an OBX beside it (rows.py). Types: HL7 v2 chapter 2A.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context as DecimalContext
from decimal import Decimal, DivisionByZero, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from mappings.codes import DISPLAY
from mappings.fields import SAME_UNIT
from mappings.identity import SOURCE
from mappings.incoming import MILLI
from mappings.rows import Issue, Refused

from .message import USUAL, Separators, escape, unescape
from .sender import SenderMap

Leaf = Any
Texts = tuple[str, ...]
LOCAL_SYSTEM = "99ITB"
"""Our code system in HL7 v2 (table 0396: 99 and three letters is local)."""
NULL = '""'


@dataclass(slots=True)
class Context:
    """Whose message it is and how it is written; `notes` is what was converted on the way, at `at`.

    `came` takes where each leaf that is read came from, and the texts there, for who asks (explain.py).
    """

    sender: SenderMap
    separators: Separators = USUAL
    notes: list[Issue] = field(default_factory=list)
    at: str = ""
    came: dict[tuple[str, int], tuple[str, Texts]] | None = None

    def note(self, path: str, rule: str, message: str) -> None:
        self.notes.append(Issue(path, rule, message))


Leaves = tuple[Leaf, ...]


@dataclass(frozen=True, slots=True)
class Codec:
    """Leaves of an event ⇄ texts of fields; None is a leaf that is not there, "" such a text.

    `exact`: holds every value there is, digit for digit, so that it need not be read back to know.
    """

    to_hl7: Callable[[Leaves, Context], Texts]
    from_hl7: Callable[[Texts, Context], Leaves]
    exact: bool = False


def single(
    to_hl7: Callable[[Leaf, Context], str], from_hl7: Callable[[str, Context], Leaf], *, exact: bool = False
) -> Codec:
    """A codec of one leaf in one field."""
    return Codec(
        lambda leaves, c: (to_hl7(leaves[0], c),),
        lambda texts, c: (from_hl7(texts[0], c) if texts[0] else None,),
        exact,
    )


# --- parts of a field -----------------------------------------------------------------------------------


def parts(text: str, c: Context) -> list[str]:
    """The components of a field, unescaped only where asked for (`plain`)."""
    return text.split(c.separators.component)


def plain(component: str, c: Context) -> str:
    return unescape(component, c.separators) if c.separators.escape in component else component


def nth(components: list[str], number: int, c: Context) -> str:
    """Component `number` (from 1), unescaped; empty where there is none."""
    return plain(components[number - 1], c) if number <= len(components) else ""


def joined(c: Context, *components: str) -> str:
    """Escaped components as a field, without empty ones at its end."""
    text = c.separators.component.join(escape(one, c.separators) for one in components)
    return text.rstrip(c.separators.component)


# --- text -----------------------------------------------------------------------------------------------

TEXT = single(lambda value, c: escape(value, c.separators), lambda text, c: plain(text, c), exact=True)


def _named_out(value: str, c: Context) -> str:
    return joined(c, "", value)


def _named_in(text: str, c: Context) -> str | None:
    found = parts(text, c)
    return nth(found, 2, c) or nth(found, 1, c) or None


IN_WORDS = single(_named_out, _named_in)
"""A CWE that is only text: `^text`."""


# --- times ----------------------------------------------------------------------------------------------

_DTM = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,4}))?)?)?)?)?)?([+-]\d{4})?"
)


def moment_out(value: str, c: Context) -> str:
    """`2025-04-01T10:00:00-05:00` -> `20250401100000-0500`; DTM holds four digits of a second."""
    if c.sender.write_zone is not None:
        value = in_zone(value, c.sender.write_zone)
    day, time = value[:10].replace("-", ""), value[11:19].replace(":", "")
    rest = value[19:]
    zone = "+0000" if rest.endswith("Z") else rest[-6:].replace(":", "")
    fraction = rest[: -1 if rest.endswith("Z") else -6][:5]
    return f"{day}{time}{fraction if len(fraction) > 1 else ''}{zone}"


def in_zone(value: str, zone: ZoneInfo) -> str:
    """The same instant by that zone's clocks; as it is where they stood at odd seconds (before 1900)."""
    at = len(value) - (1 if value.endswith("Z") else 6)
    there = datetime.fromisoformat(value[:19] + value[at:]).astimezone(zone)
    text = there.isoformat()
    return f"{text[:19]}{value[19:at]}{text[19:]}" if len(text) == 25 else value


def moment_in(text: str, c: Context) -> str:
    """The time of a DTM; refused where it is cut short, or without an offset that can be known."""
    found = _DTM.fullmatch(text)
    if found is None:
        raise Refused("time", "must be a time such as 20250401100000-0500")
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    if minute is None:
        raise Refused("time", "is cut short: a time is needed to the second, and is never widened")
    if second is None:
        if not c.sender.whole_minutes:
            raise Refused("time", "has no seconds, and the sender's file does not say whole_minutes")
        second = "00"
    local = f"{year}-{month}-{day}T{hour}:{minute}:{second}"
    if offset is None:
        offset = _offset(local, c.sender.zone)
    elif offset == "+0000":
        offset = "Z"
    else:
        offset = f"{offset[:3]}:{offset[3:]}"
    return f"{local}{'.' + fraction if fraction else ''}{offset}"


def _offset(local: str, zone: ZoneInfo | None) -> str:
    if zone is None:
        raise Refused("time-zone", "has no offset from UTC, and the sender's file names no zone")
    try:
        naive = datetime.fromisoformat(local)
    except ValueError:
        raise Refused("time", "is not a time that exists") from None
    seconds = _offset_seconds(naive, zone)
    if seconds is None:
        raise Refused("time-zone", f"happened twice, or never, in {zone.key}: an offset is needed")
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


@lru_cache(maxsize=4096)
def _offset_seconds(naive: datetime, zone: ZoneInfo) -> int | None:
    """The offset of a local time; None for an hour that a change of the clock repeats or leaves out."""
    first, second = naive.replace(tzinfo=zone), naive.replace(tzinfo=zone, fold=1)
    offset = first.utcoffset() or timedelta()
    if offset != second.utcoffset() or first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive:
        return None
    return int(offset.total_seconds())


MOMENT = single(moment_out, moment_in)


_DATE = re.compile(r"\d{4}(?:\d\d){1,2}")


def day_in(text: str, c: Context) -> str:
    """The date of a DT (or of a DTM that says no more); to the month where it is cut there."""
    if not _DATE.fullmatch(text):
        raise Refused("date", "must be a date such as 20270930, without a time")
    return "-".join(part for part in (text[:4], text[4:6], text[6:8]) if part)


DAY = single(lambda value, c: value.replace("-", ""), day_in, exact=True)


_CLOCK = re.compile(r"\d{4}(?:00)?")


def clock_in(text: str, c: Context) -> str:
    if not _CLOCK.fullmatch(text):
        raise Refused("time", "must be a time of the pump's clock to the minute, such as 0600")
    return f"{text[:2]}:{text[2:4]}"


CLOCK = single(lambda value, c: value.replace(":", ""), clock_in, exact=True)


# --- numbers and units ----------------------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?\d{1,24}(?:\.\d{1,24})?")
_WHOLE = re.compile(r"-?\d{1,12}")


def number_in(text: str) -> Decimal:
    """An NM, digit for digit."""
    if not _NUMBER.fullmatch(text):
        raise Refused("number", "must be a decimal number without an exponent")
    return Decimal(text)


def whole_in(text: str, c: Context) -> int:
    if not _WHOLE.fullmatch(text):
        raise Refused("number", "must be a whole number")
    return int(text)


WHOLE = single(lambda value, c: str(value), whole_in)
SPELT = {**SAME_UNIT, "ml": "mL", "MCG": "ug", "UG": "ug", "ML": "mL"}
"""What HL7 v2 senders write for the parts of a UCUM unit, beside what our JSON takes."""


def unit_out(unit: str, c: Context) -> str:
    return _unit_text(unit, c.separators)


@lru_cache(maxsize=256)
def _unit_text(unit: str, separators: Separators) -> str:
    return separators.component.join((escape(unit, separators), escape(unit, separators), "UCUM"))


def unit_in(text: str, c: Context) -> str:
    """The UCUM unit of a CWE; refused where it is missing."""
    if not text:
        raise Refused("unit", "has no unit; a unit is never guessed")
    if not c.sender.units and c.separators is USUAL:
        return _usual_unit(text)
    return _unit(text, c)


def _unit(text: str, c: Context) -> str:
    found = parts(text, c)
    code, system = nth(found, 1, c), nth(found, 3, c)
    units = c.sender.units
    known = units.get(f"{code}^{system}") or units.get(code)
    return known or "/".join(SPELT.get(part, part) for part in code.split("/"))


@lru_cache(maxsize=1024)
def _usual_unit(text: str) -> str:
    return _unit(text, Context(SenderMap()))


def in_units(value: Decimal, unit: str, wanted: tuple[str, ...], c: Context) -> Leaf:
    """The quantity, mg shifted to ug where ug is wanted; any other unit is refused."""
    if unit not in wanted:
        micro = MILLI.get(unit)
        if micro not in wanted:
            raise Refused("unit", f"unknown unit {unit[:40]!r}; accepted: {', '.join(wanted)}")
        shifted = Decimal(format(value.scaleb(3), "f"))
        c.note(c.at, "mg-to-ug", f"{value} {unit} was read as {shifted} {micro}")
        value, unit = shifted, micro
    return {"value": value, "unit": unit}


def amount(*units: str) -> Codec:
    """A quantity ⇄ a number in one field and its unit in another."""

    def out(leaves: Leaves, c: Context) -> Texts:
        return format(leaves[0]["value"], "f"), unit_out(leaves[0]["unit"], c)

    def read(texts: Texts, c: Context) -> Leaves:
        if not texts[0]:
            return (None,)
        return (in_units(number_in(texts[0]), unit_in(texts[1], c), units, c),)

    return Codec(out, read, exact=True)


def _composite_out(value: Leaf, c: Context) -> str:
    return (
        joined(c, format(value["value"], "f")) + c.separators.component + escape(value["unit"], c.separators)
    )


def composite(*units: str) -> Codec:
    """A quantity ⇄ a CQ: `2^h`."""

    def read(text: str, c: Context) -> Leaf:
        number, _, unit = text.partition(c.separators.component)
        code = unit.split(c.separators.subcomponent)[0]
        return in_units(number_in(number), unit_in(code, c), units, c)

    return single(_composite_out, read, exact=True)


def _strength_out(leaves: Leaves, c: Context) -> Texts:
    return format(leaves[0]["value"], "f"), unit_out("ug", c), "1", unit_out("mL", c)


EXACT = DecimalContext(prec=40, traps=[Inexact, DivisionByZero, InvalidOperation])


def _quotient(above: Decimal, below: Decimal) -> Decimal:
    """above / below where that has an end."""
    try:
        return Decimal(format(EXACT.divide(above, below), "f"))
    except (Inexact, DivisionByZero, InvalidOperation):
        raise Refused("number", f"{above} in {below} mL has no exact concentration") from None


def _strength_in(texts: Texts, c: Context) -> Leaves:
    amount_, unit, volume, volume_unit = texts
    if not amount_:
        return (None,)
    value, unit = number_in(amount_), unit_in(unit, c)
    if "/" not in unit:
        if unit_in(volume_unit, c) != "mL":
            raise Refused("unit", "the volume of a strength must be in mL")
        below = number_in(volume)
        if below != 1:
            whole = _quotient(value, below)
            c.note(c.at, "exact-quotient", f"{value} {unit} in {below} mL was read as {whole:f} {unit}/mL")
            value = whole
        unit = f"{unit}/mL"
    return (in_units(value, unit, ("ug/mL",), c),)


STRENGTH = Codec(_strength_out, _strength_in, exact=True)
"""A concentration ⇄ amount, unit, volume, unit: 2000 ug in 1 mL."""


# --- codes ----------------------------------------------------------------------------------------------


def concept(code: str, c: Context) -> str:
    """A CWE of our code system."""
    return joined(c, code, DISPLAY.get(code, ""), LOCAL_SYSTEM)


def word_out(value: str, c: Context) -> str:
    theirs = c.sender.theirs.get("codes", {}).get(value)
    if theirs is not None:
        code, _, system = theirs.partition("^")
        return joined(c, code, "", system)
    return joined(c, value, "", LOCAL_SYSTEM)


def word_in(text: str, c: Context) -> str:
    """Our word of a coded value, by our own code or the sender's."""
    found = parts(text, c)
    for at in (0, 3):
        code, system = nth(found, at + 1, c), nth(found, at + 3, c)
        if code and system == LOCAL_SYSTEM:
            return code
        known = c.sender.codes.get(f"{code}^{system}")
        if known is not None:
            return known
    raise Refused("code", "is no code of ours (99ITB), and the sender's file does not know it")


WORD = single(word_out, word_in)
YES = {"Y": True, "N": False}


def flag_in(text: str, c: Context) -> bool:
    code = nth(parts(text, c), 1, c)
    if code not in YES:
        raise Refused("code", "must be Y or N")
    return YES[code]


FLAG = single(lambda value, c: joined(c, "Y" if value else "N", "", "HL70136"), flag_in)


def _words_out(value: list[str], c: Context) -> str:
    return c.separators.repetition.join(word_out(one, c) for one in value)


WORDS = single(_words_out, lambda text, c: [word_in(one, c) for one in text.split(c.separators.repetition)])


# --- who ------------------------------------------------------------------------------------------------

_URN = {"urn:oid:": "ISO", "urn:uuid:": "UUID"}


def authority_out(system: str, c: Context) -> str:
    """An identifier system as HD, in subcomponents: the sender's own name for it, or its URI."""
    theirs = c.sender.theirs.get("authorities", {}).get(system)
    if theirs is not None:
        return escape(theirs, c.separators)
    mark = c.separators.subcomponent
    for prefix, kind in _URN.items():
        if system.startswith(prefix):
            return f"{mark}{escape(system[len(prefix) :], c.separators)}{mark}{kind}"
    return f"{mark}{escape(system, c.separators)}{mark}URI"


def authority_in(text: str, c: Context) -> str | None:
    """The identifier system of an HD; None where the sender's file does not know it."""
    pieces = [plain(piece, c) for piece in text.split(c.separators.subcomponent)]
    name, id, kind = (*pieces, "", "", "")[:3]
    known = c.sender.authorities
    if name in known and (name or not id):
        return known[name]
    if id in known and id:
        return known[id]
    for prefix, type in _URN.items():
        if kind == type and id:
            return f"{prefix}{id}"
    return id if kind == "URI" and id else None


def _patient_out(leaves: Leaves, c: Context) -> Texts:
    mark = c.separators.component
    value = f"{escape(leaves[1], c.separators)}{mark}{mark}{mark}{authority_out(leaves[0], c)}{mark}MR"
    return (value,)


def _patient_in(texts: Texts, c: Context) -> Leaves:
    """Of several numbers the first whose authority is known, those that the file names before others."""
    if not texts[0]:
        return None, None
    known: list[tuple[int, str, str]] = []
    order = list(c.sender.authorities.values())
    for repetition in texts[0].split(c.separators.repetition):
        found = repetition.split(c.separators.component)
        system = authority_in(found[3] if len(found) > 3 else "", c)
        value = plain(found[0], c)
        if system is not None and value:
            known.append((order.index(system) if system in order else len(order), system, value))
    if not known:
        raise Refused("patient", "no number has an assigning authority that the sender's file knows")
    best = min(known, key=lambda one: one[0])
    if len({one for one in known if one[0] == best[0]}) > 1:
        raise Refused("patient", "several numbers of the same standing: the sender's file must say which")
    return best[1], best[2]


PATIENT = Codec(_patient_out, _patient_in)
"""(system, value) of the patient ⇄ PID-3."""


def _person_out(leaves: Leaves, c: Context) -> Texts:
    system, value, name = leaves
    mark = c.separators.component
    head = f"{escape(value or '', c.separators)}{mark}{escape(name or '', c.separators)}"
    if system is not None:
        head = f"{head}{mark * 7}{authority_out(system, c)}"
    return (head.rstrip(mark) if system is None else head,)


def _person_in(texts: Texts, c: Context) -> Leaves:
    if not texts[0]:
        return None, None, None
    found = texts[0].split(c.separators.component)
    family = plain((found[1] if len(found) > 1 else "").split(c.separators.subcomponent)[0], c)
    given, middle, suffix, prefix = (nth(found, n, c) for n in (3, 4, 5, 6))
    name = " ".join(part for part in (prefix, given, middle, family, suffix) if part) or None
    value = plain(found[0], c)
    system = authority_in(found[8], c) if len(found) > 8 else c.sender.authorities.get("")
    if not value or system is None:
        return None, None, name
    return system, value, name


PERSON = Codec(_person_out, _person_in)
"""(system, value, name) of a person ⇄ XCN."""


def _key_out(leaves: Leaves, c: Context) -> Texts:
    source, id = str(leaves[0]), str(leaves[1])
    return joined(c, id, c.sender.theirs.get("namespaces", {}).get(source, source)), ""


def _key_in(texts: Texts, c: Context) -> Leaves:
    text = texts[0] or texts[1]
    if not text:
        return None, None
    found = parts(text, c)
    id, namespace = nth(found, 1, c), nth(found, 2, c)
    if namespace in c.sender.namespaces:
        return c.sender.namespaces[namespace], id
    if not namespace:
        if not c.sender.source:
            raise Refused("source", "has no namespace, and the sender's file names no source")
        return c.sender.source, id
    if c.sender.namespaces or not SOURCE.fullmatch(namespace):
        raise Refused("source", f"the namespace {namespace[:40]!r} is not in the sender's file")
    return namespace, id


KEY = Codec(_key_out, _key_in)
"""(source, id) of the record ⇄ filler's EI, or else the placer's."""
