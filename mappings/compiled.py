"""A mapping's rows as one Python function: `rows.Mapping.encode` without walking paths at each event.

The generated function does what the rows say, in their order. Whatever is unusual (a required value is
missing, a codec refuses, a value has another shape) it leaves to `Mapping.encode_slowly`, which finds the
words for it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .paths import MISSING, Json, Step, child, put_or_extend

Trail = tuple[Any, ...]


class Unusual(Exception):
    """The generated function meets what it does not handle."""


def encoder(mapping: Any, as_is: Any) -> Callable[[Json], Json]:
    """The function that encodes an event by the rows of a `rows.Mapping`; raises `Unusual` or ValueError.

    `as_is` is the codec that changes nothing.
    """
    writer = _Writer(as_is, _forms(mapping))
    for always, steps in mapping.always:
        writer.put(steps, _literal(always.value))
    for row, source, path in mapping.rows:
        writer.row(row, source, path.steps)
    for group, sources, targets in mapping.groups:
        writer.group(group, sources, targets)
    for derived, path in mapping.derived:
        writer.derived(derived, path.steps)
    return writer.function()


def maker(value: Json) -> Callable[[], Json]:
    """A function that makes a constant anew at each call, in a tenth of the time of a copy."""
    made: Callable[[], Json] = eval(f"lambda: {_literal(value)}", {"Decimal": Decimal})
    return made


def _literal(value: Json) -> str:
    """Source text that makes a fresh copy of a constant."""
    if isinstance(value, Decimal):
        return f"Decimal({str(value)!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return repr(value)


def _forms(mapping: Any) -> dict[tuple[Trail, str], set[Any]]:
    """How the rows speak of each element: of its parts by their marks, or (None) as a whole or as a group."""
    named = [steps for _, steps in mapping.always]
    named += [path.steps for _, _, path in mapping.rows]
    named += [path.steps for _, path in mapping.derived]
    grouped = [steps for _, _, targets in mapping.groups for _, steps in targets]
    found: dict[tuple[Trail, str], set[Any]] = {}
    for at, steps in enumerate([*named, *grouped]):
        trail: Trail = ()
        for step in steps:
            whole = step is steps[-1] or at >= len(named)
            found.setdefault((trail, step.element), set()).add(None if whole else _mark(step))
            trail = (*trail, _mark(step))
    return found


def _mark(step: Step) -> tuple[str, str | None, str | None, int | None]:
    key, wanted = step.where or (None, None)
    return step.element, key, _literal(wanted) if step.where else None, step.index


class _Writer:
    """Writes the source of one encoder, line by line; a node of the resource is a local variable."""

    def __init__(self, as_is: Any, forms: dict[tuple[Trail, str], set[Any]]) -> None:
        self.as_is, self.forms = as_is, forms
        self.names: dict[str, Any] = {
            "Decimal": Decimal,
            "MISSING": MISSING,
            "Unusual": Unusual,
            "child": child,
            "put_or_extend": put_or_extend,
        }
        self.nodes: dict[Trail, str] = {(): "n0"}
        self.certain: set[str] = {"n0"}
        self.parts: dict[str, str] = {}
        self.lines: list[str] = []

    def name(self, value: Any) -> str:
        """A name under which the generated function finds `value`."""
        made = f"k{len(self.names)}"
        self.names[made] = value
        return made

    def say(self, line: str, indent: int = 1) -> None:
        self.lines.append("    " * indent + line)

    # --- the event ------------------------------------------------------------------------------------

    def value(self, source: tuple[Step, ...], into: str) -> None:
        """`into` becomes the value at the event path, or None."""
        holder = "e"
        for step in source[:-1]:
            known = f"{holder}.{step.element}"
            if known not in self.parts:
                self.parts[known] = f"p{len(self.parts)}"
                guard = f" if {holder} is not None else None" if holder != "e" else ""
                self.say(f"{self.parts[known]} = {holder}.get({step.element!r}){guard}")
            holder = self.parts[known]
        guard = f" if {holder} is not None else None" if holder != "e" else ""
        self.say(f"{into} = {holder}.get({source[-1].element!r}){guard}")

    # --- the resource ---------------------------------------------------------------------------------

    def node(self, steps: tuple[Step, ...], indent: int) -> str:
        """The variable of the node at `steps`, made there if it is not there yet."""
        trail: Trail = ()
        for step in steps:
            above, parent = trail, self.nodes[trail]
            trail = (*trail, _mark(step))
            if trail not in self.nodes:
                self.nodes[trail] = f"n{len(self.nodes)}"
            made = self.nodes[trail]
            if made in self.certain:
                continue
            always = indent == 1
            if not always:
                self.say(f"if {made} is None:", indent)
            self.make(above, parent, made, step, indent if always else indent + 1)
            if always:
                self.certain.add(made)
        return self.nodes[trail]

    def make(self, above: Trail, parent: str, made: str, step: Step, indent: int) -> None:
        if self.may_be_there(above, step):
            self.say(f"{made} = child({parent}, {self.name(step)})", indent)
            self.say(f"if {made} is MISSING:", indent)
        else:
            indent -= 1
        new = _literal(step.new_item())
        if step.where is None and step.index is None:
            self.say(f"{made} = {parent}[{step.element!r}] = {new}", indent + 1)
        else:
            self.say(f"{made} = {new}", indent + 1)
            self.append(parent, step.element, made, indent + 1)

    def may_be_there(self, above: Trail, step: Step) -> bool:
        """Whether other rows may have made the node, not by way of this trail's variable."""
        forms = self.forms[above, step.element]
        if step.where is None:
            return step.index not in (None, 0) or forms != {_mark(step)}
        key, wanted = step.where
        inside = ((*above, _mark(step)), key)
        alike = all(form is not None and form[1] == key for form in forms)
        return not (isinstance(wanted, str) and alike) or inside in self.forms

    def append(self, parent: str, element: str, item: str, indent: int) -> None:
        self.say(f"if {element!r} in {parent}: {parent}[{element!r}].append({item})", indent)
        self.say(f"else: {parent}[{element!r}] = [{item}]", indent)

    def put(self, steps: tuple[Step, ...], text: str, indent: int = 1) -> None:
        """Write the expression `text` at `steps`."""
        parent = self.node(steps[:-1], indent)
        last = steps[-1]
        if last.index is None:
            self.say(f"{parent}[{last.element!r}] = {text}", indent)
        else:
            self.append(parent, last.element, text, indent)

    # --- the rows -------------------------------------------------------------------------------------

    def row(self, row: Any, source: tuple[Step, ...], steps: tuple[Step, ...]) -> None:
        self.value(source, "v")
        text = "v" if row.codec is self.as_is else f"{self.name(row.codec.to_fhir)}(v)"
        if row.required:
            self.say("if v is None: raise Unusual")
            self.put(steps, text)
        else:
            self.say("if v is not None:")
            self.put(steps, text, 2)

    def group(self, group: Any, sources: list[Any], targets: list[Any]) -> None:
        self.say("f = {}")
        for name, source in sources:
            self.value(source, "v")
            self.say(f"if v is not None: f[{name!r}] = v")
        self.say(f"m = {self.name(group.codec.to_fhir)}(f)")
        for name, steps in targets:
            self.say(f"if {name!r} in m: put_or_extend(n0, {self.name(steps)}, m[{name!r}])")

    def derived(self, derived: Any, steps: tuple[Step, ...]) -> None:
        self.say(f"v = {self.name(derived.make)}(e)")
        self.say("if v is not None:")
        self.put(steps, "v", 2)

    def function(self) -> Callable[[Json], Json]:
        optional = [name for name in self.nodes.values() if name not in self.certain]
        head = ["def encode(e):", "    n0 = {}"]
        head += [f"    {' = '.join(optional)} = None"] if optional else []
        source = "\n".join([*head, *self.lines, "    return n0"])
        exec(compile(source, "<rows>", "exec"), self.names)
        made: Callable[[Json], Json] = self.names["encode"]
        return made
