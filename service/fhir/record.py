"""The ledger's events as FHIR resources, as this server shows them. Pure but for reading the ledger.

A resource is a function of the current events: its id follows from its identity, its version and time
from the events that made it what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection

from mappings import identity, resources
from mappings.dose_change import ALONE, Place, chain, places
from mappings.event import is_retracted as was_retracted
from mappings.event import version
from service.store import events
from service.store.events import StoredEvent

Json = Any
PAGE = 500
EVENTS_OF: dict[str, tuple[str | None, ...]] = {
    "Appointment": ("follow-up",),
    "CareTeam": ("evaluation",),
    "ClinicalImpression": ("evaluation",),
    "Condition": ("evaluation", "complication"),
    "Device": ("device",),
    "DeviceUseStatement": ("device",),
    "Flag": ("alarm",),
    "Goal": ("evaluation",),
    "MedicationAdministration": ("refill", "dose-change", "screening", "procedure"),
    "MedicationRequest": ("dose-change", "oral-baclofen"),
    "MedicationStatement": ("evaluation",),
    "Observation": ("interrogation", "alarm", "screening", "assessment"),
    "Procedure": ("dose-change", "procedure", "education"),
    "Provenance": (None,),
    "Task": ("follow-up",),
}
"""The types this server has, and the events that make them (None: every one)."""


def record(
    c: Connection,
    tenant_id: int,
    type: str,
    patient: tuple[str, str] | None = None,
    up_to: int | None = None,
) -> list[Json]:
    """Every resource of `type`, of one patient where given; reads all events that can make one.

    With `up_to`, as it was when the ledger ended with that number.
    """
    stored = [s for kind in EVENTS_OF[type] for s in _events(c, tenant_id, kind, patient, up_to)]
    return [resource for resource in shown(stored) if resource["resourceType"] == type]


def everything(c: Connection, tenant_id: int, patient: tuple[str, str], up_to: int) -> Iterator[Json]:
    """Every resource of one patient, as it was when the ledger ended with that number."""
    return shown(_events(c, tenant_id, None, patient, up_to))


def is_retracted(resource: Json) -> bool:
    """True for a resource that says of itself that it was entered in error."""
    verified = resource.get("verificationStatus", {}).get("coding", [{}])[0].get("code")
    said = (resource.get("status"), resource.get("lifecycleStatus"), verified)
    return "entered-in-error" in said


def _events(
    c: Connection,
    tenant_id: int,
    type: str | None,
    patient: tuple[str, str] | None,
    up_to: int | None = None,
) -> Iterator[StoredEvent]:
    after = 0
    while page := events.search(
        c, tenant_id, limit=PAGE, after_seq=after, type=type, patient=patient, up_to=up_to
    ):
        yield from page
        after = page[-1].seq


def shown(stored: Iterable[StoredEvent]) -> Iterator[Json]:
    """The resources of these events, in this server's form. Events of one patient must come together."""
    listed = list(stored)
    around = _places(listed)
    latest: dict[tuple[str, str], Json] = {}
    for one in listed:
        place, touched = around.get(one.seq, (ALONE, one.received_at))
        for resource in resources(one.event, place=place, recorded=one.received_at):
            meta = {"versionId": _version(one, resource, place), "lastUpdated": touched}
            key = identity.resource_identity(resource)
            latest[key] = _ours(resource, key, meta)
    yield from latest.values()


def _places(stored: list[StoredEvent]) -> dict[int, tuple[Place, str]]:
    """Of each dose change its place in its pump's chain, and when that was last changed."""
    changes: dict[str, list[StoredEvent]] = {}
    for one in stored:
        if one.event["type"] == "dose-change" and not was_retracted(one.event):
            changes.setdefault(one.event["pump"], []).append(one)
    found: dict[int, tuple[Place, str]] = {}
    for held in changes.values():
        by_event = {id(s.event): s for s in held}
        ordered = [by_event[id(e)] for e in chain([s.event for s in held])]
        for at, (one, place) in enumerate(zip(ordered, places([s.event for s in ordered]), strict=True)):
            around = ordered[max(at - 1, 0) : at + 3]
            found[one.seq] = place, max(s.received_at for s in around)
    return found


def _version(one: StoredEvent, resource: Json, place: Place) -> str:
    """The event's version, and one more for each time that later changes rewrote a program or segment."""
    own = resource["resourceType"] in ("MedicationRequest", "MedicationAdministration")
    rewritten = place.changes if own and resource.get("status") != "entered-in-error" else 0
    return str(version(one.event) + rewritten)


def _ours(resource: Json, key: tuple[str, str], meta: Json) -> Json:
    def lookup(type: str, system: str, value: str) -> str | None:
        if not system.startswith(identity.OWN) or type not in EVENTS_OF:
            return None
        return f"{type}/{identity.client_id(system, value)}"

    made = identity.rewrite_references(resource, lookup)
    id = key[1] if resource["resourceType"] == "Provenance" else identity.client_id(*key)
    return {"resourceType": made["resourceType"], "id": id, "meta": meta, **_rest(made)}


def _rest(resource: Json) -> Json:
    return {k: v for k, v in resource.items() if k not in ("resourceType", "id", "meta")}
