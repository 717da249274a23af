"""The literal references of a resource: listed, and given business identifiers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import is_
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
    """The same, with the business identifiers of `found` beside literal references; the rest is shared."""
    if isinstance(node, list):
        items = [with_identifiers(item, found) if type(item) in NESTED else item for item in node]
        return node if all(map(is_, items, node)) else items
    changed = {
        key: made
        for key, value in node.items()
        if type(value) in NESTED and (made := with_identifiers(value, found)) is not value
    }
    reference = node.get("reference")
    name = found.get(reference) if type(reference) is str and "identifier" not in node else None
    if name is not None:
        changed |= {"type": reference.partition("/")[0], "identifier": dict(name)}
    return node | changed if changed else node
