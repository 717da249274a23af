"""Coded OBX: every leaf of an event that no field of a message holds, one OBX each, and back.

OBX-3 is the leaf's path as a code of ours (99ITB) or the sender's own, OBX-4 its place in a list, OBX-11 `W`
when the record was entered in error: a reader who knows no code of ours must not take its values for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mappings.envelope import Event, is_retracted
from mappings.rows import Issue, Refused

from .leaves import AS_TEXT, Flat, Key, Kind, by_code, code_of, leaves_of
from .message import USUAL, Segment
from .values import LOCAL_SYSTEM, NULL, Context, joined, nth, parts

RETRACTED = frozenset({"W", "D"})
UNSURE = frozenset({"P", "R", "S", "I", "B"})
EMPTY = frozenset({"X", "N", "O"})
"""OBX-11 (HL7 table 0085): wrong or deleted; not final or not verified; no value."""
MAYBE_INEXACT = frozenset({"DTM", "DT", "CWE"})
"""Types that may not hold each value: a time finer than DTM, a word of ours that a file uses twice."""
PUMP_CODE = "pump"
Facet = tuple[str, str, str, str]
"""(OBX-2, OBX-3, OBX-4, OBX-5) of an OBX that tells no leaf of its own."""


def _no_facets(event: Event, c: Context) -> list[Facet]:
    return []


@dataclass(frozen=True, slots=True)
class Observed:
    """How a message writes its OBX.

    `codes`: leaf -> OBX-3 other than its path (`code^text^system`); `sub`: what stands before the number in
    OBX-4; `facets`: OBX that follow from the event; `known`: OBX-3 codes of those, which tell no leaf.
    """

    codes: Mapping[str, str] = field(default_factory=dict)
    sub: str = ""
    facets: Callable[[Event, Context], list[Facet]] = _no_facets
    known: frozenset[str] = frozenset()
    seen: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def code(self, pattern: str, c: Context | None) -> str:
        """OBX-3 of a leaf, as it is written."""
        if c is not None:
            theirs = c.sender.theirs.get("observations", {}).get(code_of(pattern))
            if theirs is not None:
                code, _, system = theirs.partition("^")
                return joined(c, code, "", system)
        return self.codes.get(pattern) or _own_code(pattern)

    def leaf(self, text: str, type: str, c: Context) -> str | None:
        """The leaf of an OBX-3; None for a foreign one; `Refused` for a code of ours that is not known."""
        plain = not c.sender.observations and c.separators is USUAL
        if plain and text in self.seen:
            return self.seen[text]
        found = self._leaf(text, type, c)
        if plain and found is not None and len(self.seen) < 1000:
            self.seen[text] = found
        return found

    def _leaf(self, text: str, type: str, c: Context) -> str | None:
        found = parts(text, c)
        for at in (1, 4):
            code, system = nth(found, at, c), nth(found, at + 2, c)
            if not code:
                continue
            theirs = c.sender.observations
            known = theirs.get(f"{code}^{system}") or (theirs.get(code) if not system else None)
            if known is not None:
                return _ours(known, type)
            own = next((p for p, said in self.codes.items() if said.split("^")[0::2] == [code, system]), None)
            if own is not None:
                return own
            if system == LOCAL_SYSTEM and code not in self.known:
                return _ours(code, type)
        return None


@lru_cache(maxsize=1024)
def _own_code(pattern: str) -> str:
    code = code_of(pattern)
    words = code.replace(".", " ").replace("_", " ")
    return f"{code}^{words}^{LOCAL_SYSTEM}"


def _ours(code: str, type: str) -> str:
    pattern = by_code(type).get(code)
    if pattern is None:
        raise Refused("code", f"{code[:60]!r} is no field of a {type}")
    return pattern


def observe(segments: list[Segment], type: str, how: Observed, c: Context, issues: list[Issue]) -> Flat:
    """The leaves that OBX hold; what is wrong goes to `issues`."""
    found: Flat = {}
    wrong = set()
    serials = set()
    for number, segment in enumerate(segments, start=1):
        status = segment[11] if len(segment) > 11 else ""
        c.at = f"OBX[{number}]-5"
        try:
            if len(segment) > 18 and segment[18]:
                serials.add(nth(parts(segment[18], c), 1, c))
            pattern = how.leaf(segment[3], type, c) if len(segment) > 3 and segment[3] else None
            if pattern is None:
                continue
            wrong.add(status in RETRACTED)
            value = _value(segment, pattern, type, c) if status not in EMPTY else None
            if status in UNSURE:
                c.note(f"OBX[{number}]-11", "not-final", f"the status {status} is not final")
            if value is None:
                c.note(f"OBX[{number}]-5", "no-value", "has no value: read as not there")
                continue
            key = _key(segment, pattern, how)
        except Refused as error:
            issues.append(Issue(f"OBX[{number}]-{_field_of(error)}", error.rule, str(error)))
            continue
        if key in found:
            issues.append(Issue(f"OBX[{number}]-3", "duplicate", "says one value a second time"))
        found[key] = value
        if c.came is not None:
            c.came[key] = f"OBX[{number}]-5", tuple(segment[5:7])
    _whole(type, found, wrong, serials, issues)
    return found


def _whole(type: str, found: Flat, wrong: set[bool], serials: set[str], issues: list[Issue]) -> None:
    """What OBX say together: whether the record still counts, and which pump it is about."""
    if True in wrong and found.get(("status", 0)) != "entered-in-error":
        if False in wrong:
            issues.append(Issue("OBX-11", "status", "some values are marked wrong and others are not"))
        found["status", 0] = "entered-in-error"
    if "pump" in leaves_of(type) and ("pump", 0) not in found and serials:
        if len(serials) > 1:
            issues.append(Issue("OBX-18", "pump", "names several devices: which one is the pump?"))
        found["pump", 0] = min(serials)


def _field_of(error: Refused) -> int:
    return {"unit": 6, "sub-id": 4}.get(error.rule, 5)


def _key(segment: Segment, pattern: str, how: Observed) -> Key:
    if "[]" not in pattern:
        return pattern, 0
    last = segment[4].rpartition(".")[2] if len(segment) > 4 else ""
    if not last.isdigit() or not 0 < int(last) <= 500:
        raise Refused("sub-id", "must end with the number of an item of a list, from 1")
    return pattern, int(last) - 1


def _value(segment: Segment, pattern: str, type: str, c: Context) -> Any:
    text = segment[5] if len(segment) > 5 else ""
    if not text or text == NULL:
        return None
    kind = leaves_of(type)[pattern]
    said = segment[2]
    if said == "ST" and kind.type in ("DTM", "DT", "CWE"):
        kind = AS_TEXT
    if said == "SN" and kind.type == "NM":
        found = parts(text, c)
        if len(found) != 2 or found[0] not in ("", "="):
            raise Refused("number", "is a range or a comparison, not a number")
        text = found[1]
    unit = segment[6] if len(segment) > 6 else ""
    return kind.codec.from_hl7((text, unit), c)[0]


def write_observed(event: Event, leaves: Flat, how: Observed, c: Context) -> list[Segment]:
    """The OBX of these leaves, the pump's first, and of the message's facets."""
    status = "W" if is_retracted(event) else "C" if event.get("version", 1) > 1 else "F"
    kinds = leaves_of(event["type"])
    lines: list[list[str]] = []
    for key, leaf in sorted(leaves.items(), key=lambda item: item[0][0] != PUMP_CODE):
        pattern, at = key
        kind, texts = _written(kinds[pattern], leaf, c)
        line = [
            kind.type,
            how.code(pattern, c),
            f"{how.sub}{at + 1}",
            texts[0],
            texts[1],
            "",
            "",
            "",
            "",
            status,
        ]
        if pattern == PUMP_CODE:
            line += ["", "", "", "", "", "", joined(c, leaf)]
        lines.append(line)
    lines += [[*facet, "", "", "", "", "", status] for facet in how.facets(event, c)]
    return [["OBX", str(number), *line] for number, line in enumerate(lines, start=1)]


def _written(kind: Kind, leaf: Any, c: Context) -> tuple[Kind, tuple[str, ...]]:
    """The value as its type has it, or as text where that cannot hold it exactly."""
    texts = kind.codec.to_hl7((leaf,), c)
    if kind.type not in MAYBE_INEXACT:
        return kind, texts
    try:
        if kind.codec.from_hl7(texts, Context(c.sender, c.separators))[0] == leaf:
            return kind, texts
    except Refused:
        pass
    return AS_TEXT, AS_TEXT.codec.to_hl7((leaf,), c)
