"""Events to FHIR and back: the resources of an event, transaction Bundles, and reading them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import dose_change, identity, incoming, provenance
from .codes import sid
from .dose_change import ALONE, Place
from .envelope import identity as key_of
from .event import MAPPINGS, Event, load_event, telling_of
from .paths import Json
from .rows import Issue, MappingError
from .sources import Sources

_DEVICE = sid("device")


def resources(event: Event, *, place: Place = ALONE, recorded: str | None = None) -> list[Json]:
    """The resources of one event, Provenance last; `place` is that of a dose change in its chain."""
    made = encode(event, place)
    return [*made, provenance.encode(event, made, recorded)]


def encode(event: Event, place: Place = ALONE) -> list[Json]:
    """The resources of one event without its Provenance."""
    if event["type"] == "dose-change":
        return dose_change.encode(event, place)
    made: list[Json] = MAPPINGS[event["type"]].encode(event)
    return made


def dropped(event: Event, earlier: Iterable[Event]) -> list[Json]:
    """What earlier versions of the event told and this one does not, as entered in error.

    A goal or score that a correction leaves out, the segment of a program that turns out to be stopped.
    """
    kept = {identity.resource_identity(resource) for resource in encode(event)}
    gone: dict[tuple[str, str], Json] = {}
    for version in earlier:
        for resource in encode({**version, "status": "entered-in-error"}):
            name = identity.resource_identity(resource)
            if name not in kept:
                gone[name] = resource
    return list(gone.values())


def to_fhir(event: Event, *, chain: Sequence[Event] = (), known: frozenset[str] = frozenset()) -> Json:
    """One event as a FHIR transaction Bundle.

    `chain`: the other dose changes of its pump that are known, for closing the program before; `known`:
    device identifiers that are on the server already. A reference to what is neither in the Bundle nor
    known stays logical (identifier only).
    """
    around = neighbours(event, chain) if event["type"] == "dose-change" else Around()
    made = resources(event, place=around.place)
    entries = [(resource, _updates(event, resource, known)) for resource in made]
    entries = [(resource, True) for resource in around.changed] + entries
    return _bundle(entries, known)


@dataclass(frozen=True)
class Around:
    """The place of a dose change in its chain, and the resources of other programs that it changes."""

    place: Place = ALONE
    changed: list[Json] = field(default_factory=list)


def neighbours(event: Event, others: Sequence[Event]) -> Around:
    """Where a dose change stands in its pump's chain, and what that changes in the chain."""
    if not others:
        return Around()
    was = [e for e in others if e["pump"] == event["pump"]]
    rest = [e for e in was if key_of(e) != key_of(event)]
    old, new = _places(was), _places([*rest, event])
    changed = []
    for other in dose_change.chain(rest):
        now = new[key_of(other)]
        if now != old.get(key_of(other)):
            changed.extend(dose_change.chain_resources(other, now))
    return Around(new.get(key_of(event), ALONE), changed)


def _places(events: Sequence[Event]) -> dict[tuple[str, str], Place]:
    ordered = dose_change.chain(events)
    return {key_of(e): place for e, place in zip(ordered, dose_change.places(ordered), strict=True)}


def _updates(event: Event, resource: Json, known: frozenset[str]) -> bool:
    """Whether the server should have this resource already, so that it is updated, not created."""
    if event.get("version", 1) > 1 or event.get("status"):
        return True
    if resource["resourceType"] in ("Device", "DeviceUseStatement"):
        return identity.resource_identity(resource)[1] in known
    return False


def _bundle(entries: Iterable[tuple[Json, bool]], known: frozenset[str]) -> Json:
    listed = [(identity.resource_identity(resource), resource, updates) for resource, updates in entries]
    within = {key for key, _, _ in listed}

    def lookup(type: str, system: str, value: str) -> str | None:
        if (system, value) in within:
            return identity.urn(system, value)
        if type == "Patient" or (system == _DEVICE and value in known):
            return identity.conditional(type, system, value)
        return None

    for _, resource, _ in listed:
        identity.point_references(resource, lookup)
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [_entry(*key, resource, updates) for key, resource, updates in listed],
    }


def _entry(system: str, value: str, resource: Json, updates: bool) -> Json:
    type = resource["resourceType"]
    if type == "Provenance":
        request = {"method": "PUT", "url": f"Provenance/{value}"}
    elif updates:
        request = {"method": "PUT", "url": identity.conditional(type, system, value)}
    else:
        condition = identity.conditional("", system, value)[1:]
        request = {"method": "POST", "url": type, "ifNoneExist": condition}
    return {"fullUrl": identity.urn(system, value), "resource": resource, "request": request}


@dataclass(frozen=True)
class Reading:
    """What was read: the events, what stopped a resource from being read, and what is worth knowing."""

    events: list[Event]
    errors: list[Issue]
    notes: list[Issue]


def from_fhir(content: Json, *, source: str = "fhir") -> list[Event]:
    """The events of a resource or Bundle; raises `MappingError` where anything of ours cannot be read.

    `source` names the sender of a record that did not come from an event of ours.
    """
    reading = read_fhir(content, source=source)
    if reading.errors:
        raise MappingError(reading.errors)
    return reading.events


def read_fhir(content: Json, *, source: str = "fhir") -> Reading:
    """The events of a resource or Bundle, with the errors of those that could not be read."""
    listed = incoming.entries(content)
    events: list[Event] = []
    errors: list[Issue] = []
    notes: list[Issue] = []
    sources = Sources()
    ready = [_prepared(entry, source, sources, errors, notes) for entry in listed]
    told = 0
    for (at, _, _), resource in zip(listed, ready, strict=True):
        found = telling_of(resource) if resource else None
        if resource is None or found is None:
            continue
        mapping = found[1]
        told += 1
        try:
            event, _ = mapping.decode(resource, sources)
            events.append(_loaded(event, mapping))
        except MappingError as error:
            errors.extend(Issue(incoming.under(at, i.path), i.rule, i.message) for i in error.issues)
        except SHAPES:
            errors.append(_misshapen(at))
    if not told and not errors:
        errors.append(incoming.not_ours(listed))
    return Reading(events, errors, notes)


def _loaded(event: Json, mapping: Any) -> Event:
    """`load_event`, its issues at the places in FHIR that the values came from."""
    try:
        return load_event(event)
    except MappingError as error:
        issues = [Issue(_place(i.path, mapping), i.rule, i.message) for i in error.issues]
        raise MappingError(issues) from None


def _place(path: str, mapping: Any) -> str:
    """Where in FHIR the event's `path` stands: of the rows that hold it, the one that says it best."""
    held = [
        (len(inner + name), f"{resource}.{place}")
        for resource, inner, rows in mapping.MAPPED
        for name, place in rows.places()
        if path == inner + name or path.startswith((f"{inner}{name}.", f"{inner}{name}["))
    ]
    return max(held)[1] if held else path


SHAPES = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading raises where a foreign resource has, say, a string for an object: it may have any shape."""


def _misshapen(at: str) -> Issue:
    return Issue(at, "shape", "is not shaped as FHIR R4 has it, so it cannot be read")


def _prepared(
    entry: incoming.Entry, source: str, sources: Sources, errors: list[Issue], notes: list[Issue]
) -> Json | None:
    """`incoming.prepare`, among the `sources` from then on."""
    at, url, resource = entry
    try:
        told = telling_of(resource)
        ready = incoming.prepare(resource, at, told[0] if told else None, source, errors, notes)
        if ready is not None:
            sources.add(url, ready)
        return ready
    except SHAPES:
        errors.append(_misshapen(at))
        return None


def is_telling(resource: Json) -> bool:
    """True for a resource that tells an event of ours, by code or profile."""
    try:
        return telling_of(resource) is not None
    except SHAPES:
        return False
