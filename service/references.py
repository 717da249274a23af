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
    """The same, with the business identifiers of `found` beside literal references; the rest is shared."""
    made = node
    is_object = type(node) is dict
    for at, value in node.items() if is_object else enumerate(node):
        if type(value) in NESTED and (named := with_identifiers(value, found)) is not value:
            if made is node:
                made = node.copy()
            made[at] = named
    if is_object and "identifier" not in node and type(reference := node.get("reference")) is str:
        name = found.get(reference)
        if name is not None:
            made = made | {"type": reference.partition("/")[0], "identifier": dict(name)}
    return made
