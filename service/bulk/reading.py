"""One patient's resources out of a bulk export as events. Pure: resources in, `Told` out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mappings import Issue, MappingError, read_fhir
from mappings.bundle import is_telling
from mappings.event import Event, occurred
from mappings.identity import resource_identity
from service.references import literal_references, with_identifiers

Json = Any
Find = Callable[[str, str], Json | None]
"""Another resource of the export, by type and id."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the patient with what was noted about it; or, without one, what could not be read."""

    event: Event | None
    issues: tuple[Issue, ...] = ()


def patient_of(resource: Json) -> str:
    """What tells whose a resource is: `Patient/id`, `system|value`, or nothing where it tells nobody."""
    if resource.get("resourceType") == "Patient":
        return f"Patient/{resource.get('id')}"
    listed = [resource[name] for name in ("subject", "patient", "for") if name in resource]
    listed += [p.get("actor", {}) for p in resource.get("participant", ()) if isinstance(p, dict)]
    for who in listed:
        literal = _local(who.get("reference", ""))
        if literal.startswith("Patient/"):
            return literal
        name = who.get("identifier", {})
        if "system" in name and "value" in name:
            return f"{name['system']}|{name['value']}"
    return ""


def _local(reference: str) -> str:
    """`Patient/1` of `http://ehr.invalid/fhir/Patient/1/_history/2`."""
    return "/".join(reference.partition("/_history")[0].split("/")[-2:])


def tell(resources: list[Json], source: str, find: Find, knows: Callable[[Json], bool]) -> list[Told]:
    """The events of one patient, as they happened, then what could not be read.

    `knows`: whether the ledger has this identifier of a patient; of several, that one is taken, else none.
    """
    whole = [*resources, *_referenced(resources, find)]
    entries = [{"resource": _named(one, find, knows)} for one in whole]
    telling = [at for at, one in enumerate(whole) if is_telling(one)]
    if not telling:
        return []
    reading = read_fhir({"resourceType": "Bundle", "type": "collection", "entry": entries}, source=source)
    told = [Told(event) for event in reading.events]
    if not reading.errors:
        told = [
            Told(event, tuple(n for n in reading.notes if n.path.startswith(f"Bundle.entry[{at}].")))
            for at, event in zip(telling, reading.events, strict=True)
        ]
    told = [replace(one, issues=_placed(one.issues, whole)) for one in told]
    told.sort(key=lambda one: occurred(one.event or {}))
    return told + [Told(None, _placed((issue,), whole)) for issue in reading.errors]


def _referenced(resources: list[Json], find: Find) -> Iterator[Json]:
    """What they refer to and is nobody's: practitioners, medications."""
    seen = {f"{one['resourceType']}/{one.get('id')}" for one in resources}
    for reference in sorted({_local(r) for one in resources for r in literal_references(one)} - seen):
        type, _, id = reference.partition("/")
        other = find(type, id) if type != "Patient" else None
        if other is not None and not is_telling(other):
            yield other


def _named(resource: Json, find: Find, knows: Callable[[Json], bool]) -> Json:
    """A copy whose literal references carry business identifiers, where the export tells them."""
    found = {}
    for reference in set(literal_references(resource)):
        type, _, id = _local(reference).partition("/")
        other = find(type, id)
        name = None if other is None else _patient(other, knows) if type == "Patient" else _own(other)
        if name is not None:
            found[reference] = name
    return with_identifiers(resource, found) if found else resource


def _patient(patient: Json, knows: Callable[[Json], bool]) -> Json | None:
    listed = [i for i in patient.get("identifier", ()) if "system" in i and "value" in i]
    named = [{"system": i["system"], "value": i["value"]} for i in listed]
    chosen = [name for name in named if knows(name)] or named
    return chosen[0] if len(chosen) == 1 else None


def _own(resource: Json) -> Json | None:
    try:
        system, value = resource_identity(resource)
    except (ValueError, KeyError, AttributeError):
        return None
    return {"system": system, "value": value} if system.startswith("http") else None


def _placed(issues: tuple[Issue, ...], whole: list[Json]) -> tuple[Issue, ...]:
    """Their places in the resources' own words: `Device/5.status` for `Bundle.entry[3].resource.status`."""
    placed = []
    for issue in issues:
        path = issue.path
        if path.startswith("Bundle.entry["):
            at, _, rest = path.removeprefix("Bundle.entry[").partition("].resource")
            one = whole[int(at)]
            path = f"{one['resourceType']}/{one.get('id')}{rest}"
        placed.append(replace(issue, path=path))
    return tuple(placed)


def deletions(bundle: Json) -> list[str]:
    """`Type/id` of each DELETE entry of a Bundle; raises `MappingError` for anything else."""
    try:
        requests = [entry["request"] for entry in bundle["entry"]]
        return [str(one["url"]) for one in requests if one["method"] == "DELETE"]
    except (KeyError, TypeError):
        raise MappingError([Issue("$", "bulk", "is no transaction Bundle with DELETE entries")]) from None
