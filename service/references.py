"""The literal references of a resource: listed, and given business identifiers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mappings.exact_json import dumps, loads

Json = Any


NESTED = (dict, list)
_REFERENCE = re.compile(rb'"reference":("(?:[^"\\]|\\.)*")')
"""Within a text its quotation marks would be escaped, so this can only be an element and its value."""


def literal_references(node: Json) -> Iterator[str]:
    """Every `Type/id` that the resource refers to; found in its JSON, as that is the fastest walk."""
    for found in _REFERENCE.findall(dumps(node)):
        yield loads(found) if b"\\" in found else found[1:-1].decode()


def with_identifiers(node: Json, found: dict[str, Json]) -> Json:
    """A copy whose literal references also carry the business identifiers of `found`."""
    if isinstance(node, list):
        return [with_identifiers(item, found) if type(item) in NESTED else item for item in node]
    made = {
        key: with_identifiers(value, found) if type(value) in NESTED else value for key, value in node.items()
    }
    name = found.get(node["reference"]) if isinstance(node.get("reference"), str) else None
    if name is not None and "identifier" not in node:
        made |= {"type": node["reference"].partition("/")[0], "identifier": dict(name)}
    return made
