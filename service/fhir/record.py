"""The ledger's events as FHIR resources, as this server shows them. Pure but for reading the ledger.

A resource is a function of the current events: its id follows from its identity, its version and time
from the events that made it what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection

from mappings import identity, resources
from mappings.dose_change import chain
from mappings.event import is_retracted, version
from service.store import events
from service.store.events import StoredEvent

Json = Any
PAGE = 500
EVENTS_OF = {
    "Device": ("device",),
    "DeviceUseStatement": ("device",),
    "MedicationAdministration": ("refill", "dose-change"),
    "MedicationRequest": ("dose-change",),
    "Procedure": ("dose-change",),
    "Provenance": (None,),
}
"""The types this server has, and the events that make them (None: every one)."""


def record(c: Connection, tenant_id: int, type: str, patient: tuple[str, str] | None = None) -> list[Json]:
    """Every resource of `type`, of one patient where given; reads all events that can make one."""
    stored = [s for kind in EVENTS_OF[type] for s in _events(c, tenant_id, kind, patient)]
    return [resource for resource in shown(stored) if resource["resourceType"] == type]


def _events(
    c: Connection, tenant_id: int, type: str | None, patient: tuple[str, str] | None
) -> Iterator[StoredEvent]:
    after = 0
    while page := events.search(c, tenant_id, limit=PAGE, after_seq=after, type=type, patient=patient):
        yield from page
        after = page[-1].seq


def shown(stored: Iterable[StoredEvent]) -> Iterator[Json]:
    """The resources of these events, in this server's form. Events of one patient must come together."""
    listed = list(stored)
    around = _neighbours(listed)
    latest: dict[tuple[str, str], Json] = {}
    for one in listed:
        before, after = around.get(one.seq, (None, None))
        made = resources(
            one.event,
            before=before.event if before else None,
            after=after.event if after else None,
            recorded=one.received_at,
        )
        touched = max(s.received_at for s in (one, before, after) if s is not None)
        for resource in made:
            meta = {"versionId": _version(one, resource, after), "lastUpdated": touched}
            key = identity.resource_identity(resource)
            latest[key] = _ours(resource, key, meta)
    yield from latest.values()


def _neighbours(stored: list[StoredEvent]) -> dict[int, tuple[StoredEvent | None, StoredEvent | None]]:
    changes: dict[str, list[StoredEvent]] = {}
    for one in stored:
        if one.event["type"] == "dose-change" and not is_retracted(one.event):
            changes.setdefault(one.event["pump"], []).append(one)
    found: dict[int, tuple[StoredEvent | None, StoredEvent | None]] = {}
    for held in changes.values():
        by_event = {id(s.event): s for s in held}
        ordered = [by_event[id(e)] for e in chain([s.event for s in held])]
        for at, one in enumerate(ordered):
            before = ordered[at - 1] if at else None
            found[one.seq] = (before, ordered[at + 1] if at + 1 < len(ordered) else None)
    return found


def _version(one: StoredEvent, resource: Json, after: StoredEvent | None) -> str:
    """The event's version; one more for a program or segment that a later change has closed."""
    closed = after is not None and resource.get("status") in ("stopped", "completed")
    return str(version(one.event) + (1 if closed and resource["resourceType"] != "Procedure" else 0))


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
