"""What an EHR's FHIR server can take and give: its CapabilityStatement as a matrix. Pure.

Nothing is assumed that the statement does not say, with one exception: a server that says nothing of
`updateCreate` may take ids of ours (HAPI 8.8 does, and does not say so). What the options of an endpoint
allow beyond the statement is named in `Matrix.by_option`, and so never widens anything silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mappings.identity import KINDS

Json = Any
FHIR_VERSION = "4.0.1"
WRITTEN = (*(type for type in KINDS if type != "MedicationDispense"), "Provenance")
"""The resource types that we write, to one server or another; a pharmacy tells what it dispensed."""
READ = (*WRITTEN, "Patient")
NEEDED = ("create", "update")
"""What is not written cannot be corrected: a type that takes no update is not written at all."""


@dataclass(frozen=True, slots=True)
class TypeSupport:
    """What is offered for one resource type; `client_ids` (updateCreate) is None where nothing is said."""

    interactions: frozenset[str] = frozenset()
    conditional_create: bool = False
    conditional_update: bool = False
    client_ids: bool | None = None
    versioning: str = ""
    search_params: frozenset[str] = frozenset()


NOTHING = TypeSupport()


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a server says it can do; `interactions` and `operations` are those of the whole system, and
    `Subscription/status` and `Subscription/events`."""

    fhir_version: str = ""
    software: str = ""
    types: Mapping[str, TypeSupport] = field(default_factory=dict)
    interactions: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    by_option: tuple[str, ...] = ()

    def of(self, type: str) -> TypeSupport:
        """The support of one type: none where the statement does not name it."""
        return self.types.get(type, NOTHING)

    @property
    def transactions(self) -> bool:
        return "transaction" in self.interactions


def read(statement: Json) -> Matrix:
    """The matrix of a CapabilityStatement, of the types that we read or write.

    Raises ValueError for anything else, or one that is not shaped as R4 has it.
    """
    if not isinstance(statement, dict) or statement.get("resourceType") != "CapabilityStatement":
        raise ValueError("is not a CapabilityStatement")
    try:
        return _matrix(statement)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is no CapabilityStatement of R4 ({type(error).__name__})") from None


def _matrix(statement: Json) -> Matrix:
    servers = [rest for rest in statement.get("rest", []) if rest.get("mode") == "server"]
    listed = [one for rest in servers for one in rest.get("resource", []) if one["type"] in READ]
    software = statement.get("software", {})
    named = " ".join(str(software[key]) for key in ("name", "version") if key in software)
    return Matrix(
        fhir_version=str(statement.get("fhirVersion") or ""),
        software=named or "unnamed",
        types={one["type"]: _support(one) for one in listed},
        interactions=frozenset(_codes(rest.get("interaction", []) for rest in servers)),
        operations=frozenset(
            [o["name"].lstrip("$") for rest in servers for o in rest.get("operation", [])]
            + [f"Subscription/{name}" for name in _asked_of_subscriptions(servers)]
        ),
    )


def _asked_of_subscriptions(servers: Iterable[Json]) -> Iterable[str]:
    """What can be asked about a Subscription: its status, and the events that it has told of."""
    listed = [one for rest in servers for one in rest.get("resource", []) if one["type"] == "Subscription"]
    named = {o["name"].lstrip("$") for one in listed for o in one.get("operation", [])}
    return named & {"status", "events"}


def _codes(lists: Iterable[Json]) -> Iterable[str]:
    return (item["code"] for items in lists for item in items)


def _support(one: Json) -> TypeSupport:
    return TypeSupport(
        interactions=frozenset(_codes([one.get("interaction", [])])),
        conditional_create=one.get("conditionalCreate") is True,
        conditional_update=one.get("conditionalUpdate") is True,
        client_ids=said if isinstance(said := one.get("updateCreate"), bool) else None,
        versioning=one.get("versioning", ""),
        search_params=frozenset(param["name"] for param in one.get("searchParam", [])),
    )


# --- as JSON ----------------------------------------------------------------------------------------------


def dump(matrix: Matrix) -> Json:
    """The matrix as plain JSON data, sorted, so that the same matrix is the same text."""
    said = asdict(matrix)
    return {
        "fhir_version": said["fhir_version"],
        "software": said["software"],
        "interactions": sorted(said["interactions"]),
        "operations": sorted(said["operations"]),
        "types": {type: _dump_support(matrix.types[type]) for type in sorted(matrix.types)},
    }


def _dump_support(support: TypeSupport) -> Json:
    lists = {name: sorted(getattr(support, name)) for name in ("interactions", "search_params")}
    return asdict(support) | lists


def load(said: Json) -> Matrix:
    """The inverse of `dump`; `by_option` is not kept, as the options are."""
    return Matrix(
        fhir_version=said["fhir_version"],
        software=said["software"],
        types={type: _load_support(one) for type, one in said["types"].items()},
        interactions=frozenset(said["interactions"]),
        operations=frozenset(said["operations"]),
    )


def _load_support(one: Json) -> TypeSupport:
    sets = {name: frozenset(one[name]) for name in ("interactions", "search_params")}
    return TypeSupport(**{**one, **sets})


# --- what the endpoint's options make of it ---------------------------------------------------------------


def with_options(matrix: Matrix, options: Mapping[str, Any]) -> Matrix:
    """The matrix as the endpoint's options correct it: `refuse_types`, `allow_types`, `transactions`.

    `allow_types` are treated as types that can be created, updated and found by identifier.
    """
    types = dict(matrix.types)
    said = []
    for type in options.get("allow_types", ()):
        if cannot_write(matrix, type):
            said.append(f"{type} is written although {cannot_write(matrix, type)}")
        known = matrix.of(type)
        types[type] = replace(
            known,
            interactions=known.interactions | {*NEEDED, "read", "search-type"},
            client_ids=True if type == "Provenance" else known.client_ids,
            search_params=known.search_params | ({"identifier"} if not finding(matrix, type) else set()),
        )
    for type in options.get("refuse_types", ()):
        said.append(f"{type} is not written")
        types[type] = replace(types.get(type, NOTHING), interactions=matrix.of(type).interactions - {*NEEDED})
    interactions = matrix.interactions
    wanted = options.get("transactions")
    if wanted is not None and wanted != matrix.transactions:
        said.append("transactions are sent although not listed" if wanted else "transactions are not sent")
        interactions = interactions ^ {"transaction"}
    return replace(matrix, types=types, interactions=interactions, by_option=tuple(said))


# --- what follows from it -----------------------------------------------------------------------------------


def problems(matrix: Matrix) -> list[str]:
    """Why nothing can be exchanged with this server at all; empty when something can."""
    found = []
    if not matrix.fhir_version.startswith("4.0"):
        found.append(f"its FHIR version is {matrix.fhir_version or 'not said'}, {FHIR_VERSION} is needed")
    if "identifier" not in matrix.of("Patient").search_params:
        found.append("patients cannot be searched by identifier, so no record can be given to one")
    return found


def finding(matrix: Matrix, type: str) -> str:
    """How a resource of ours is found again: by `identifier`, among those of the `patient`, or not ("").

    A Provenance has no identifier: it is found by the `_id` that we gave it.
    """
    support = matrix.of(type)
    if "search-type" not in support.interactions:
        return ""
    if type == "Provenance":
        return "_id"
    return next((name for name in ("identifier", "patient") if name in support.search_params), "")


def cannot_write(matrix: Matrix, type: str) -> str:
    """Why resources of a type are not written there; "" where they are.

    A type that can be created and not updated is left alone: a wrong dose could not be taken back.
    """
    support = matrix.of(type)
    if not support.interactions:
        return "the server does not offer it"
    if type == "Provenance":  # R4 Provenance has no identifier: it is written under an id of our own
        if "update" not in support.interactions:
            return "it cannot be written under an id of our own"
        return "the server gives ids itself, and R4 Provenance has no identifier" * (
            support.client_ids is False
        )
    missing = [name for name in NEEDED if name not in support.interactions]
    if missing == ["update"]:
        return "it can be created and not updated, so an error could not be corrected"
    if missing:
        return f"the server offers no {' and no '.join(missing)} of it"
    if not finding(matrix, type):
        return "it could not be found again by identifier or patient"
    return ""


def difference(old: Matrix, new: Matrix) -> list[str]:
    """What of two readings of a server differs, in words."""
    found = [
        f"{name} {getattr(old, name) or '-'} -> {getattr(new, name) or '-'}"
        for name in ("fhir_version", "software")
        if getattr(old, name) != getattr(new, name)
    ]
    for name in ("interactions", "operations"):
        found += _changes("system", getattr(old, name), getattr(new, name))
    for type in sorted({*old.types, *new.types}):
        before, after = old.of(type), new.of(type)
        found += _changes(type, before.interactions, after.interactions)
        found += _changes(f"{type} search", before.search_params, after.search_params)
        for name in ("conditional_create", "conditional_update", "client_ids", "versioning"):
            if getattr(before, name) != getattr(after, name):
                found.append(f"{type} {name} {getattr(before, name)} -> {getattr(after, name)}")
    return found


def _changes(what: str, old: frozenset[str], new: frozenset[str]) -> list[str]:
    gone, come = sorted(old - new), sorted(new - old)
    return [f"{what} -{name}" for name in gone] + [f"{what} +{name}" for name in come]
