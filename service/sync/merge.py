"""What comes of a record that was edited in an EHR: taken, merged field by field, or asked of a person. Pure.

`base` is what both sides last agreed on, `ours` the record as it stands in the ledger, `theirs` what the EHR
says. A field that only one side changed is usually that side's; `owners` says whose it is otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mappings.event import DEFAULTS, Event, is_retracted
from mappings.fields import instant
from mappings.paths import MISSING, Json, copy, get, parse, put, take

from .owners import OWNERS, Owner

OURS, THEIRS = "ours", "theirs"
_PATHS = {path: parse(path) for rows in OWNERS.values() for path in rows}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")


class Changed(Enum):
    """Who changed a field since `base`, to different values."""

    OURS = "ours"
    THEIRS = "theirs"
    BOTH = "both"


class Verdict(Enum):
    """Whose value stands; ASK: a person says so."""

    OURS = "ours"
    THEIRS = "theirs"
    ASK = "ask"


TABLE: dict[tuple[Owner, Changed], Verdict] = {
    (Owner.DOSE, Changed.OURS): Verdict.OURS,
    (Owner.DOSE, Changed.THEIRS): Verdict.ASK,
    (Owner.DOSE, Changed.BOTH): Verdict.ASK,
    (Owner.PUMP, Changed.OURS): Verdict.OURS,
    (
        Owner.PUMP,
        Changed.THEIRS,
    ): Verdict.ASK,  # newer than what the programmer read: an error, or its mending
    (Owner.PUMP, Changed.BOTH): Verdict.OURS,
    (Owner.EHR, Changed.OURS): Verdict.OURS,
    (Owner.EHR, Changed.THEIRS): Verdict.THEIRS,
    (Owner.EHR, Changed.BOTH): Verdict.THEIRS,
    (Owner.EITHER, Changed.OURS): Verdict.OURS,
    (Owner.EITHER, Changed.THEIRS): Verdict.THEIRS,
    (Owner.EITHER, Changed.BOTH): Verdict.ASK,
    (Owner.RETRACTION, Changed.OURS): Verdict.OURS,
    (Owner.RETRACTION, Changed.THEIRS): Verdict.THEIRS,
    (Owner.RETRACTION, Changed.BOTH): Verdict.ASK,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A field on which the sides differ; a value that is not there is None. `changed` None: no base known."""

    path: str
    owner: Owner
    changed: Changed | None
    base: Json
    ours: Json
    theirs: Json


@dataclass(frozen=True, slots=True)
class Merged:
    """`event`: ours, with what was taken of theirs; not yet canonical where `asked` holds anything.

    `overruled` are fields that both changed and whose owner's value stands.
    """

    event: Event
    taken: tuple[Difference, ...]
    overruled: tuple[Difference, ...]
    asked: tuple[Difference, ...]


def merge(
    base: Event | None,
    ours: Event,
    theirs: Event,
    *,
    their_record: bool = False,
    choices: Mapping[str, str] | None = None,
) -> Merged:
    """The three-way merge; without `base` each difference is asked.

    `their_record`: it was entered in that EHR, so its users may edit it as long as nobody here did.
    `choices`: for a path that would be asked, `ours` or `theirs`, as a person decided.
    """
    event: Event = {name: value for name, value in copy(ours).items() if name != "version"}
    taken, overruled, asked = [], [], []
    for one in differences(base, ours, theirs):
        verdict = _verdict(one, base, ours, theirs, their_record)
        if verdict is Verdict.ASK and choices and one.path in choices:
            verdict = Verdict(choices[one.path])
        if verdict is Verdict.ASK:
            asked.append(one)
        elif verdict is Verdict.THEIRS:
            _take_over(event, one.path, theirs)
            taken.append(one)
        if one.changed is Changed.BOTH and verdict is not Verdict.ASK:
            overruled.append(one)
    if "version" in ours:
        event["version"] = ours["version"]
    return Merged(event, tuple(taken), tuple(overruled), tuple(asked))


def differences(base: Event | None, ours: Event, theirs: Event) -> list[Difference]:
    """The rows of `owners` on which ours and theirs are not the same."""
    found = []
    for path, owner in OWNERS[ours["type"]].items():
        our, their = _value(ours, path), _value(theirs, path)
        if same(our, their):
            continue
        agreed = None if base is None else _value(base, path)
        found.append(Difference(path, owner, _who(base, agreed, our, their), agreed, our, their))
    return found


def needs_two(type: str, asked: tuple[Difference, ...]) -> bool:
    """Whether two persons must decide: a field of `Owner.DOSE`, or whether a record with such counts."""
    doses = type in DOSE_TYPES
    return any(d.owner is Owner.DOSE or (d.owner is Owner.RETRACTION and doses) for d in asked)


def _carries_a_dose(rows: Mapping[str, Owner]) -> bool:
    always = {"type", "source", "id", "patient", "pump"}
    return any(owner is Owner.DOSE and path not in always for path, owner in rows.items())


DOSE_TYPES = frozenset(type for type, rows in OWNERS.items() if _carries_a_dose(rows))


def same(one: Json, other: Json) -> bool:
    """Equal as content: quantities by value and unit, times by their instant."""
    if isinstance(one, str) and isinstance(other, str) and _TIME.match(one) and _TIME.match(other):
        try:
            return one == other or instant(one) == instant(other)
        except ValueError:
            return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _value(event: Event, path: str) -> Json:
    found = get(event, _PATHS[path])
    return DEFAULTS.get(path) if found is MISSING else found


def _who(base: Event | None, agreed: Json, ours: Json, theirs: Json) -> Changed | None:
    if base is None:
        return None
    if same(agreed, ours):
        return Changed.THEIRS
    return Changed.OURS if same(agreed, theirs) else Changed.BOTH


def _verdict(one: Difference, base: Event | None, ours: Event, theirs: Event, their_record: bool) -> Verdict:
    if one.changed is None:
        return Verdict.ASK
    if one.owner is Owner.RETRACTION and one.changed is Changed.THEIRS:
        assert base is not None
        untouched = not [d for d in differences(base, base, ours) if d.path != one.path]
        return Verdict.THEIRS if is_retracted(theirs) and untouched else Verdict.ASK
    if one.changed is Changed.THEIRS and their_record:
        return Verdict.THEIRS
    if one.changed is Changed.THEIRS and one.theirs is None:
        return Verdict.ASK  # nothing said is no word against what was said
    return TABLE[one.owner, one.changed]


def _take_over(event: Event, path: str, theirs: Event) -> None:
    value = get(theirs, _PATHS[path])
    if get(event, _PATHS[path]) is not MISSING:
        take(event, _PATHS[path])
    if value is not MISSING:
        put(event, _PATHS[path], copy(value))
