"""Three versions of a resource woven into one: what we changed, put onto what the server holds.

`weave(base, ours, theirs)`: `base` is what we would have written for what `theirs` says, `ours` what we write
now. What we did not change stays as it stands in `theirs`, to the last foreign extension, coding, narrative
and order of lists; what we changed is as in `ours`.
"""

from __future__ import annotations

from . import bundle
from .envelope import Event
from .identity import resource_identity, said
from .paths import MISSING, Json
from .rows import Issue, MappingError


def onto(event: Event, seen: Json, related: list[Json] | None = None) -> Json:
    """The primary resource of `event` as it should be written over `seen`, the server's last version of it.

    `related` are the resources that `seen` refers to and cannot be read without. The narrative of a resource
    that says something else now is left out, as is what only the server may set (`meta.versionId`,
    `meta.lastUpdated`). Raises `MappingError` when `seen` tells another event, or none that can be read.
    """
    entries = [{"resource": one} for one in [seen, *(related or [])]]
    (told, *_) = bundle.from_fhir({"resourceType": "Bundle", "type": "collection", "entry": entries})
    old, new = (next(r for r in bundle.encode(e) if bundle.is_telling(r)) for e in (told, event))
    if not bundle.is_telling(seen) or not _same_resource(old, new):
        why = "is not the resource that tells this event"
        raise MappingError([Issue(seen["resourceType"], "identifier", why)])
    return over(old, new, seen)


def over(old: Json, new: Json, seen: Json) -> Json:
    """`new` as it should be written over `seen`, which holds `old` of ours and what others added to it.

    Without the narrative, where something else is said now, and without what only the server may set.
    """
    woven: Json = weave(old, new, seen)
    left_out = {"meta"} if new == old else {"meta", "text"}
    meta = {k: v for k, v in woven.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    rest = {k: v for k, v in woven.items() if k not in left_out}
    return {**rest, "meta": meta} if meta else rest


def says_all(ours: Json, theirs: Json) -> bool:
    """Whether `theirs` says all that the resource `ours` says, and perhaps more."""
    return _is_within(said(ours), said(theirs))


def _is_within(one: Json, other: Json) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return all(key in other and _is_within(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return all(any(_is_within(item, there) for there in other) for item in one)
    return bool(one == other)


def _same_resource(one: Json, other: Json) -> bool:
    return bool(
        one["resourceType"] == other["resourceType"] and resource_identity(one) == resource_identity(other)
    )


def weave(base: Json, ours: Json, theirs: Json) -> Json:
    """`theirs` with the changes that lead from `base` to `ours`; none of the three is altered."""
    if ours == base:
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return _objects(base if isinstance(base, dict) else {}, ours, theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        return _lists(base if isinstance(base, list) else [], ours, theirs)
    return ours


def _objects(base: Json, ours: Json, theirs: Json) -> Json:
    made = {}
    for key in [*theirs, *(k for k in ours if k not in theirs)]:
        value = _value(base.get(key, MISSING), ours.get(key, MISSING), theirs.get(key, MISSING))
        if value is not MISSING:
            made[key] = value
    return made


def _value(base: Json, ours: Json, theirs: Json) -> Json:
    """Of one place; MISSING where it is to be absent."""
    if base is MISSING and ours is MISSING:
        return theirs
    if theirs is MISSING:
        return MISSING if ours == base else ours  # what they took away stays away unless we changed it
    if ours is MISSING:
        return MISSING if theirs == base else _without(base, theirs)
    return weave(base, ours, theirs)


def _without(base: Json, theirs: Json) -> Json:
    """What they added to something that we no longer write."""
    if isinstance(base, dict) and isinstance(theirs, dict):
        left = {
            key: rest
            for key, value in theirs.items()
            if (rest := value if key not in base else _without(base[key], value)) is not MISSING
        }
        return left if left.keys() - {"url", "id", "system"} else MISSING
    if isinstance(base, list) and isinstance(theirs, list):
        ours_too = {_key(item) for item in base}
        rest = [item for item in theirs if _key(item) is not None and _key(item) not in ours_too]
        return rest or MISSING
    return MISSING


def _lists(base: list[Json], ours: list[Json], theirs: list[Json]) -> list[Json]:
    """Items that name themselves (extension, identifier, coding) are matched by name, others by place."""
    if any(_key(item) is None for item in [*base, *ours, *theirs]):
        return _by_place(base, ours, theirs)
    old, new, held = _named(base), _named(ours), _named(theirs)
    made = []
    for name, item in held.items():
        value = _value(old.get(name, MISSING), new.get(name, MISSING), item)
        if value is not MISSING:
            made.append(value)
    return made + [item for name, item in new.items() if name not in held and item != old.get(name)]


def _named(items: list[Json]) -> dict[Json, Json]:
    """The items by name; the second of one name is another than the first."""
    named: dict[Json, Json] = {}
    for item in items:
        key, number = _key(item), 0
        while (key, number) in named:
            number += 1
        named[key, number] = item
    return named


def _by_place(base: list[Json], ours: list[Json], theirs: list[Json]) -> list[Json]:
    made = [
        weave(base[at] if at < len(base) else MISSING, item, theirs[at]) if at < len(theirs) else item
        for at, item in enumerate(ours)
    ]
    return made + theirs[len(base) :] if len(theirs) > len(base) >= len(ours) else made


def _key(item: Json) -> tuple[str, ...] | None:
    """What an item of a list calls itself."""
    if not isinstance(item, dict):
        return None
    for names in (("url",), ("system", "code"), ("system", "value"), ("id",)):
        if all(isinstance(item.get(name), str) for name in names):
            return (*names, *(item[name] for name in names))
    code = item.get("code")
    if isinstance(code, dict) and code.get("coding"):
        return _key(code["coding"][0])
    return None
