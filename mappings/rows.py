"""One row, two directions: the engine that walks a mapping's rows both ways.

A row says where a value lives in an event and in a FHIR resource, and how it is written in each.
`Mapping.encode` and `Mapping.decode` walk the same rows, so no field can be known in one direction
only. `decode` takes values out of a copy: what is left is the residue, which is never thrown away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Json = Any
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Issue:
    """One reason why an input cannot be used: where, which rule, and what to do about it."""

    path: str
    rule: str
    message: str


class MappingError(Exception):
    """The input cannot be mapped; `issues` says every reason, not only the first."""

    def __init__(self, issues: list[Issue]) -> None:
        self.issues = issues
        super().__init__("; ".join(f"{i.path}: {i.rule}: {i.message}" for i in issues))


class Refused(ValueError):
    """A codec will not carry this value; `rule` names why."""

    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Codec:
    """How one value is written: `to_fhir` and `from_fhir` are inverse functions."""

    to_fhir: Callable[[Json], Json]
    from_fhir: Callable[[Json], Json]


AS_IS = Codec(lambda value: value, lambda value: value)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path: an element, and which item of it where it is a list.

    `where` is (key, value) of the wanted item, `index` its position, `item` a new item's content.
    """

    element: str
    where: tuple[str, Json] | None = None
    index: int | None = None

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


@dataclass(frozen=True, slots=True)
class Row:
    """One value: `event` (dotted path) ⇄ `fhir` (path), written by `codec`."""

    event: str
    fhir: str | Path
    codec: Codec = AS_IS
    required: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Several values written together: `codec` maps dicts keyed by the paths given here.

    `from_fhir` gets the parts that were found and pops what it understood; the rest is residue.
    """

    events: tuple[str, ...]
    fhir: tuple[str, ...]
    codec: Codec


@dataclass(frozen=True, slots=True)
class Always:
    """A value every such resource carries; with `strict`, one that carries another is refused."""

    fhir: str
    value: Json
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Derived:
    """A value worked out from the event (text, totals): written, and on the way back only compared.

    With `strict` a resource that says otherwise is refused; without, its words are residue.
    """

    fhir: str | Path
    make: Callable[[Json], Json]
    strict: bool = False


class Mapping:
    """The rows of one resource, parsed once at import."""

    def __init__(self, *rows: Row | Group | Always | Derived) -> None:
        self.rows = [(r, parse(r.event), _path(r.fhir)) for r in rows if isinstance(r, Row)]
        self.groups = [
            (g, [(e, parse(e)) for e in g.events], [(f, parse(f)) for f in g.fhir])
            for g in rows
            if isinstance(g, Group)
        ]
        self.always = [(a, parse(a.fhir)) for a in rows if isinstance(a, Always)]
        self.derived = [(d, _path(d.fhir)) for d in rows if isinstance(d, Derived)]

    def places(self) -> list[tuple[str, str]]:
        """(event path, FHIR path) of every value, as declared: the mapping's table."""
        found = [(row.event, path.text) for row, _, path in self.rows]
        return found + [(name, group.fhir[0]) for group, _, _ in self.groups for name in group.events]

    def encode(self, event: Json) -> Json:
        """The resource of this event; raises `MappingError`. `event` is left alone."""
        resource: Json = {}
        issues: list[Issue] = []
        for always, steps in self.always:
            put(resource, steps, copy(always.value))
        for row, source, path in self.rows:
            value = get(event, source)
            if value is MISSING:
                if row.required:
                    issues.append(Issue(row.event, "required", "is required"))
                continue
            try:
                put(resource, path.steps, row.codec.to_fhir(value))
            except ValueError as error:
                issues.append(_issue(row.event, error))
        for group, sources, targets in self.groups:
            found = {name: value for name, s in sources if (value := get(event, s)) is not MISSING}
            try:
                made = group.codec.to_fhir(found)
            except ValueError as error:
                issues.append(_issue(group.events[0], error))
                continue
            for name, steps in targets:
                if name in made:
                    _put_or_extend(resource, steps, made[name])
        for derived, path in self.derived:
            value = derived.make(event)
            if value is not None:
                put(resource, path.steps, value)
        if issues:
            raise MappingError(issues)
        return resource

    def decode(self, resource: Json) -> tuple[Json, Json]:
        """The event (not yet in canonical order) and the residue; raises `MappingError`."""
        left = copy(resource)
        event = self.read(left)
        self.check(left, event)
        return event, left

    def read(self, left: Json) -> Json:
        """`decode` in place, without the derived values: `check` compares them once the event is whole."""
        event: Json = {}
        issues: list[Issue] = []
        for always, steps in self.always:
            self._decode_always(left, always, steps, issues)
        for row, target, path in self.rows:
            value = take(left, path.steps)
            if value is MISSING:
                if row.required:
                    issues.append(Issue(path.text, "required", "is required"))
                continue
            try:
                put(event, target, row.codec.from_fhir(value))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                issues.append(_issue(path.text, error))
        for group, targets, sources in self.groups:
            found = {name: value for name, s in sources if (value := take(left, s)) is not MISSING}
            try:
                values = group.codec.from_fhir(found)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                issues.append(_issue(group.fhir[0], error))
                continue
            for name, steps in targets:
                if name in values:
                    put(event, steps, values[name])
            for name, steps in sources:
                if found.get(name) not in (None, {}, []):
                    put(left, steps, found[name])
        if issues:
            raise MappingError(issues)
        return event

    def check(self, left: Json, event: Json) -> None:
        """Take the derived values out of `left`; raise `MappingError` where a strict one disagrees."""
        issues: list[Issue] = []
        for derived, path in self.derived:
            self._decode_derived(left, derived, path, event, issues)
        if issues:
            raise MappingError(issues)

    @staticmethod
    def _decode_always(left: Json, always: Always, steps: tuple[Step, ...], issues: list[Issue]) -> None:
        value = get(left, steps)
        if value == always.value:
            take(left, steps)
        elif always.strict and not _same_concept(value, always.value):
            said = "is missing" if value is MISSING else "says otherwise"
            issues.append(Issue(always.fhir, "fixed", f"{said}; it must be {_said(always.value)}"))

    @staticmethod
    def _decode_derived(left: Json, derived: Derived, path: Path, event: Json, issues: list[Issue]) -> None:
        value = get(left, path.steps)
        if value is MISSING:
            return
        try:
            wanted = derived.make(event)
        except (KeyError, TypeError):
            wanted = None
        if value == wanted:
            take(left, path.steps)
        elif derived.strict:
            issues.append(
                Issue(path.text, "derived", f"does not follow from the rest: expected {_said(wanted)}")
            )


def _put_or_extend(resource: Json, steps: tuple[Step, ...], made: Json) -> None:
    """Set the value; a list goes behind what rows have put into the same list (extensions)."""
    there = get(resource, steps) if isinstance(made, list) else MISSING
    if isinstance(there, list):
        there.extend(made)
    else:
        put(resource, steps, made)


def _path(path: str | Path) -> Path:
    return path if isinstance(path, Path) else at(path)


def _issue(path: str, error: Exception) -> Issue:
    if isinstance(error, Refused):
        return Issue(path, error.rule, str(error))
    if isinstance(error, ValueError):
        return Issue(path, "format", str(error))
    return Issue(path, "format", "has another shape than expected here")


def _same_concept(value: Json, wanted: Json) -> bool:
    """A CodeableConcept that holds the wanted coding among others (or with another display)."""
    if not (isinstance(value, dict) and isinstance(wanted, dict) and "coding" in wanted):
        return False
    codings = value.get("coding")
    code = wanted["coding"][0]
    return isinstance(codings, list) and any(
        isinstance(c, dict) and (c.get("system"), c.get("code")) == (code["system"], code["code"])
        for c in codings
    )


def _said(value: Json) -> str:
    if isinstance(value, dict) and "coding" in value:
        return f"{value['coding'][0]['system']}#{value['coding'][0]['code']}"
    return str(value)


def copy(value: Json) -> Json:
    """A deep copy of plain JSON data."""
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value


def _child(node: Json, step: Step) -> Json:
    child = node.get(step.element, MISSING) if isinstance(node, dict) else MISSING
    if child is MISSING or (step.where is None and step.index is None):
        return child
    if not isinstance(child, list):
        return MISSING
    if step.index is not None:
        return child[step.index] if step.index < len(child) else MISSING
    return next((item for item in child if _is(item, step)), MISSING)


def _is(item: Json, step: Step) -> bool:
    assert step.where is not None
    if not isinstance(item, dict):
        return False
    value = item.get(step.where[0])
    return value == step.where[1] or _same_concept(value, step.where[1])


def get(node: Json, steps: tuple[Step, ...]) -> Json:
    """The value at `steps`, or MISSING."""
    for step in steps:
        node = _child(node, step)
        if node is MISSING:
            return MISSING
    return node


def put(node: Json, steps: tuple[Step, ...], new: Json) -> None:
    """Set the value at `steps`, making what lies between."""
    for step in steps[:-1]:
        child = _child(node, step)
        if child is MISSING:
            child = step.new_item()
            if step.where is None and step.index is None:
                node[step.element] = child
            else:
                node.setdefault(step.element, []).append(child)
        node = child
    last = steps[-1]
    if last.index is None:
        node[last.element] = new
    else:
        node.setdefault(last.element, []).append(new)


def take(node: Json, steps: tuple[Step, ...]) -> Json:
    """Remove and return the value at `steps` (or MISSING), and what only held it."""
    trail: list[tuple[Json, Step, Json]] = []
    for step in steps:
        child = _child(node, step)
        if child is MISSING:
            return MISSING
        trail.append((node, step, child))
        node = child
    value = node
    for parent, step, child in reversed(trail):
        held = parent[step.element]
        if held is child:
            del parent[step.element]
        else:
            held[:] = [item for item in held if item is not child]
            if not held:
                del parent[step.element]
        if parent and not any(parent == s.new_item() for p, s, c in trail if c is parent):
            break
    return value
