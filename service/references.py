"""The literal references of a resource: listed, and given business identifiers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = Any


def literal_references(node: Json) -> Iterator[str]:
    """Every `Type/id` that the resource refers to."""
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node["reference"]
        for value in node.values():
            yield from literal_references(value)
    elif isinstance(node, list):
        for item in node:
            yield from literal_references(item)


def with_identifiers(node: Json, found: dict[str, Json]) -> Json:
    """A copy whose literal references also carry the business identifiers of `found`."""
    if isinstance(node, list):
        return [with_identifiers(item, found) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: with_identifiers(value, found) for key, value in node.items()}
    name = found.get(node["reference"]) if isinstance(node.get("reference"), str) else None
    if name is not None and "identifier" not in node:
        made |= {"type": node["reference"].partition("/")[0], "identifier": dict(name)}
    return made
