"""An event into the message that it came from: what changed is written, all else stays as it was sent.

Three messages are laid side by side: the original, what we would write for its event, and what we write for
the changed one. A place in which the last two do not differ keeps the original's text, so that Z-segments,
notes, other people's codes and spellings survive a correction. `lost` says what did not.
"""

from __future__ import annotations

from mappings.envelope import Event
from mappings.rows import Issue, MappingError, Refused

from .catalogue import map_of, message_name
from .convert import read, write
from .message import Message, Segment
from .rows import Group, MessageMap
from .sender import SenderMap
from .values import Context

Key = tuple[str, str, str, int]
OURS = frozenset(range(3, 20))
"""Fields of MSH that a writer sets: who sends, to whom, when, under which id. Not what is told."""


def rewrite(original: Message, event: Event, sender: SenderMap) -> Message:
    """The original message with this event in it; it is the original where the event is still the same.

    Raises `MappingError` for a message of several events, or of another record.
    """
    reading = read(original, sender)
    if reading.errors or len(reading.events) != 1:
        raise MappingError([Issue("MSH[1]-9", "message", "holds not just one event that can be read")])
    before = reading.events[0]
    if before == event and str(before) == str(event):
        return original
    if (before["type"], before["source"], before["id"]) != (event["type"], event["source"], event["id"]):
        raise MappingError([Issue("MSH[1]-9", "message", "tells another record than this one")])
    c = Context(sender, original.separators)
    m = map_of(message_name(original.field("MSH", 9), c), Group(original.segments), c)
    name = m.name.partition(" ")[0]
    old, new = (write(one, sender, message=name).segments for one in (before, event))
    merged = _merged(original.segments, old, new, m, c)
    made = Message(merged, original.separators, original.codec, original.ending)
    again = read(made, sender)
    if again.errors or again.events != [event]:
        return write(event, sender, message=name)  # safe before complete: `lost` tells what it left out
    return made


def lost(original: Message, written: Message) -> list[Issue]:
    """Every place of the original whose text does not stand in the message that was written for it."""
    found = dict(_keyed(written.segments, None, None))
    issues = []
    for key, segment in _keyed(original.segments, None, None):
        place = f"{key[0]}[{key[3] + 1}]"
        other = found.get(key)
        if other is None:
            issues.append(Issue(place, "lost", "the segment is not there"))
            continue
        for number, text in enumerate(segment[1:], start=1):
            if not text or (key[0] == "MSH" and number in OURS):
                continue
            there = other[number] if number < len(other) else ""
            if there != text:
                rule = "changed" if there else "lost"
                issues.append(Issue(f"{place}-{number}", rule, f"was {rule}"))
    return issues


def _keyed(segments: list[Segment], m: MessageMap | None, c: Context | None) -> list[tuple[Key, Segment]]:
    """Each segment under a key that finds its like in another message: an OBX by what it tells."""
    counts: dict[tuple[str, str, str], int] = {}
    keyed = []
    for segment in segments:
        if segment == [""]:
            continue
        what, sub = "", ""
        if segment[0] == "OBX" and len(segment) > 3:
            what, sub = _told(segment, m, c), (segment[4] if len(segment) > 4 else "").rpartition(".")[2]
            sub = sub if "[]" in what or m is None else ""
        key = (segment[0], what, sub)
        counts[key] = counts.get(key, -1) + 1
        keyed.append(((*key, counts[key]), segment))
    return keyed


def _told(segment: Segment, m: MessageMap | None, c: Context | None) -> str:
    if m is not None and c is not None:
        try:
            return m.observed.leaf(segment[3], m.type, c) or segment[3]
        except Refused:
            pass
    return segment[3]


def _merged(
    original: list[Segment], old: list[Segment], new: list[Segment], m: MessageMap, c: Context
) -> list[Segment]:
    was, now = dict(_keyed(old, m, c)), dict(_keyed(new, m, c))
    merged: list[tuple[str, Segment]] = []
    known = set()
    for key, segment in _keyed(original, m, c):
        known.add(key)
        if key in was and key not in now:
            continue  # the event no longer says this
        if key in was and key[0] != "MSH":
            segment = _fields(segment, was[key], now[key])
        elif key[0] == "MSH":
            segment = _header(segment, was[key], now[key])
        merged.append((key[0], segment))
    for key, segment in now.items():
        if key in known or was.get(key) == segment:
            continue  # the original says it elsewhere, in its own way
        at = max((n for n, (name, _) in enumerate(merged, start=1) if name == key[0]), default=0)
        merged.insert(at or _after(merged, key[0], m), (key[0], segment))
    return [segment for _, segment in merged] + ([[""]] if original[-1] == [""] else [])


def _after(merged: list[tuple[str, Segment]], name: str, m: MessageMap) -> int:
    """Where a segment goes that the original had none of: behind those that come before it."""
    earlier = {"MSH", *m.segments[: m.segments.index(name)]}
    return max((n for n, (other, _) in enumerate(merged, start=1) if other in earlier), default=1)


def _fields(original: Segment, old: Segment, new: Segment) -> Segment:
    size = max(len(original), len(new))
    kept, was, now = (segment + [""] * (size - len(segment)) for segment in (original, old, new))
    made = [o if a == b else b for o, a, b in zip(kept, was, now, strict=False)]
    while len(made) > len(original) and not made[-1]:
        made.pop()
    return made


def _header(original: Segment, old: Segment, new: Segment) -> Segment:
    """The original's MSH with the time and control id of the new message, and its trigger if another."""
    made = original + [""] * (11 - len(original))
    made[7], made[10] = new[7], new[10]
    if old[9] != new[9]:
        made[9] = new[9]
    return made
