"""Where each element that is written comes from: its event field, what was done to it, and which code.

Nothing is listed by hand. Values carry their event path through the real encoder, and the declared rows say
what they hold; what neither explains is a constant of the mapping or derived from several fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from . import bundle, provenance
from .dose_change import ALONE, Place
from .envelope import Event
from .event import MAPPINGS
from .exact_json import dumps
from .identity import resource_identity
from .paths import MISSING, Json, Step, child
from .paths import get as at_path
from .rows import Mapping

COPIED, CODED, UNIT, DERIVED, CONSTANT = "copied", "coded", "unit", "derived", "constant"
FIXED = frozenset({"url", "system", "resourceType"})
"""Elements that name a definition, a terminology or a type: no event says them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One element of a resource, `source` the event fields it comes from, `rule` the file that says how.

    `how`: copied (digit for digit), coded (a word of ours as a code of a terminology), unit (the UCUM unit of
    a copied number), derived (worked out from the event as a whole where `source` is empty), or constant.
    """

    resource: str
    path: str
    value: Json
    source: tuple[str, ...]
    how: str
    rule: str


def shown(event: Event, place: Place = ALONE) -> Json:
    """`explain` as JSON: `{"source", "id", "map_version", "elements": […]}`."""
    elements = [
        {
            "resource": o.resource,
            "path": o.path,
            "value": o.value,
            "from": list(o.source),
            "how": o.how,
            "rule": o.rule,
        }
        for o in explain(event, place)
    ]
    return {
        "source": event["source"],
        "id": event["id"],
        "map_version": map_version(),
        "elements": elements,
    }


def map_version() -> str:
    """A fingerprint of every declared row: it changes when the map does."""
    said = [
        [kind, resource, inner, name, place]
        for kind, module in MAPPINGS.items()
        for resource, inner, rows in module.MAPPED
        for name, place in rows.places()
    ]
    return hashlib.sha256(dumps(said)).hexdigest()[:12]


def explain(event: Event, place: Place = ALONE) -> list[Origin]:
    """Every leaf that the event's resources hold, in their order."""
    traced = bundle.encode(_traced(event, ""), place)
    found = [origin for resource in traced for origin in _origins(event, resource)]
    last = provenance.encode(event, bundle.encode(event, place))
    return found + [
        Origin(f"Provenance {last['id']}", path, value, (), _fixed(path), "mappings/provenance.py")
        for path, value, _ in _leaves(last)
    ]


# --- values that know where they come from ----------------------------------------------------------------


class _Text(str):
    origin: str


class _Number(Decimal):
    origin: str


class _Whole(int):
    origin: str


def _traced(node: Json, path: str) -> Json:
    if isinstance(node, dict):
        return {key: _traced(value, f"{path}.{key}" if path else key) for key, value in node.items()}
    if isinstance(node, list):
        return [_traced(value, f"{path}[{index}]") for index, value in enumerate(node)]
    kind = {str: _Text, Decimal: _Number, int: _Whole}.get(type(node))
    if kind is None:
        return node  # true and false cannot carry anything: the rows know them
    made: Any = kind(node)
    made.origin = path
    return made


def _plain(value: Json) -> Json:
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, _Number):
        return Decimal(value)
    return int(value) if isinstance(value, _Whole) else value


# --- what the rows say ------------------------------------------------------------------------------------

Spot = tuple[int, str | int]
"""A place in a resource: the holder, and the key or index in it."""


def _origins(event: Event, resource: Json) -> Iterator[Origin]:
    named = _name(resource)
    declared = _declared(event, resource)
    rule = f"mappings/{MAPPINGS[event['type']].__name__.rpartition('.')[2]}.py"
    copied: set[int] = set()
    for path, value, spots in _leaves(resource):
        carried = getattr(value, "origin", None)
        fields = next((declared[spot] for spot in reversed(spots) if spot in declared), ())
        constant = next((not declared[spot] for spot in reversed(spots) if spot in declared), False)
        holder, key = spots[-1]
        how = DERIVED
        if carried is not None:
            fields, how = (carried,), COPIED
            copied.add(holder)
        elif key in ("unit", "code") and holder in copied:
            how = UNIT
        elif constant or key in FIXED:
            fields, how = (), CONSTANT
        elif ".coding[" in path:
            how = CODED
        yield Origin(named, path, _plain(value), fields, how, rule)


def _fixed(path: str) -> str:
    return CONSTANT if path.rpartition(".")[2] in FIXED else DERIVED


def _name(resource: Json) -> str:
    system, value = resource_identity(resource)
    return f"{resource['resourceType']} {system.rpartition('/')[2]} {value}"


def _declared(event: Event, resource: Json) -> dict[Spot, tuple[str, ...]]:
    """The places that rows of the event's type write, with the event fields that are there."""
    found: dict[Spot, tuple[str, ...]] = {}
    for name, inner, rows in MAPPINGS[event["type"]].MAPPED:
        for holder in _holders(resource, name):
            if not _writes(rows, holder):
                continue
            for _, steps in rows.always:
                _claim(found, holder, steps, ())
            for row, _, path in rows.rows:
                _claim(found, holder, path.steps, (inner + row.event,))
            for group, _, targets in rows.groups:
                for _, steps in targets:
                    _claim(found, holder, steps, tuple(inner + name for name in group.events))
    return found


def _holders(resource: Json, name: str) -> list[Json]:
    """The parts of the resource that a mapping named `Type`, `Type.element` or `Type.element[0]` writes."""
    type, _, element = name.partition(".")
    if resource["resourceType"] != type:
        return []
    listed = resource.get(element.partition("[")[0], []) if element else [resource]
    return listed if isinstance(listed, list) else [listed]


def _writes(rows: Mapping, holder: Json) -> bool:
    """Whether these rows write this part: by the kind of its identifier, where they have one."""
    places = [steps for group, _, targets in rows.groups for _, steps in targets]
    places += [path.steps for _, path in rows.derived]
    named = [steps for steps in places if steps[0].element == "identifier"]
    return not named or any(at_path(holder, steps) is not MISSING for steps in named)


def _claim(
    found: dict[Spot, tuple[str, ...]], holder: Json, steps: tuple[Step, ...], fields: tuple[str, ...]
) -> None:
    parent = at_path(holder, steps[:-1])
    if not isinstance(parent, dict) or child(parent, steps[-1]) is MISSING:
        return
    last = steps[-1]
    spot: Spot = id(parent), last.element
    if last.index is not None:
        spot = id(parent[last.element]), last.index
    found.setdefault(spot, fields)


def _leaves(
    node: Json, path: str = "", spots: tuple[Spot, ...] = ()
) -> Iterator[tuple[str, Json, tuple[Spot, ...]]]:
    """(path, value, the places on the way to it) of every scalar."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else key, (*spots, (id(node), key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{path}[{index}]", (*spots, (id(node), index)))
    else:
        yield path, node, spots
