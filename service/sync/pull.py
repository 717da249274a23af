"""Read what changed in one EHR: keep each version raw, recognise our own writes, take the rest as events.

Polling by `_lastUpdated` with an overlap: servers stamp before they commit, so a late commit appears
behind the cursor. The cursor is the server's time, never ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from mappings import Issue, MappingError, identity, load_event, read_fhir
from mappings.bundle import is_telling
from mappings.codes import sid
from mappings.event import EVENTS_TOLD_BY, Event, telling_of, version
from mappings.exact_json import dumps
from mappings.fields import instant
from mappings.identity import content_hash, resource_identity
from mappings.validate import validate
from service.chain import Damaged
from service.intake import admit
from service.store import audit, deliveries, endpoints, events, links, remote
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.links import Link
from service.store.remote import RemoteVersion
from service.store.times import stamp

from .ehr import Ehr, Missing

Json = Any
TYPES = tuple(dict.fromkeys([*EVENTS_TOLD_BY, "DeviceUseStatement", "MedicationAdministration"]))
"""What is polled: whatever tells an event, and what is sent beside it."""
PARTS = (
    "CareTeam",
    "Condition",
    "Goal",
    "MedicationAdministration",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
)
"""Types of the resources without which a primary one cannot be understood; it refers to them."""
PER_PAGE = "200"


@dataclass(frozen=True, slots=True)
class Pulled:
    """How many versions were new here, by what became of them."""

    counts: dict[str, int]


def pull(store: Store, ehr: Ehr, endpoint: Endpoint, now: Callable[[], datetime]) -> Pulled:
    """Read every page of every type since the cursor; raises `EhrError` with the pages so far kept."""
    counts: dict[str, int] = {}
    since = _since(endpoint)
    newest: str | None = None
    for type in TYPES:
        params = {"_sort": "_lastUpdated", "_count": PER_PAGE}
        if since is not None:
            params["_lastUpdated"] = f"ge{since}"
        for page in ehr.search(type, params):
            newest = newest or page.server_time
            for resource in page.resources:
                outcome = take_version(store, ehr, endpoint, resource, now)
                if outcome is not None:
                    name = outcome.partition(":")[0]
                    counts[name] = counts.get(name, 0) + 1
    if newest is not None:
        with store.write() as c:
            endpoints.set_cursor(c, endpoint.id, newest)
    return Pulled(counts)


def _since(endpoint: Endpoint) -> str | None:
    if endpoint.cursor is None:
        return None
    overlap = timedelta(seconds=endpoint.options.get("overlap_seconds", 300))
    return (instant(endpoint.cursor) - overlap).isoformat(timespec="milliseconds")


def take_version(
    store: Store, ehr: Ehr, endpoint: Endpoint, resource: Json, now: Callable[[], datetime]
) -> str | None:
    """Take in one version; what became of it, None when it was seen before."""
    seen = _seen(endpoint, resource)
    with store.read() as c:
        if _was_seen(c, seen):
            return None
        link = links.find_remote(c, endpoint.id, seen.resource_type, seen.remote_id)
    if link is not None and _is_echo(link, resource, seen):
        with store.write() as c:
            links.save(c, replace(link, version_id=seen.version_id), now=now())
            remote.add(c, replace(seen, outcome="echo"), now=now())
        return "echo"
    try:
        told, notes = _event(store, ehr, endpoint, resource)
        with store.write() as c:
            outcome, seq = ("ignored", None) if told is None else _accept(c, endpoint, told, resource, now)
            if told is not None and notes and outcome != "unchanged":
                at = stamp(now())
                audit.converted(c, endpoint.tenant_id, told, notes, at=at, actor=endpoint.name)
            remote.add(c, replace(seen, outcome=outcome, event_seq=seq), now=now())
    except Damaged:
        outcome = "refused: the ledger's row of this record is damaged (itb verify)"
        with store.write() as c:
            remote.add(c, replace(seen, outcome=outcome), now=now())
    except MappingError as error:
        outcome = "refused: " + "; ".join(f"{i.path} {i.rule}" for i in error.issues)
        with store.write() as c:
            remote.add(c, replace(seen, outcome=outcome), now=now())
    return outcome


def _seen(endpoint: Endpoint, resource: Json) -> RemoteVersion:
    meta = resource.get("meta", {})
    return RemoteVersion(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        resource_type=resource["resourceType"],
        remote_id=resource["id"],
        version_id=str(meta.get("versionId", "")),
        last_updated=meta.get("lastUpdated"),
        raw=dumps(resource).decode(),
        outcome="",
    )


def _was_seen(c: Connection, seen: RemoteVersion) -> bool:
    key = (seen.endpoint_id, seen.resource_type, seen.remote_id, seen.version_id)
    return remote.find(c, *key) is not None


def _is_echo(link: Link, resource: Json, seen: RemoteVersion) -> bool:
    return link.version_id == seen.version_id or link.content_hash == content_hash(resource)


# --- what it says ---------------------------------------------------------------------------------------


def _event(store: Store, ehr: Ehr, endpoint: Endpoint, resource: Json) -> tuple[Event | None, list[Issue]]:
    """The event a resource tells (None for what is not ours); what was converted, the R4 rules it breaks."""
    if not is_telling(resource):
        return None, []
    together = [resource, *_related(ehr, resource)]
    entries = [{"resource": _named(store, ehr, endpoint, one)} for one in together]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    reading = read_fhir(bundle, source=endpoint.name)
    if reading.errors:
        raise MappingError(reading.errors)
    return reading.events[0], [*reading.notes, *validate(resource)]


def _related(ehr: Ehr, resource: Json) -> Iterator[Json]:
    """The resources without which this one cannot be understood."""
    if resource["resourceType"] == "Device":
        for page in ehr.search("DeviceUseStatement", {"device": f"Device/{resource['id']}"}):
            yield from page.resources
    for reference in sorted(set(_literal_references(resource))):
        type, _, id = reference.partition("/")
        if type in PARTS:
            yield ehr.read(type, id)


def _literal_references(node: Json) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node["reference"]
        for value in node.values():
            yield from _literal_references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _literal_references(item)


def _named(store: Store, ehr: Ehr, endpoint: Endpoint, resource: Json) -> Json:
    """A copy whose literal references carry business identifiers: our links, a patient from the EHR."""
    found: dict[str, Json] = {}
    for reference in set(_literal_references(resource)):
        type, _, id = reference.partition("/")
        if type == "Patient":
            found[reference] = _patient_identifier(store, ehr, endpoint, id)
            continue
        with store.read() as c:
            link = links.find_remote(c, endpoint.id, type, id)
        if link is not None:
            found[reference] = {"system": link.system, "value": link.value}
    return _with_identifiers(resource, found)


def _with_identifiers(node: Json, found: dict[str, Json]) -> Json:
    if isinstance(node, list):
        return [_with_identifiers(item, found) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _with_identifiers(value, found) for key, value in node.items()}
    name = found.get(node["reference"]) if isinstance(node.get("reference"), str) else None
    if name is not None and "identifier" not in node:
        made |= {"type": node["reference"].partition("/")[0], "identifier": dict(name)}
    return made


def _patient_identifier(store: Store, ehr: Ehr, endpoint: Endpoint, id: str) -> Json:
    """The patient's business identifier: the one the ledger knows, else the only one; never a guess."""
    try:
        listed = ehr.read("Patient", id).get("identifier", [])
    except Missing:
        return None
    named = [{"system": i["system"], "value": i["value"]} for i in listed if "system" in i and "value" in i]
    with store.read() as c:
        known = [
            name
            for name in named
            if events.knows_patient(c, endpoint.tenant_id, name["system"], name["value"])
        ]
    chosen = known or named
    return chosen[0] if len(chosen) == 1 else None


# --- into the ledger ------------------------------------------------------------------------------------


def _accept(
    c: Connection, endpoint: Endpoint, told: Event, resource: Json, now: Callable[[], datetime]
) -> tuple[str, int | None]:
    """(outcome, seq): a new version of a record that is known, else a new record of this EHR's."""
    known = events.find(c, endpoint.tenant_id, told["source"], told["id"])
    if not known and told["source"] != endpoint.name:
        own = f"{told['source']}.{told['id']}"
        told = load_event({**told, "source": endpoint.name, "id": own})
        known = events.find(c, endpoint.tenant_id, endpoint.name, own)
    key = _identity(resource, told)
    if known and _content(known[-1].event) == _content(told):
        _save_link(c, endpoint, key, resource, now())
        return "unchanged", known[-1].seq
    if known:
        told = load_event({**told, "version": version(known[-1].event) + 1})
    done = admit(
        c,
        endpoint.tenant_id,
        told,
        received_at=now(),
        actor=endpoint.name,
        endpoints=endpoints.every(c, endpoint.tenant_id),
        origin=endpoint.name,
    )
    _save_link(c, endpoint, key, resource, now())
    if told["type"] == "dose-change" and known and done.seq is not None:
        # The program and segment that belong to the session must follow it in the EHR that changed it.
        deliveries.add(c, endpoint.tenant_id, told, done.seq, [endpoint.id], at=stamp(now()))
    return done.outcome, done.seq


def _content(event: Event) -> bytes:
    return dumps({k: v for k, v in event.items() if k != "version"})


def _identity(resource: Json, told: Event) -> tuple[str, str]:
    try:
        return resource_identity(resource)
    except ValueError:
        told_by = telling_of(resource)
        assert told_by is not None
        return sid(told_by[0].kind), identity.business_value(told["source"], told["id"])


def _save_link(
    c: Connection, endpoint: Endpoint, key: tuple[str, str], resource: Json, now: datetime
) -> None:
    """What the EHR holds is what was last agreed: it is not sent back."""
    link = Link(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        system=key[0],
        value=key[1],
        resource_type=resource["resourceType"],
        remote_id=resource["id"],
        version_id=resource["meta"]["versionId"],
        content_hash=content_hash(resource),
    )
    links.save(c, link, now=now)
