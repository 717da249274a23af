"""Who a resource is: business identifiers, UUIDs, references and content hashes.

Identity follows from (source, type, id) of the event alone: the same input gives the same identifiers
for ever, whatever the version of a mapping.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

from .codes import sid
from .exact_json import dumps_sorted
from .paths import copy

Json = Any
Lookup = Callable[[str, str, str], str | None]
Named = tuple[Json, Json]
"""A Reference that has an `identifier`, and that identifier."""

_NESTED = (dict, list)
NAMESPACE = UUID("6c9f1c9e-5d0c-5a7e-9a44-6f1e6d6f1b61")
_NAMESPACE = NAMESPACE.bytes
_VARIANT = {f"{n:x}": "89ab"[n & 3] for n in range(16)}  # RFC 9562, 4.1
SOURCE = re.compile(r"[a-z0-9-]{1,40}")
_SAFE = ":/@!*'()+;="  # besides letters, digits and _.-~ ; never `|` `,` `$` `\` or a space
OWN = sid("")
KINDS = {
    "Device": ("device",),
    "DeviceUseStatement": ("device-use",),
    "Procedure": ("programming-session", "procedure", "education", "charted-refill", "charted-dose-change"),
    "MedicationRequest": ("program", "oral-baclofen"),
    "MedicationAdministration": ("refill", "segment", "bolus", "screening-bolus"),
    "Observation": ("interrogation", "alarm", "screening", "assessment", "score", "charted-value"),
    "Flag": ("alarm-flag",),
    "Condition": ("indication", "complication"),
    "ClinicalImpression": ("evaluation",),
    "CareTeam": ("care-team",),
    "Goal": ("goal",),
    "MedicationStatement": ("medicine-tried",),
    "Task": ("follow-up",),
    "Appointment": ("follow-up",),
    "DocumentReference": ("record", "report"),
    "MedicationDispense": ("dispense",),
}
"""The kinds of business identifier by which a resource of each type is one of ours."""
_SYSTEMS = {type: frozenset(sid(kind) for kind in kinds) for type, kinds in KINDS.items()}


@lru_cache(maxsize=4096)
def business_value(source: str, id: str) -> str:
    """`clinic-a.R-1`: the sender's name, a dot, its id with reserved characters percent-encoded."""
    return f"{source}.{quote(id, safe=_SAFE)}"


def split_value(value: str) -> tuple[str, str] | None:
    """(source, id) of one of our values; None where the value has another form."""
    source, dot, rest = value.partition(".")
    if not dot or not rest or not SOURCE.fullmatch(source):
        return None
    id = unquote(rest)
    return (source, id) if business_value(source, id) == value else None


@lru_cache(maxsize=4096)
def urn(system: str, value: str) -> str:
    """The `urn:uuid:` of an identity: the same for ever (UUIDv5)."""
    return f"urn:uuid:{_uuid(system, value)}"


def client_id(system: str, value: str) -> str:
    """A FHIR id of our own choice for an identity, e.g. of a Provenance."""
    return f"itb-{_uuid(system, value)}"


def _uuid(system: str, value: str) -> str:
    """The text of `uuid.uuid5(NAMESPACE, f"{system}|{value}")`, in a quarter of its time."""
    said = hashlib.sha1(_NAMESPACE + f"{system}|{value}".encode()).hexdigest()
    return f"{said[:8]}-{said[8:12]}-5{said[13:16]}-{_VARIANT[said[16]]}{said[17:20]}-{said[20:32]}"


def own(type: str, kind: str, value: str) -> Json:
    """A Reference to a resource of ours: its urn, type and business identifier."""
    system = sid(kind)
    return {
        "reference": urn(system, value),
        "type": type,
        "identifier": {"system": system, "value": value},
    }


def patient(business_id: Json) -> Json:
    """A Reference to the patient by business identifier, as a conditional reference (R4 transaction)."""
    system, value = business_id["system"], business_id["value"]
    return {
        "reference": conditional("Patient", system, value),
        "type": "Patient",
        "identifier": {"system": system, "value": value},
    }


@lru_cache(maxsize=4096)
def token(system: str, value: str) -> str:
    """`system|value` as a search token, URL-encoded."""
    return "|".join(quote(_escaped(text), safe=":/.-_~") for text in (system, value))


def search_token(system: str, value: str) -> str:
    """`system|value` as a search token that is not yet URL-encoded."""
    return f"{_escaped(system)}|{_escaped(value)}"


_SPECIAL = re.compile(r"([\\|,$])")


def _escaped(text: str) -> str:
    """`\\ | , $` are written with a backslash (R4 Search §3.1.1.4.1)."""
    return _SPECIAL.sub(r"\\\1", text)


def conditional(type: str, system: str, value: str) -> str:
    """`Type?identifier=system|value`."""
    return f"{type}?identifier={token(system, value)}"


def resource_identity(resource: Json) -> tuple[str, str]:
    """(system, value) that identifies one of our resources; a Provenance or Binary has its id.

    Raises ValueError for a resource that carries no identifier of ours.
    """
    if resource["resourceType"] in ("Provenance", "Binary"):
        return resource["resourceType"], resource["id"]
    wanted = _SYSTEMS.get(resource["resourceType"], frozenset())
    listed = resource.get("identifier", ())
    for identifier in [listed] if isinstance(listed, dict) else listed:
        if identifier.get("system") in wanted:
            return identifier["system"], identifier["value"]
    raise ValueError(f"a {resource['resourceType']} without an identifier of ours")


def identified(resource: Json) -> tuple[str, str] | None:
    """`resource_identity` of whatever somebody sent; None where it has none of ours."""
    try:
        return resource_identity(resource)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def content_hash(resource: Json) -> str:
    """sha256 of what the resource says: without id, meta and narrative, references by identifier.

    Our copy and the server's stored copy of the same content hash equal; decimals count digit for digit.
    """
    return hashlib.sha256(dumps_sorted(said(resource))).hexdigest()


def said(resource: Json) -> Json:
    """What a resource says, in one form: without id, meta and narrative, references by identifier.

    To be read only: it shares with the resource what is the same in both.
    """
    return _neutral({k: v for k, v in resource.items() if k not in ("id", "meta", "text")})


def _neutral(value: Json) -> Json:
    """A copy down to the references that change, of which there are few; what has none is not copied."""
    made = value
    is_object = type(value) is dict
    for at, item in value.items() if is_object else enumerate(value):
        if type(item) in _NESTED and (neutral := _neutral(item)) is not item:
            if made is value:
                made = value.copy()
            made[at] = neutral
    if is_object and "identifier" in value and "reference" in value:
        made = {k: v for k, v in made.items() if k != "reference"}
    return made


def rewrite_references(resource: Json, lookup: Lookup) -> Json:
    """A copy whose References with an `identifier` point where `lookup(type, system, value)` says.

    Where it says None the Reference stays logical: identifier and type only.
    """
    made = copy(resource)
    point_references(made, lookup)
    return made


def referenced(node: Json) -> set[tuple[str, str]]:
    """(system, value) of everything that `point_references` would look up."""
    return {target_of(found) for found in _references(node)}


def point_references(node: Json, lookup: Lookup) -> None:
    """`rewrite_references` in place."""
    point(_references(node), lookup)


def references(node: Json) -> list[Named]:
    """What `point_references` points, to be pointed later."""
    return list(_references(node))


def point(found: Iterable[Named], lookup: Lookup) -> None:
    """`point_references` of these."""
    for one in found:
        reference = one[0]
        target = lookup(reference["type"], *target_of(one))
        if target:
            reference["reference"] = target
        else:
            reference.pop("reference", None)


def target_of(found: Named) -> tuple[str, str]:
    """(system, value) of what a Reference refers to."""
    name = found[1]
    return name.get("system", ""), name.get("value", "")


def _references(whole: Json) -> Iterator[Named]:
    """The References with an `identifier`, and it; a loop, as a transaction has hundreds of elements."""
    left = [whole]
    for node in left:
        # Few elements have an identifier, so it is asked for first.
        if "identifier" in node and "type" in node and "resourceType" not in node:
            named = node["identifier"]
            if type(named) is dict:
                yield node, named
                continue
        for value in node.values():
            kind = type(value)
            if kind is dict:
                left.append(value)
            elif kind is list:
                for item in value:
                    if type(item) is dict:
                        left.append(item)
