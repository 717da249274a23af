"""What a server of some make takes: one table each, enforced by the core and told by its CapabilityStatement.

The tables are the files `personalities/*.json`; docs/fake-ehr.md says where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

Json = Any

NAMES = ("hapi", "epic-like", "oracle-like", "silent-lossy")
INTERACTIONS = ("read", "vread", "search", "create", "update", "delete", "history")
OF_FHIR = {"search": "search-type", "history": "history-type"}
PARAMETER_KINDS = {
    "_id": "token",
    "_lastUpdated": "date",
    "identifier": "token",
    "patient": "reference",
    "subject": "reference",
    "device": "reference",
    "status": "token",
    "code": "token",
    "category": "token",
}
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription"
FHIR_JSON = "application/fhir+json"


@dataclass(frozen=True, slots=True)
class Personality:
    """A server's make. Every field is a key of its file.

    `client_ids`: `taken`, `refused` (405), or `rewritten` (stored under an id of the server's own).
    `if_none_exist`: `kept` or `ignored`. `if_match`: `optional`, `required` (412 without) or `ignored`.
    `stale_status`: the answer to an If-Match that names an old version. `references`: `checked` or `free`.
    `unknown_parameter`: `refused` (400) or `ignored`. `returns`: what a write answers with unless asked.
    `subscription_operations`: whether it answers `$status` and `$events` of a Subscription.
    `loses`: what is dropped from what is stored, without a word: `extensions`, `decimals` (19.00 to 19.0).
    """

    name: str
    description: str
    interactions: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, tuple[str, ...]]
    transaction: bool
    batch: bool
    client_ids: str
    if_none_exist: str
    if_match: str
    stale_status: int
    references: str
    unknown_parameter: str
    returns: str
    page_size: int
    loses: tuple[str, ...] = ()
    subscription_operations: bool = False

    def takes(self, type: str, interaction: str) -> bool:
        """Whether a client may do this with resources of that type."""
        return interaction in self.interactions.get(type, ())

    def searches(self, type: str) -> tuple[str, ...]:
        """The search parameters of a type."""
        return self.parameters.get(type, self.parameters["*"]) if self.takes(type, "search") else ()


@cache
def load(name: str) -> Personality:
    """One of `NAMES`; KeyError for another."""
    if name not in NAMES:
        raise KeyError(name)
    text = resources.files(__package__).joinpath("personalities", f"{name}.json").read_text()
    return _made(json.loads(text))


def _made(raw: Mapping[str, Any]) -> Personality:
    types = raw["types"]
    every = tuple(INTERACTIONS)
    found = {type: every if listed == "all" else tuple(listed) for type, listed in types.items()}
    parameters = {type: tuple(names) for type, names in raw["parameters"].items()}
    rest = {k: v for k, v in raw.items() if k not in ("types", "parameters", "loses")}
    return Personality(interactions=found, parameters=parameters, loses=tuple(raw.get("loses", ())), **rest)


OVERRIDES = (
    "read_only",
    "no_last_updated",
    "no_transactions",
    "loses",
    "client_ids",
    "subscription_operations",
)
"""What a fault plan may change of the server itself."""


def overridden(made: Personality, changes: Mapping[str, Any]) -> Personality:
    """The personality with the `server` part of a fault plan; ValueError for what is not in `OVERRIDES`."""
    if unknown := changes.keys() - set(OVERRIDES) - {"clock_skew_s"}:
        raise ValueError(f"the server has no {', '.join(sorted(unknown))}; there are {', '.join(OVERRIDES)}")
    if types := changes.get("read_only"):
        reading = ("read", "vread", "search", "history")
        some = {
            type: tuple(i for i in listed if type not in types or i in reading)
            for type, listed in made.interactions.items()
        }
        made = replace(made, interactions=some)
    if changes.get("no_last_updated"):
        less = {t: tuple(n for n in names if n != "_lastUpdated") for t, names in made.parameters.items()}
        made = replace(made, parameters=less)
    if changes.get("no_transactions"):
        made = replace(made, transaction=False, batch=False)
    if "loses" in changes:
        made = replace(made, loses=tuple(changes["loses"]))
    if "subscription_operations" in changes:
        made = replace(made, subscription_operations=bool(changes["subscription_operations"]))
    if "client_ids" in changes:
        made = replace(made, client_ids=changes["client_ids"])
    return made


def lossy(made: Personality, resource: Json) -> Json:
    """The resource as this server keeps it."""
    if "extensions" in made.loses:
        resource = _without_extensions(resource)
    if "decimals" in made.loses:
        resource = _shortened(resource)
    return resource


def _without_extensions(node: Json) -> Json:
    if isinstance(node, dict):
        return {
            k: _without_extensions(v) for k, v in node.items() if k != "extension" and not k.startswith("_")
        }
    return [_without_extensions(item) for item in node] if isinstance(node, list) else node


def _shortened(node: Json) -> Json:
    """19.00 becomes 19.0, 0.1750 becomes 0.175: what a server that keeps binary floats gives back."""
    if isinstance(node, Decimal):
        return Decimal(repr(float(node)))
    if isinstance(node, dict):
        return {k: _shortened(v) for k, v in node.items()}
    return [_shortened(item) for item in node] if isinstance(node, list) else node


def capability_statement(made: Personality, url: str, date: str) -> Json:
    """The CapabilityStatement that this server answers under `/metadata`."""
    system = [{"code": name} for name in ("transaction", "batch") if getattr(made, name)]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": f"itb fake-ehr, {made.name}"},
        "implementation": {"description": made.description, "url": url},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON],
        "rest": [
            {
                "mode": "server",
                "resource": [_resource(made, type) for type in sorted(made.interactions)],
                "interaction": system,
            }
        ],
    }


def _resource(made: Personality, type: str) -> Json:
    listed = made.interactions[type]
    versioned = "vread" in listed or made.if_match != "ignored"
    offered = ("status", "events") if type == "Subscription" and made.subscription_operations else ()
    return {
        **({"operation": [{"name": n, "definition": f"{BACKPORT}-{n}"} for n in offered]} if offered else {}),
        "type": type,
        "interaction": [{"code": OF_FHIR.get(i, i)} for i in listed],
        "versioning": "versioned-update" if "update" in listed and versioned else "versioned",
        "readHistory": "vread" in listed,
        "updateCreate": "update" in listed and made.client_ids == "taken",
        "conditionalCreate": "create" in listed and made.if_none_exist == "kept",
        "conditionalUpdate": "update" in listed and made.name in ("hapi", "silent-lossy"),
        "conditionalDelete": "not-supported",
        "searchParam": [{"name": n, "type": PARAMETER_KINDS[n]} for n in made.searches(type)],
    }
