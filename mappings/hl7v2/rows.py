"""One row, two directions, for HL7 v2: the engine that walks a message's rows both ways.

As in mappings/rows.py a row says where a value of an event stands, here in which field. What no row holds
goes into coded OBX by rule (observed.py), as does the exact value of a leaf whose field holds it only nearly:
so the whole event travels in every message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from mappings.event import Event, load_event
from mappings.rows import Issue, MappingError, Refused

from .leaves import Flat, Key, flat, leaves_of, unflat
from .message import CODECS, Message, Segment
from .observed import Observed, observe, write_observed
from .values import NULL, Codec, Context, Leaves, Texts


@dataclass(frozen=True, slots=True)
class Place:
    """Fields of a segment; `repetition` is the one of a repeating field where a value (or a list) begins."""

    segment: str
    fields: tuple[int, ...]
    repetition: int | None = None


_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+(?:,\d+)*)(?:~(\d+))?")


def place(text: str) -> Place:
    """`RXA-6,7` -> fields 6 and 7 of RXA; `RXA-15~1` -> its second repetition (and on, for a list)."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise AssertionError(f"not a place: {text}")
    name, numbers, repetition = found.groups()
    fields = tuple(int(number) for number in numbers.split(","))
    return Place(name, fields, int(repetition) if repetition else None)


class Row:
    """Leaves of the event ⇄ a place; those of a list (`steps[].start`) take a segment or repetition each."""

    __slots__ = ("codec", "events", "listed", "others", "place", "required", "text", "where")

    def __init__(
        self, events: str | Sequence[str], text: str, codec: Codec, *, required: bool = False
    ) -> None:
        self.events = (events,) if isinstance(events, str) else tuple(events)
        self.text, self.place = text, place(text)
        self.codec, self.required = codec, required
        self.listed = "[]" in self.events[0]
        self.where = f"{self.place.segment}[1]-{self.place.fields[0]}"
        self.others = "".join(f",{number}" for number in self.place.fields[1:])


class Always:
    """A text that every such message carries."""

    __slots__ = ("place", "text")

    def __init__(self, at: str, text: str) -> None:
        self.place, self.text = place(at), text


class Derived:
    """A text that follows from the event: written, and not read. None leaves the field empty."""

    __slots__ = ("make", "place")

    def __init__(self, at: str, make: Callable[[Event, Context], str | None]) -> None:
        self.place, self.make = place(at), make


class Group:
    """The segments of one order or observation (with those of the whole message), found by name."""

    __slots__ = ("found",)

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.found: dict[str, list[Segment]] = {}
        for segment in segments:
            self.found.setdefault(segment[0], []).append(segment)

    def all(self, name: str) -> list[Segment]:
        return self.found.get(name, [])

    def text(self, name: str, number: int, at: int = 0) -> str:
        """Field `number` of the segment `name` at position `at`; empty where there is none, or a null."""
        segments = self.found.get(name)
        if segments is None or at >= len(segments) or number >= len(segments[at]):
            return ""
        text = segments[at][number]
        return "" if text == NULL else text


Check = Callable[[Group, Flat, Context], list[Issue]]


def nothing(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    return []


def no_facets(event: Event, c: Context) -> list[tuple[str, str, str, str]]:
    return []


@dataclass(frozen=True, slots=True)
class MessageMap:
    """How events of one type stand in one message: its segments in their order, and their rows.

    `trigger` is MSH-9 for an event; `check` looks at what was read before the event is loaded, and may
    refuse or complete it; `observed` says how its OBX are written.
    """

    name: str
    type: str
    trigger: Callable[[Event], str]
    segments: tuple[str, ...]
    rows: tuple[Row, ...]
    always: tuple[Always, ...] = ()
    derived: tuple[Derived, ...] = ()
    check: Check = nothing
    observed: Observed = field(default_factory=Observed)
    profile: str = ""
    once: tuple[str, ...] = field(init=False)
    """Segments of which an event has one."""

    def __post_init__(self) -> None:
        many = {row.place.segment for row in self.rows if row.listed and row.place.repetition is None}
        once = {row.place.segment for row in self.rows} - many - {"OBX", "NTE"}
        object.__setattr__(self, "once", tuple(sorted(once)))


# --- reading --------------------------------------------------------------------------------------------


ONCE = (0,)


def decode(group: Group, m: MessageMap, c: Context) -> Event:
    """The canonical event of a group; raises `MappingError`, its issues at fields (`RXA[1]-6`)."""
    issues = _repeated(group, m)
    leaves: Flat = {}
    for row in m.rows:
        read = row.codec.from_hl7
        for at in range(_count(group, row, c)) if row.listed else ONCE:
            texts = _texts(group, row, at, c)
            if not any(texts):
                if row.required:
                    issues.append(Issue(_where(row, at), "required", "is required"))
                continue
            c.at = _where(row, at)
            try:
                told = read(texts, c)
            except Refused as error:
                issues.append(Issue(c.at, error.rule, str(error)))
                continue
            for pattern, leaf in zip(row.events, told, strict=True):
                if leaf is not None:
                    leaves[pattern, at] = leaf
                    if c.came is not None:
                        c.came[pattern, at] = _where(row, at) + row.others, texts
    seen = observe(group.all("OBX"), m.type, m.observed, c, issues)
    if not issues:
        issues += _contradictions(group, m, leaves, seen, c)
    leaves.update(seen)
    if not issues:
        issues += m.check(group, leaves, c)
    if issues:
        raise MappingError(issues)
    return _loaded(leaves, m)


def _loaded(leaves: Flat, m: MessageMap) -> Event:
    try:
        return load_event(unflat(m.type, leaves))
    except MappingError as error:
        issues = [Issue(place_of(i.path, m), i.rule, i.message) for i in error.issues]
        raise MappingError(issues) from None


def _count(group: Group, row: Row, c: Context) -> int:
    segments = group.all(row.place.segment)
    if row.place.repetition is None or not segments:
        return len(segments)
    text = group.text(row.place.segment, row.place.fields[0])
    return max(0, text.count(c.separators.repetition) + 1 - row.place.repetition)


def _texts(group: Group, row: Row, at: int, c: Context) -> Texts:
    name, repetition = row.place.segment, row.place.repetition
    segments = group.found.get(name)
    position = at if row.listed and repetition is None else 0
    if segments is None or position >= len(segments):
        return ("",) * len(row.place.fields)
    segment = segments[position]
    size = len(segment)
    texts = []
    if repetition is None:
        plain = tuple([segment[number] if number < size else "" for number in row.place.fields])
        if NULL not in plain:
            return plain
    for number in row.place.fields:
        text = segment[number] if number < size else ""
        if repetition is not None and text:
            repeated = text.split(c.separators.repetition)
            chosen = repetition + (at if row.listed else 0)
            text = repeated[chosen] if chosen < len(repeated) else ""
        if text == NULL:
            c.note(_where(row, at), "null", "an explicit null: read as not there")
            text = ""
        texts.append(text)
    return tuple(texts)


@lru_cache(maxsize=4096)
def _where(row: Row, at: int) -> str:
    if not at:
        return row.where
    position = at + 1 if row.listed and row.place.repetition is None else 1
    return f"{row.place.segment}[{position}]-{row.place.fields[0]}"


def _repeated(group: Group, m: MessageMap) -> list[Issue]:
    """A segment that comes twice where one event has one would leave a record unread."""
    return [
        Issue(f"{name}[2]", "repeated", "comes more than once in one order: which one counts?")
        for name in m.once
        if len(group.found.get(name, ())) > 1
    ]


def _contradictions(group: Group, m: MessageMap, leaves: Flat, seen: Flat, c: Context) -> list[Issue]:
    """A value that stands in its field and in an OBX must be the same in both."""
    issues = []
    told = {pattern for pattern, _ in seen}
    for row in m.rows:
        if told.isdisjoint(row.events):
            continue
        ats = {at for pattern in row.events for (p, at) in seen if p == pattern}
        for at in ats:
            both = tuple(seen.get((p, at), leaves.get((p, at))) for p in row.events)
            said = tuple(leaves.get((p, at)) for p in row.events)
            if all(leaf is None for leaf in said) or both == said:
                continue
            if row.codec.to_hl7(both, _in_utc(c)) != row.codec.to_hl7(said, _in_utc(c)):
                issues.append(
                    Issue(_where(row, at), "contradiction", "an OBX says another value than this field")
                )
    return issues


def _in_utc(c: Context) -> Context:
    """One instant has one text, whatever the offset it was told with."""
    return Context(replace(c.sender, write_zone=ZoneInfo("UTC")), c.separators)


_INDEX = re.compile(r"\[(\d+)\]")


def place_of(path: str, m: MessageMap) -> str:
    """Where in the message the event's `path` stands: `after.steps[0].dose` -> `TQ1[1]-2`."""
    numbers = _INDEX.findall(path)
    pattern, at = _INDEX.sub("[]", path), int(numbers[0]) if numbers else 0
    for row in m.rows:
        for name in row.events:
            if name == pattern or pattern.startswith(f"{name}.") or name.startswith(f"{pattern}."):
                return _where(row, at)
    known = next(
        (leaf for leaf in leaves_of(m.type) if leaf == pattern or pattern.startswith(f"{leaf}.")), None
    )
    if known is None:
        return "OBX" if pattern == "$" else f"OBX({pattern})"
    return f"OBX({m.observed.code(known, c=None)})"


# --- writing --------------------------------------------------------------------------------------------

Fields = dict[int, str | dict[int, str]]


def encode(event: Event, m: MessageMap, c: Context) -> list[Segment]:
    """The segments of an event after MSH, in the message's order."""
    leaves = flat(event)
    built: dict[str, dict[int, Fields]] = {}
    for always in m.always:
        _put(built, always.place, 0, (always.text,))
    for derived in m.derived:
        text = derived.make(event, c)
        if text is not None:
            _put(built, derived.place, 0, (text,))
    held: set[Key] = set()
    for row in m.rows:
        for at in _positions(leaves, row):
            values = tuple(leaves.get((pattern, at)) for pattern in row.events)
            texts = row.codec.to_hl7(values, c)
            _put(built, row.place, at, texts, listed=row.listed)
            back = values if row.codec.exact else _read_back(row, texts, c)
            held.update((p, at) for p, v, b in zip(row.events, values, back, strict=True) if _same(v, b))
    rest = {key: leaf for key, leaf in leaves.items() if key not in held}
    made: list[Segment] = []
    for name in m.segments:
        if name == "OBX":
            made += write_observed(event, rest, m.observed, c)
        elif name in built:
            for number, (_, fields) in enumerate(sorted(built[name].items()), start=1):
                made.append(_segment(name, {1: str(number), **fields} if name == "TQ1" else fields, c))
    return made


def _positions(leaves: Flat, row: Row) -> list[int]:
    if not row.listed:
        return [0] if any((pattern, 0) in leaves for pattern in row.events) else []
    return sorted({at for pattern in row.events for (p, at) in leaves if p == pattern})


def _same(value: Any, back: Any) -> bool:
    """Equal digit for digit."""
    return value is not None and value == back and str(value) == str(back)


def _read_back(row: Row, texts: Texts, c: Context) -> Leaves:
    nothing_read = (None,) * len(row.events)
    if not any(texts):
        return nothing_read
    try:
        return row.codec.from_hl7(texts, Context(c.sender, c.separators))
    except Refused:
        return nothing_read


def _put(
    built: dict[str, dict[int, Fields]], where: Place, at: int, texts: Texts, *, listed: bool = False
) -> None:
    occurrence = at if listed and where.repetition is None else 0
    fields = built.setdefault(where.segment, {}).setdefault(occurrence, {})
    for number, text in zip(where.fields, texts, strict=False):
        if where.repetition is None:
            fields[number] = text
        else:
            repeated = fields.setdefault(number, {})
            assert isinstance(repeated, dict)
            repeated[where.repetition + (at if listed else 0)] = text


def _segment(name: str, fields: Fields, c: Context) -> Segment:
    segment = [name] + [""] * max(fields)
    for number, text in fields.items():
        if isinstance(text, dict):
            mark = c.separators.repetition
            segment[number] = mark.join(text.get(n, "") for n in range(max(text) + 1))
        else:
            segment[number] = text
    while len(segment) > 1 and not segment[-1]:
        segment.pop()
    return segment


def message_of(segments: list[Segment], c: Context, charset: str = "UNICODE UTF-8") -> Message:
    """A message of these segments, as it is sent: in that character set, a return after each segment."""
    return Message([*segments, [""]], c.separators, CODECS[charset], "\r")
