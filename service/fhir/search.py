"""Which resources a search means: one row for each parameter. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from mappings import Issue, MappingError
from mappings.fields import instant

Json = Any
Match = Callable[[Json, str], bool]
PREFIXES: dict[str, Callable[[datetime, datetime], bool]] = {
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "le": lambda a, b: a <= b,
    "lt": lambda a, b: a < b,
    "eq": lambda a, b: a == b,
}


def _token(identifier: Json, wanted: str) -> bool:
    system, bar, value = wanted.partition("|")
    if not bar:
        return bool(identifier.get("value") == wanted)
    return identifier.get("value") == value and (not system or identifier.get("system") == system)


def _identifier(resource: Json, wanted: str) -> bool:
    return any(_token(i, wanted) for i in resource.get("identifier", []))


def _patient(resource: Json, wanted: str) -> bool:
    subject = resource.get("subject") or resource.get("patient") or {}
    return _token(subject.get("identifier", {}), wanted)


def _device(resource: Json, wanted: str) -> bool:
    held = resource.get("device", [])
    return any(
        d.get("reference") in (wanted, f"Device/{wanted}") or _token(d.get("identifier", {}), wanted)
        for d in (held if isinstance(held, list) else [held])
    )


def _moments(wanted: str) -> tuple[str, datetime]:
    prefix, text = (wanted[:2], wanted[2:]) if wanted[:2] in PREFIXES else ("eq", wanted)
    try:
        found = instant(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        raise MappingError(
            [Issue("_lastUpdated", "time", "must be an instant such as ge2026-01-01T00:00:00Z")]
        )
    return prefix, found


def _last_updated(resource: Json, wanted: str) -> bool:
    prefix, moment = _moments(wanted)
    return PREFIXES[prefix](instant(resource["meta"]["lastUpdated"]), moment)


def _effective(resource: Json, wanted: str) -> bool:
    """A period overlaps the range asked for (R4 Search: date); an open one has no end."""
    prefix, moment = _moments(wanted)
    period = resource.get("effectivePeriod") or {}
    start = period.get("start") or resource.get("effectiveDateTime")
    end = period.get("end") or (None if period else start)
    if prefix in ("ge", "gt"):
        return end is None or PREFIXES[prefix](instant(end), moment)
    if prefix in ("le", "lt"):
        return PREFIXES[prefix](instant(start), moment)
    return instant(start) <= moment and (end is None or moment <= instant(end))


EVERY: dict[str, Match] = {"_id": lambda r, v: r["id"] == v, "_lastUpdated": _last_updated}
NAMED: dict[str, Match] = EVERY | {
    "identifier": _identifier,
    "patient": _patient,
    "patient:identifier": _patient,
}
STATUS: Match = lambda r, v: r.get("status") == v  # noqa: E731 (a row of the table)
PARAMETERS: dict[str, dict[str, Match]] = {
    "Device": NAMED | {"status": STATUS},
    "DeviceUseStatement": NAMED | {"device": _device},
    "MedicationAdministration": NAMED | {"status": STATUS, "effective-time": _effective, "device": _device},
    "MedicationRequest": NAMED | {"status": STATUS},
    "Procedure": NAMED | {"status": STATUS},
    "Provenance": EVERY,
}
"""The search parameters of each type: values of one are alternatives, parameters must all hold."""
KINDS = {"_id": "token", "_lastUpdated": "date", "identifier": "token", "patient": "reference"} | {
    "patient:identifier": "token",
    "status": "token",
    "effective-time": "date",
    "device": "reference",
}
CONTROLS = ("_count", "_sort", "_offset", "_format", "_total", "_summary")


def select(type: str, found: list[Json], parameters: list[tuple[str, str]], lenient: bool) -> list[Json]:
    """The resources that hold every parameter, oldest change first; raises `MappingError` (`search`)."""
    known = PARAMETERS[type]
    unknown = [name for name, _ in parameters if name not in known and name not in CONTROLS]
    if unknown and not lenient:
        why = f"{type} has no such search parameter; it has {', '.join(sorted(known))}"
        raise MappingError([Issue(name, "search", why) for name in unknown])
    for name, value in parameters:
        if name in known:
            wanted = value.split(",")
            found = [r for r in found if any(known[name](r, one) for one in wanted)]
    newest_first = ("_sort", "-_lastUpdated") in parameters
    return sorted(found, key=lambda r: (r["meta"]["lastUpdated"], r["id"]), reverse=newest_first)
