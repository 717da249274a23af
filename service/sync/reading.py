"""What a resource of an EHR tells, as an event: with the parts it cannot be understood without.

Calls the EHR, and only reads the store. One `Reader` serves one round of reading: it asks for a part or a
patient once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mappings import Issue, MappingError, identity, read_fhir
from mappings.bundle import encode, is_telling
from mappings.codes import sid
from mappings.event import Event, telling_of
from mappings.event import identity as key_of
from mappings.identity import content_hash, resource_identity
from mappings.validate import validate
from service.references import literal_references, with_identifiers
from service.store import events, links
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.links import Link

from . import patients
from .ehr import Ehr, Missing, Refused

Json = Any
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
AT_ONCE = 50
"""Ids in one search."""


@dataclass(frozen=True, slots=True)
class Told:
    """The event; what was converted in reading it, and the R4 rules it breaks; the resource that tells it,
    and the hash of that.

    `people`: every business identifier of its patient there, those of merged records too.
    """

    event: Event
    notes: list[Issue]
    resource: Json
    content_hash: str
    people: tuple[Json, ...] = ()


class Reader:
    """Reads resources of one EHR; keeps what it fetched for them until the next page."""

    def __init__(self, store: Store, ehr: Ehr, endpoint: Endpoint) -> None:
        self._store, self._ehr, self._endpoint = store, ehr, endpoint
        self._parts: dict[str, Json] = {}
        self._uses: dict[str, list[Json]] = {}
        self._links: dict[str, Link | None] = {}
        self._patients: dict[str, tuple[Json, list[Json]]] = {}

    def prepare(self, resources: Sequence[Json]) -> None:
        """Fetch what a page of resources needs, many at once; what came before is forgotten."""
        self._parts.clear()
        self._uses.clear()
        self._links.clear()
        if len(self._patients) > 10_000:
            self._patients.clear()
        wanted = _wanted(resources)
        for type in wanted.keys() & set(PARTS):
            self._fetch(type, sorted(wanted[type]))
        self._fetch("Patient", sorted(wanted.get("Patient", set()) - self._patients.keys()))
        self._fetch_uses([f"Device/{r['id']}" for r in resources if r["resourceType"] == "Device"])
        for type, ids in _wanted(self._parts.values()).items():
            wanted.setdefault(type, set()).update(ids)
        self._find_links(wanted)

    def _find_links(self, wanted: dict[str, set[str]]) -> None:
        with self._store.read() as c:
            for type in wanted.keys() - {"Patient"}:
                ids = sorted(wanted[type])
                found = links.of_remote(c, self._endpoint.id, type, ids)
                self._links |= {f"{type}/{id}": found.get(id) for id in ids}

    def _fetch(self, type: str, ids: list[str]) -> None:
        if len(ids) < 2:
            return
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            try:
                for page in self._ehr.search(type, {"_id": ",".join(some)}):
                    for found in page.resources:
                        self._parts[f"{type}/{found['id']}"] = found
            except (Refused, Missing):
                return  # then each is read by itself

    def _fetch_uses(self, devices: list[str]) -> None:
        for start in range(0, len(devices), AT_ONCE):
            some = devices[start : start + AT_ONCE]
            self._uses |= {device: [] for device in some}
            try:
                for page in self._ehr.search("DeviceUseStatement", {"device": ",".join(some)}):
                    for use in page.resources:
                        reference = (use.get("device") or {}).get("reference", "")
                        self._uses.setdefault(reference, []).append(use)
            except (Refused, Missing):
                return  # it cannot be asked so: such a Device is refused, as what it is missing

    # --- one resource -------------------------------------------------------------------------------------

    def told(self, resource: Json, hashed: str) -> Told | None:
        """What it tells; None for what is not ours. Raises `MappingError` for what cannot be read.

        `hashed` is its content hash.
        """
        if not is_telling(resource):
            return None
        references = set(literal_references(resource))
        entries = [{"resource": self._named(resource, references)}]
        for part in self._related(resource, references):
            entries.append({"resource": self._named(part, set(literal_references(part)))})
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        reading = read_fhir(bundle, source=self._endpoint.name)
        if reading.errors:
            raise MappingError(reading.errors)
        notes = [*reading.notes, *validate(resource)]
        return Told(reading.events[0], notes, resource, hashed, self._people(references))

    def _people(self, references: Iterable[str]) -> tuple[Json, ...]:
        ids = {r.partition("/")[2] for r in references if r.startswith("Patient/")}
        return tuple(self._patient(next(iter(ids)))[1]) if len(ids) == 1 else ()

    def told_by_part(self, part: Json, link: Link) -> Told | None:
        """What the record tells now to which a part or a projection of ours belongs."""
        if part["resourceType"] == "DeviceUseStatement":
            found = self._read((part.get("device") or {}).get("reference", ""))
        else:
            with self._store.read() as c:
                telling = telling_link(c, self._endpoint, link)
            found = self._read(f"{telling.resource_type}/{telling.remote_id}") if telling else None
        return self.told(found, content_hash(found)) if found is not None else None

    def _read(self, reference: str) -> Json | None:
        type, _, id = reference.partition("/")
        if not id:
            return None
        if reference not in self._parts:
            try:
                self._parts[reference] = self._ehr.read(type, id)
            except (Missing, Refused):
                return None
        return self._parts[reference]

    def _related(self, resource: Json, references: Iterable[str]) -> Iterator[Json]:
        if resource["resourceType"] == "Device":
            device = f"Device/{resource['id']}"
            if device not in self._uses:
                self._fetch_uses([device])
            yield from self._uses[device]
        for reference in sorted(references):
            if reference.partition("/")[0] in PARTS and (found := self._read(reference)) is not None:
                yield found

    def _named(self, resource: Json, references: Iterable[str]) -> Json:
        """A copy whose literal references carry business identifiers: our links, a patient from the EHR."""
        found: dict[str, Json] = {}
        for reference in references:
            type, _, id = reference.partition("/")
            if type == "Patient":
                found[reference] = self._patient(id)[0]
                continue
            if reference not in self._links:
                with self._store.read() as c:
                    self._links[reference] = links.find_remote(c, self._endpoint.id, type, id)
            link = self._links[reference]
            if link is not None:
                found[reference] = {"system": link.system, "value": link.value}
        return with_identifiers(resource, found)

    def _patient(self, id: str) -> tuple[Json, list[Json]]:
        """The business identifier to call a patient by, and all there are."""
        if id not in self._patients:
            self._patients[id] = self._patient_identifier(id)
        return self._patients[id]

    def _patient_identifier(self, id: str) -> tuple[Json, list[Json]]:
        """The identifier that the ledger knows, else the only one; never a guess.

        Those of the record that counts go before those of records that were merged into it.
        """
        try:
            patient = self._parts.get(f"Patient/{id}") or self._ehr.read("Patient", id)
            own, merged = patients.names(patient, lambda other: self._ehr.read("Patient", other))
        except (Missing, patients.Unclear):
            return None, []
        for names in (own, merged):
            if known := self._known(names):
                return known[0] if len(known) == 1 else None, [*own, *merged]
        return own[0] if len(own) == 1 else None, [*own, *merged]

    def _known(self, names: list[Json]) -> list[Json]:
        tenant = self._endpoint.tenant_id
        with self._store.read() as c:
            return [n for n in names if events.knows_patient(c, tenant, n["system"], n["value"])]


def _wanted(resources: Iterable[Json]) -> dict[str, set[str]]:
    """The ids that the resources refer to, by type."""
    found: dict[str, set[str]] = {}
    for reference in (one for resource in resources for one in literal_references(resource)):
        type, _, id = reference.partition("/")
        if id:
            found.setdefault(type, set()).add(id)
    return found


def names_of(value: str) -> list[tuple[str, str]]:
    """(source, id) of the records that an identifier of ours may belong to, the longest first.

    A goal or a score has a number behind its event's id, and an id may have such an end of its own.
    """
    found = []
    name = identity.split_value(value)
    while name is not None:
        found.append(name)
        head, slash, _ = name[1].rpartition("/")
        name = (name[0], head) if slash else None
    return found


def record_of(c: Any, endpoint: Endpoint, link: Link) -> tuple[str, str] | None:
    """(source, id) of the record that a linked resource belongs to: it tells it, or is a part of it."""
    names = names_of(link.value)
    known = events.versions_of(c, endpoint.tenant_id, names)
    if (name := next((one for one in names if one in known), None)) is not None:
        return name
    if link.event_seq is not None:  # a device is named by its serial number
        stored = events.by_seq(c, endpoint.tenant_id, link.event_seq)
        if stored is not None:
            return key_of(stored.event)
    return None


def telling_link(c: Any, endpoint: Endpoint, link: Link) -> Link | None:
    """The link of the resource that tells the record of `link`."""
    name = record_of(c, endpoint, link)
    if name is None:
        return None
    event = events.find(c, endpoint.tenant_id, *name)[-1].event
    told = next(resource for resource in encode(event) if is_telling(resource))
    return links.find(c, endpoint.id, *resource_identity(told)) or links.find(
        c, endpoint.id, sid(_kind(told)), identity.business_value(*name)
    )


def _kind(resource: Json) -> str:
    found = telling_of(resource)
    assert found is not None
    return found[0].kind


def records_links(c: Any, endpoint: Endpoint, event: Event) -> list[Link]:
    """The links of all resources of a record."""
    found = (links.find(c, endpoint.id, *resource_identity(resource)) for resource in encode(event))
    return [link for link in found if link is not None]
