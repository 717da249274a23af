"""Which resources a search finds: parameters by name, each a rule over one resource. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from .wire import Refusal

Json = Any
Pair = tuple[str, str]
CONTROLS = ("_sort", "_count", "_total", "_format", "_pretty", "_summary")
"""Parameters that do not choose resources."""
PREFIXES: dict[str, Callable[[datetime, datetime], bool]] = {
    "ge": lambda there, asked: there >= asked,
    "gt": lambda there, asked: there > asked,
    "le": lambda there, asked: there <= asked,
    "lt": lambda there, asked: there < asked,
    "eq": lambda there, asked: there == asked,
}


def instant(text: str) -> datetime:
    """An instant; a date is its first moment in UTC. Refusal 400 for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"{text!r} is not a date or a time") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def tokens(text: str) -> list[str]:
    """The values of a parameter that are separated by commas; `\\,` is none."""
    found, escaped = [""], False
    for char in text:
        if escaped:
            found[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            found.append("")
        else:
            found[-1] += char
    return found


def identifiers(resource: Json) -> list[Pair]:
    """(system, value) of each identifier."""
    listed = resource.get("identifier", [])
    listed = listed if isinstance(listed, list) else [listed]
    return [(i.get("system", ""), i.get("value", "")) for i in listed if isinstance(i, dict)]


def _token(system_and_code: Iterable[Pair], asked: str) -> bool:
    system, bar, code = asked.rpartition("|")
    return any((c == code or (bar and not code)) and (not bar or s == system) for s, c in system_and_code)


def _codings(concept: Json) -> Iterator[Pair]:
    for one in concept if isinstance(concept, list) else [concept]:
        if isinstance(one, str):
            yield "", one
        elif isinstance(one, dict):
            for coding in one.get("coding", ()):
                yield coding.get("system", ""), coding.get("code", "")


def _references(value: Json) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and isinstance(one.get("reference"), str):
            yield one["reference"]


def _refers(resource: Json, elements: tuple[str, ...], asked: str) -> bool:
    wanted = asked.split("?")[0].rstrip("/").split("/")[-2:]
    for element in elements:
        for reference in _references(resource.get(element)):
            there = reference.split("/")[-2:]
            if there == wanted or (len(wanted) == 1 and there[-1:] == wanted):
                return True
    return False


MATCH: dict[str, Callable[[Json, str], bool]] = {
    "_id": lambda r, asked: r["id"] == asked,
    "identifier": lambda r, asked: _token(identifiers(r), asked),
    "patient": lambda r, asked: _refers(r, ("patient", "subject", "for"), asked),
    "subject": lambda r, asked: _refers(r, ("subject", "patient"), asked),
    "device": lambda r, asked: _refers(r, ("device", "focus"), asked),
    "status": lambda r, asked: _token(_codings(r.get("status")), asked),
    "code": lambda r, asked: _token(_codings(r.get("code")), asked),
    "category": lambda r, asked: _token(_codings(r.get("category")), asked),
}
"""Whether a resource has one value of a parameter; values separated by commas are alternatives."""


def is_match(resource: Json, name: str, value: str) -> bool:
    """Whether the resource answers to one parameter."""
    if name == "_lastUpdated":
        prefix = value[:2] if value[:2] in PREFIXES else "eq"
        return PREFIXES[prefix](instant(resource["meta"]["lastUpdated"]), instant(value.removeprefix(prefix)))
    return any(MATCH[name](resource, one) for one in tokens(value))


def earliest(value: str) -> datetime | None:
    """From when on what `_lastUpdated` asks for may have been written; None: from the beginning."""
    prefix = value[:2] if value[:2] in PREFIXES else "eq"
    return instant(value.removeprefix(prefix)) if prefix in ("ge", "gt", "eq") else None


def sort(found: list[Json], by: str) -> list[Json]:
    """In the order of `_sort` (`_lastUpdated` or `_id`, `-` for down); of one time, as they were written."""
    keys: dict[str, Callable[[Json], str]] = {
        "_lastUpdated": lambda r: r["meta"]["lastUpdated"],
        "_id": lambda r: r["id"],
    }
    name = by.removeprefix("-")
    if name not in keys:
        raise Refusal(400, f"sorting by {by!r} is not supported")
    return sorted(found, key=keys[name], reverse=by.startswith("-"))
