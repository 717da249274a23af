"""One row, two directions: the engine that walks a mapping's rows both ways.

A row says where a value lives in an event and in a FHIR resource, and how it is written in each.
`Mapping.encode` and `Mapping.decode` walk the same rows, so no field can be known in one direction
only. `decode` takes values out of a copy: what is left is the residue, which is never thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .compiled import Unusual, encoder
from .paths import MISSING, Json, Path, Step, at, copy, get, parse, put, put_or_extend, same_concept, take


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
    """How one value is written: `to_fhir` and `from_fhir` are inverse functions.

    What the guide says of it (mappings/ig): `holds` is part of every value that is written, `value_set` the
    id of the ValueSet that lists `concepts`, all that it may be.
    """

    to_fhir: Callable[[Json], Json]
    from_fhir: Callable[[Json], Json]
    holds: Json = None
    value_set: str = ""
    concepts: tuple[Json, ...] = ()


AS_IS = Codec(lambda value: value, lambda value: value)


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
        self._encode: Callable[[Json], Json] | None = None

    def places(self) -> list[tuple[str, str]]:
        """(event path, FHIR path) of every value, as declared: the mapping's table."""
        found = [(row.event, path.text) for row, _, path in self.rows]
        return found + [(name, group.fhir[0]) for group, _, _ in self.groups for name in group.events]

    def encode(self, event: Json) -> Json:
        """The resource of this event; raises `MappingError`. `event` is left alone."""
        if self._encode is None:
            self._encode = encoder(self, AS_IS)
        try:
            return self._encode(event)
        except (Unusual, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return self.encode_slowly(event)

    def encode_slowly(self, event: Json) -> Json:
        """`encode`, row by row: it collects every issue."""
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
                    put_or_extend(resource, steps, made[name])
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
        elif always.strict and not same_concept(value, always.value):
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


def _path(path: str | Path) -> Path:
    return path if isinstance(path, Path) else at(path)


def _issue(path: str, error: Exception) -> Issue:
    if isinstance(error, Refused):
        return Issue(path, error.rule, str(error))
    if isinstance(error, ValueError):
        return Issue(path, "format", str(error))
    return Issue(path, "format", "has another shape than expected here")


def _said(value: Json) -> str:
    if isinstance(value, dict) and "coding" in value:
        return f"{value['coding'][0]['system']}#{value['coding'][0]['code']}"
    return str(value)
