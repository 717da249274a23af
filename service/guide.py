"""The implementation guide of this version of the service: `itb ig build`, and what HAPI loads."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from mappings import MappingError, ig, load_event
from mappings.bundle import resources
from mappings.exact_json import loads
from mappings.identity import client_id, resource_identity
from mappings.ig.catalogue import CONFORMANCE
from mappings.rows import Issue

from .fhir.routes import capability

Json = Any


def definitions() -> list[Json]:
    """Its conformance resources, what this server offers among them."""
    return ig.definitions(version("itb-fhir"), capability(CONFORMANCE["date"]))


def examples(lines: list[bytes]) -> list[Json]:
    """The resources of events (JSON, one a line), each under an id of its own; raises `MappingError`."""
    made: dict[tuple[str, str], Json] = {}
    for number, line in enumerate(lines, start=1):
        try:
            event = load_event(loads(line))
        except MappingError as error:
            raise MappingError(
                [Issue(f"line {number}: {i.path}", i.rule, i.message) for i in error.issues]
            ) from None
        for resource in resources(event):
            named = {**resource, "id": resource.get("id") or client_id(*resource_identity(resource))}
            made[named["resourceType"], named["id"]] = named
    return list(made.values())
