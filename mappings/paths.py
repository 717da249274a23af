"""Paths into plain JSON data: `extension[url=x].valueQuantity`, `note[0].text`; get, put, take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = Any
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path: an element, and which item of it where it is a list.

    `where` is (key, value) of the wanted item, `index` its position, `item` a new item's content.
    """

    element: str
    where: tuple[str, Json] | None = None
    index: int | None = None
    plain: bool = field(init=False, compare=False)
    """Neither: the element itself."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", self.where is None and self.index is None)

    def new_item(self) -> Json:
        return {self.where[0]: copy(self.where[1])} if self.where else {}


_PART = re.compile(r"([A-Za-z_]+)(?:\[(?:(\d+)|(\w+)=(.*))\])?$", re.S)


def parse(path: str) -> tuple[Step, ...]:
    """`extension[url=x].valueQuantity`, `note[0].text` -> steps; a selector's value may hold dots."""
    steps = []
    for part in _split(path):
        match = _PART.match(part)
        if match is None:
            raise AssertionError(f"not a path: {path}")
        element, index, key, value = match.groups()
        steps.append(Step(element, (key, value) if key else None, int(index) if index else None))
    return tuple(steps)


def _split(path: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, char in enumerate(path):
        depth += (char == "[") - (char == "]")
        if char == "." and not depth:
            yield path[start:at]
            start = at + 1
    yield path[start:]


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed FHIR path and its text."""

    text: str
    steps: tuple[Step, ...]


def at(*parts: str) -> Path:
    """The path of `parts` joined: `at("contained[id=fill]", "code.text")`."""
    text = ".".join(part for part in parts if part)
    return Path(text, parse(text))


def same_concept(value: Json, wanted: Json) -> bool:
    """A CodeableConcept that holds the wanted coding among others (or with another display)."""
    if not (isinstance(value, dict) and isinstance(wanted, dict) and "coding" in wanted):
        return False
    codings = value.get("coding")
    code = wanted["coding"][0]
    return isinstance(codings, list) and any(
        isinstance(c, dict) and (c.get("system"), c.get("code")) == (code["system"], code["code"])
        for c in codings
    )


def put_or_extend(resource: Json, steps: tuple[Step, ...], made: Json) -> None:
    """Set the value; a list goes behind what rows have put into the same list (extensions)."""
    there = get(resource, steps) if isinstance(made, list) else MISSING
    if isinstance(there, list):
        there.extend(made)
    else:
        put(resource, steps, made)


def copy(value: Json) -> Json:
    """A deep copy of plain JSON data."""
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value


def child(node: Json, step: Step) -> Json:
    """What `step` leads to from `node`, or MISSING."""
    found = node.get(step.element, MISSING) if isinstance(node, dict) else MISSING
    if step.plain or found is MISSING:
        return found
    if not isinstance(found, list):
        return MISSING
    if step.index is not None:
        return found[step.index] if step.index < len(found) else MISSING
    assert step.where is not None
    key, wanted = step.where
    for item in found:
        if isinstance(item, dict):
            value = item.get(key)
            if value == wanted or (isinstance(wanted, dict) and same_concept(value, wanted)):
                return item
    return MISSING


def get(node: Json, steps: tuple[Step, ...]) -> Json:
    """The value at `steps`, or MISSING."""
    for step in steps:
        node = child(node, step)
        if node is MISSING:
            return MISSING
    return node


def put(node: Json, steps: tuple[Step, ...], new: Json) -> None:
    """Set the value at `steps`, making what lies between."""
    for step in steps[:-1]:
        inner = child(node, step)
        if inner is MISSING:
            inner = step.new_item()
            if step.plain:
                node[step.element] = inner
            else:
                node.setdefault(step.element, []).append(inner)
        node = inner
    last = steps[-1]
    if last.index is None:
        node[last.element] = new
    else:
        node.setdefault(last.element, []).append(new)


def take(node: Json, steps: tuple[Step, ...]) -> Json:
    """Remove and return the value at `steps` (or MISSING), and what only held it."""
    first = steps[0]
    if not isinstance(node, dict) or first.element not in node:  # most rows of most resources end here
        return MISSING
    if len(steps) == 1 and first.plain:
        return node.pop(first.element)
    trail = [node]
    for step in steps:
        node = child(node, step)
        if node is MISSING:
            return MISSING
        trail.append(node)
    for at in range(len(steps) - 1, -1, -1):
        parent, step = trail[at], steps[at]
        held = parent[step.element]
        if step.plain or len(held) == 1:
            del parent[step.element]
        else:
            held[:] = [item for item in held if item is not trail[at + 1]]
        # What is left of a list's item is worth keeping, unless it is only what it was found by.
        where = steps[at - 1].where if at else None
        if parent and (where is None or len(parent) > 1 or parent != {where[0]: where[1]}):
            break
    return node
