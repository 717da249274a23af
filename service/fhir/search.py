"""Which resources a search means: one row for each parameter. Pure."""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from mappings import Issue, MappingError
from mappings.fields import instant

Json = Any
Match = Callable[[Json, str], bool]
Moments = tuple[datetime, datetime]
"""The first and the last moment of a time that is asked for, or of what is asked about."""
PREFIXES: dict[str, Callable[[Moments, Moments], bool]] = {
    "ge": lambda held, asked: held[1] >= asked[0],
    "gt": lambda held, asked: held[1] > asked[1],
    "le": lambda held, asked: held[0] <= asked[1],
    "lt": lambda held, asked: held[0] < asked[0],
    "eq": lambda held, asked: held[0] <= asked[1] and held[1] >= asked[0],
}
"""R4 Search, "date": a day, month or year is all of it, and a period counts where it overlaps."""
OPEN = datetime.max.replace(tzinfo=UTC)
_DATE = re.compile(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?")


def _token(identifier: Json, wanted: str) -> bool:
    """`value` of any system, `system|value`, `system|` for any value, `|value` without a system."""
    system, bar, value = wanted.partition("|")
    if not bar:
        return bool(identifier.get("value") == wanted)
    return identifier.get("system", "") == system and value in ("", identifier.get("value"))


def _identifier(resource: Json, wanted: str) -> bool:
    return any(_token(i, wanted) for i in resource.get("identifier", []))


def _patient(resource: Json, wanted: str) -> bool:
    named = [resource[name] for name in ("subject", "patient", "for") if name in resource]
    named += [p.get("actor", {}) for p in resource.get("participant", ()) if "actor" in p]
    return any(_token(who.get("identifier", {}), wanted) for who in named)


def _device(resource: Json, wanted: str) -> bool:
    held = resource.get("device", [])
    return any(
        d.get("reference") in (wanted, f"Device/{wanted}") or _token(d.get("identifier", {}), wanted)
        for d in (held if isinstance(held, list) else [held])
    )


def _asked(wanted: str) -> tuple[str, Moments]:
    """The prefix and the moments of a date parameter; raises ValueError."""
    prefix, text = (wanted[:2], wanted[2:]) if wanted[:2] in PREFIXES else ("eq", wanted)
    if date := _DATE.fullmatch(text):
        year, month, day = (int(part or 0) for part in date.groups())
        first = datetime(year, month or 1, day or 1, tzinfo=UTC)
        days = 1 if day else monthrange(year, month)[1] if month else 365 + isleap(year)
        return prefix, (first, first + timedelta(days=days, microseconds=-1))
    moment = instant(text)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return prefix, (moment, moment)


def _check_date(name: str, wanted: str) -> None:
    try:
        _asked(wanted)
    except (ValueError, OverflowError):
        why = "must be a date, or an instant such as ge2026-01-01T00:00:00Z"
        raise MappingError([Issue(name, "search", why)]) from None


def _last_updated(resource: Json, wanted: str) -> bool:
    prefix, asked = _asked(wanted)
    at = instant(resource["meta"]["lastUpdated"])
    return PREFIXES[prefix]((at, at), asked)


def _effective(resource: Json, wanted: str) -> bool:
    """Of a period without an end, the end is open."""
    prefix, asked = _asked(wanted)
    period = resource.get("effectivePeriod") or {}
    start = period.get("start") or resource["effectiveDateTime"]
    end = period.get("end") or (None if period else start)
    return PREFIXES[prefix]((instant(start), instant(end) if end else OPEN), asked)


EVERY: dict[str, Match] = {"_id": lambda r, v: r["id"] == v, "_lastUpdated": _last_updated}
NAMED: dict[str, Match] = EVERY | {
    "identifier": _identifier,
    "patient": _patient,
    "patient:identifier": _patient,
}
STATUS: Match = lambda r, v: r.get("status") == v  # noqa: E731 (a row of the table)
PARAMETERS: dict[str, dict[str, Match]] = {
    "Appointment": NAMED | {"status": STATUS},
    "CareTeam": NAMED | {"status": STATUS},
    "ClinicalImpression": NAMED | {"status": STATUS},
    "Condition": NAMED,
    "Device": NAMED | {"status": STATUS},
    "DeviceUseStatement": NAMED | {"device": _device},
    "Flag": NAMED,
    "Goal": NAMED,
    "MedicationAdministration": NAMED | {"status": STATUS, "effective-time": _effective, "device": _device},
    "MedicationRequest": NAMED | {"status": STATUS},
    "MedicationStatement": NAMED | {"status": STATUS},
    "Observation": NAMED | {"status": STATUS, "device": _device},
    "Procedure": NAMED | {"status": STATUS},
    "Provenance": EVERY,
    "Task": NAMED | {"status": STATUS},
}
"""The search parameters of each type: values of one are alternatives, parameters must all hold."""
KINDS = {"_id": "token", "_lastUpdated": "date", "identifier": "token", "patient": "reference"} | {
    "patient:identifier": "token",
    "status": "token",
    "effective-time": "date",
    "device": "reference",
}
JSON_RANGES = {"application/fhir+json", "application/json", "application/json+fhir", "application/*", "*/*"}
"""What a client may accept to be given JSON."""
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
            if KINDS[name] == "date":
                for one in wanted:
                    _check_date(name, one)
            found = [r for r in found if any(known[name](r, one) for one in wanted)]
    newest_first = ("_sort", "-_lastUpdated") in parameters
    return sorted(found, key=lambda r: (r["meta"]["lastUpdated"], r["id"]), reverse=newest_first)
