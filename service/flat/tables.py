"""Events as flat tables for registries: one table an event type, one more for each list inside. Pure.

The columns follow from the event schemas, so a new field is a new column. Units stand in the names,
decimals are exact, a time is given as it was written, in UTC, and by its offset (docs/tables.md).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from mappings import MAPPINGS, exact_json
from mappings.envelope import Event
from mappings.fields import Code, Day, Flag, Line, Moment, Part, Prose, Quantity, Whole, Words, instant

Json = Any
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its kind, and the event path that it shows."""

    name: str
    kind: str
    path: str


KINDS = {
    "text": "text",
    "decimal": "exact decimal",
    "integer": "whole number",
    "boolean": "true or false",
    "date": "date, or year and month, as text",
    "time": "time as it was written, as text",
    "utc": "the same instant in UTC, cut to microseconds",
    "offset": "minutes ahead of UTC that it was written with",
    "words": "codes, a space between",
}
"""Every kind of column, and what is in it."""

PEOPLE: dict[str, str] = {
    "id": "keyed",
    "patient.value": "keyed",
    "pump": "keyed",
    "serial": "keyed",
    "parent": "keyed",
    "old_pump": "keyed",
    "catheter": "keyed",
    "old_catheter": "keyed",
    "note": "withheld",
    "performer.system": "withheld",
    "performer.value": "withheld",
    "performer.name": "withheld",
    "verifier.system": "withheld",
    "verifier.value": "withheld",
    "verifier.name": "withheld",
    "reason": "withheld",
    "udi.carrier": "withheld",
    "stopped_because": "withheld",
    "bridge.not_required": "withheld",
    "material": "withheld",
    "signs": "withheld",
    "summary": "withheld",
    "site": "withheld",
    "adverse_effects": "withheld",
    "programmer": "withheld",
    "indication.description": "withheld",
    "team.system": "withheld",
    "team.value": "withheld",
    "team.name": "withheld",
    "team.role": "withheld",
    "goals.description": "withheld",
    "medicines_tried.name": "withheld",
    "medicines_tried.dose": "withheld",
    "medicines_tried.result": "withheld",
    "scores.goal": "withheld",
    "type": "plain",
    "source": "plain",
    "patient.system": "plain",
    "manufacturer": "plain",
    "model": "plain",
    "lot": "plain",
    "udi.di": "plain",
    "tip_level": "plain",
    "drug.name": "plain",
    "drug.ndc": "plain",
    "drug.lot": "plain",
    "drug.other_lots.lot": "plain",
    "before.steps.start": "plain",
    "after.steps.start": "plain",
    "scores.muscle": "plain",
}
"""Of each text that is not a code, what --pseudonymise does: a keyed digest for what names a patient or a
device that one patient has, nothing for people and free text, as it is for what names nobody."""
KEYED = {"patient.value": ("patient", "patient_system"), "id": ("record", "source")}
"""What kind of name it is, and the column within which it is one; every other is a device."""
HEAD = ("source", "id", "version")
"""What each row of a list's table begins with, beside its number."""


def unit_name(unit: str) -> str:
    """`ug/mL` -> `ug_per_mL`."""
    return unit.replace("/", "_per_")


def _leaf(name: str, field: Any, path: str) -> list[Column]:
    match field:
        case Quantity() if len(field.units) == 1:
            return [Column(f"{name}_{unit_name(field.units[0])}", "decimal", path)]
        case Quantity():
            return [Column(f"{name}_value", "decimal", path), Column(f"{name}_unit", "text", path)]
        case Moment():
            return [
                Column(name, "time", path),
                Column(f"{name}_utc", "utc", path),
                Column(f"{name}_offset_minutes", "offset", path),
            ]
    return [Column(name, LEAVES[type(field)], path)]


LEAVES: dict[type, str] = {
    Day: "date",
    Whole: "integer",
    Flag: "boolean",
    Code: "text",
    Line: "text",
    Prose: "text",
    Words: "words",
}


@cache
def tables() -> dict[str, tuple[Column, ...]]:
    """Every table and its columns, in the order of the schemas."""
    made: dict[str, list[Column]] = {}
    for kind, module in MAPPINGS.items():
        _walk(kind.replace("-", "_"), "", module.SCHEMA, made.setdefault(kind.replace("-", "_"), []), made)
    return {name: tuple(columns) for name, columns in made.items()}


def _walk(table: str, prefix: str, schema: Any, columns: list[Column], made: dict[str, list[Column]]) -> None:
    for name, field in schema.load_fields.items():
        path = f"{prefix}{name}"
        if isinstance(field, Part) and field.many:
            inner = f"{table.partition('__')[0]}__{path.replace('.', '_')}"
            head = [Column("source", "text", "source"), Column("id", "text", "id")]
            head += [Column("version", "integer", "version"), Column("number", "integer", path)]
            made[inner] = head
            _walk(inner, f"{path}.", field.schema, made[inner], made)
        elif isinstance(field, Part):
            _walk(table, f"{path}.", field.schema, columns, made)
        else:
            columns.extend(_leaf(_short(table, path), field, path))


def _short(table: str, path: str) -> str:
    """The column's name: in a list's table without the list's own path."""
    _, inside, listed = table.partition("__")
    name = path.replace(".", "_")
    return name.removeprefix(f"{listed}_") if inside else name


def rows(event: Event) -> Iterator[tuple[str, Row]]:
    """(table, row) of an event and of each item of its lists."""
    main = event["type"].replace("-", "_")
    whole = {"version": 1, "status": "final", **event}
    yield main, {c.name: _cell(c, _at(whole, c.path)) for c in tables()[main]}
    for table, columns in tables().items():
        if not table.startswith(f"{main}__"):
            continue
        listed = columns[len(HEAD)].path
        for number, item in enumerate(_at(whole, listed) or (), start=1):
            row: Row = {name: whole[name] for name in HEAD} | {"number": number}
            for column in columns[len(HEAD) + 1 :]:
                row[column.name] = _cell(column, _at(item, column.path.removeprefix(f"{listed}.")))
            yield table, row


def _at(node: Json, path: str) -> Json:
    for step in path.split("."):
        if not isinstance(node, dict) or step not in node:
            return None
        node = node[step]
    return node


def _cell(column: Column, value: Json) -> Any:
    if value is None:
        return None
    if column.kind == "decimal":
        return Decimal(value["value"])
    if column.kind == "text" and isinstance(value, dict):
        return value["unit"]
    if column.kind == "utc":
        return instant(value).astimezone(UTC)
    if column.kind == "offset":
        offset = instant(value).utcoffset()
        assert offset is not None
        return int(offset.total_seconds() // 60)
    return " ".join(value) if column.kind == "words" else value


# --- pseudonyms -----------------------------------------------------------------------------------------


def pseudonymiser(key: bytes) -> Callable[[str, Row], Row]:
    """A function that takes people out of a row: the same key, the same pseudonym, in every table.

    A pseudonym is 128 bits of HMAC-SHA256 over what kind of name it is, its system or source, and the name.
    """
    by_table = {table: {c.name: c.path for c in columns} for table, columns in tables().items()}

    def named(kind: str, scope: str, value: str) -> str:
        message = exact_json.dumps([kind, scope, value])
        return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]

    def without_people(table: str, row: Row) -> Row:
        made: Row = {}
        for name, value in row.items():
            path = by_table[table][name]
            if value is None or PEOPLE.get(path) == "withheld":
                made[name] = None
            elif PEOPLE.get(path) == "keyed":
                kind, scope = KEYED.get(path, ("device", None))
                made[name] = named(kind, row[scope] if scope else "", value)
            else:
                made[name] = value
        return made

    return without_people


# --- in text --------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A cell of a CSV file: every digit as it is, UTC with Z, empty for what is not there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value)


def columns_table() -> str:
    """The Markdown table of docs/tables.md (a test compares them)."""
    lines = ["| table | column | kind | event path |", "|---|---|---|---|"]
    for table, columns in tables().items():
        lines += [f"| `{table}` | `{c.name}` | {c.kind} | `{c.path}` |" for c in columns]
    return "\n".join(lines) + "\n"
