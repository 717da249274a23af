"""The rows of a CSV file as events, by a map. Pure: bytes in, events or the reasons why not out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mappings import Issue, MappingError, load_event
from mappings.event import Event
from mappings.fields import Code, Day, Flag, Moment, Quantity, Whole, Words, to_ucum

from . import cells as csv_cells
from .cells import CellError
from .columns import OWN_COLUMNS, CsvMap, FieldMap, steps_of

Json = Any
MOST_LINES = 100
"""Lines of one record, where `multiline` allows more than one: a lost quote must not swallow the file."""
BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Row:
    """One record: the last of its lines, its cells, the event that it tells or why it tells none."""

    line: int
    cells: tuple[str, ...]
    id: str | None = None
    event: Event | None = None
    issues: tuple[Issue, ...] = ()
    notes: tuple[Issue, ...] = ()


def records(stream: Iterable[bytes], multiline: bool) -> Iterator[tuple[int, bytes]]:
    """(last line, bytes) of each record that is not blank."""
    held, began, number = b"", 0, 0
    for number, line in enumerate(stream, start=1):
        began = began if held else number
        held += line
        if multiline and held.count(b'"') % 2 and number - began < MOST_LINES:
            continue
        if held.strip():
            yield number, held
        held = b""
    if held.strip():
        yield number, held


def cells_of(record: bytes, told: CsvMap) -> list[str]:
    """The cells of one record; raises `CellError`."""
    text = record.decode(told.encoding, "surrogateescape").rstrip("\r\n")
    reader = csv.reader(text.splitlines(keepends=True) or [text], delimiter=told.delimiter, strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise CellError("csv", str(error)) from None
    if len(rows) != 1:
        raise CellError("csv", "is more than one record")
    return rows[0]


def header_of(record: bytes, told: CsvMap) -> list[str]:
    """The names of the columns; raises `MappingError` where they are not those of the map."""
    try:
        names = [name.strip() for name in cells_of(record.removeprefix(BOM.encode()), told)]
    except CellError as error:
        raise MappingError([Issue("header", error.rule, str(error))]) from None
    found = []
    for name in sorted(told.named - set(names)):
        found.append(Issue("header", "csv", f"there is no column {name!r}, which the map names"))
    for name in names:
        if name not in told.named | told.ignore | set(OWN_COLUMNS):
            why = "is neither mapped nor named in file.ignore: nothing is dropped without a word"
            found.append(Issue("header", "csv", f"column {name!r} {why}"))
    for name in sorted({n for n in names if names.count(n) > 1 and n in told.named}):
        found.append(Issue("header", "csv", f"column {name!r} stands there twice"))
    if found:
        raise MappingError(found)
    return names


def rows(
    stream: Iterator[tuple[int, bytes]], names: Sequence[str], told: CsvMap, after: int = 0
) -> Iterator[Row]:
    """Each record after line `after` as a row."""
    for line, record in stream:
        if line > after:
            yield row(line, record, names, told)


def row(line: int, record: bytes, names: Sequence[str], told: CsvMap) -> Row:
    """One record as an event, or with everything that keeps it from being one."""
    try:
        cells = cells_of(record, told)
    except CellError as error:
        raw = record.decode(told.encoding, "surrogateescape").rstrip("\r\n")
        return Row(line, (raw,), issues=(Issue("$", error.rule, str(error)),))
    if len(cells) != len(names):
        why = f"has {len(cells)} cells, the header has {len(names)}"
        return Row(line, tuple(cells), issues=(Issue("$", "csv", why),))
    if any("\ud800" <= char <= "\udfff" for cell in cells for char in cell):
        return Row(line, tuple(cells), issues=(Issue("$", "encoding", f"is not {told.encoding}"),))
    held = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
    return _told(line, tuple(cells), held, told)


def _told(line: int, cells: tuple[str, ...], held: dict[str, str], told: CsvMap) -> Row:
    issues: list[Issue] = []
    notes: list[Issue] = []
    id = _id(held, told, issues)
    values: dict[str, Json] = {}
    for one in told.fields:
        try:
            value = _value(one, held, told, notes)
            if value is not None:
                values[one.path] = value
        except CellError as error:
            issues.append(Issue(one.path, error.rule, f"{error}{_where(one)}"))
    for one in told.fields:
        if one.constant is not None and not _belongs(one, told, values):
            values.pop(one.path, None)
    _say_time_of_day(told, values)
    event: Json = {"type": told.event, "source": told.source, "id": id}
    try:
        for path, value in values.items():
            _put(event, path, value)
    except CellError as error:
        issues.append(Issue("$", error.rule, str(error)))
    if issues:
        return Row(line, cells, id, issues=tuple(issues))
    try:
        return Row(line, cells, id, load_event(event), notes=tuple(notes))
    except MappingError as error:
        return Row(line, cells, id, issues=named(error.issues, told))


def named(issues: Sequence[Issue], told: CsvMap) -> tuple[Issue, ...]:
    """The issues with the columns that they are about."""
    by_path = {one.path: one for one in told.fields}
    return tuple(replace(i, message=f"{i.message}{_column(i.path, by_path)}") for i in issues)


def _id(held: dict[str, str], told: CsvMap, issues: list[Issue]) -> str | None:
    """The cells of the id's columns, joined so that no two different rows give the same."""
    parts = [held[column] for column in told.id_columns]
    for column, part in zip(told.id_columns, parts, strict=True):
        if part in told.missing:
            issues.append(Issue("id", "required", f"column {column!r} is empty, and is part of the id"))
            return None
    if len(parts) > 1:
        parts = [part.replace("%", "%25").replace("/", "%2F") for part in parts]
    return told.id_prefix + "/".join(parts)


def _value(one: FieldMap, held: dict[str, str], told: CsvMap, notes: list[Issue]) -> Json:
    """The field's value; None where the row does not give it."""
    if one.constant is not None:
        text = one.constant
    else:
        given = [held[column] for column in one.columns]
        missing = [text in told.missing for text in given]
        if all(missing):
            return None
        if any(missing):
            raise CellError("required", "some of its columns are empty")
        text = one.join.join(given)
    match one.field:
        case Quantity():
            return _quantity(one, text, held, told, notes)
        case Moment():
            return csv_cells.moment(text, one.format or "iso", told.where, one.century, one.time_of_day)
        case Day():
            return csv_cells.day(text, one.format or "iso", one.century)
        case Whole():
            return _whole(text)
        case Flag():
            return _flag(one, text)
        case Words():
            return [_code(one, word.strip()) for word in text.split(one.separator)]
        case Code():
            return _code(one, text)
    return text


def _quantity(one: FieldMap, text: str, held: dict[str, str], told: CsvMap, notes: list[Issue]) -> Json:
    decimal, thousands = (".", "") if one.constant is not None else (told.decimal, told.thousands)
    value = csv_cells.number(text, decimal, thousands)
    unit = held[one.unit_column] if one.unit_column is not None else one.unit
    if not unit or unit in told.missing:
        raise CellError("unit", "its unit is missing; a unit is never guessed")
    given = to_ucum(unit)
    if one.milligrams and csv_cells.MILLIGRAM.match(given) and given not in one.field.units:
        shifted, micro = csv_cells.micrograms(value, given)
        notes.append(Issue(one.path, "mg-to-ug", f"{value} {given} was read as {shifted} {micro}"))
        return {"value": shifted, "unit": micro}
    return {"value": value, "unit": unit}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise CellError("type", "must be a whole number")
    return int(text)


def _flag(one: FieldMap, text: str) -> bool:
    if one.constant is not None:
        return one.constant == "True"
    if text in one.true or text in one.false:
        return text in one.true
    raise CellError("code", f"must be one of {', '.join((*one.true, *one.false))}")


def _code(one: FieldMap, text: str) -> str:
    if one.codes is None:
        return text
    if text not in one.codes:
        raise CellError("code", f"the map knows {', '.join(one.codes)}")
    return one.codes[text]


def _belongs(one: FieldMap, told: CsvMap, values: dict[str, Json]) -> bool:
    """A constant inside a part goes with the part's columns: where all of them are empty, so is the part."""
    part, dot, _ = one.path.rpartition(".")
    beside = [f.path for f in told.fields if dot and f.columns and f.path.startswith(f"{part}.")]
    return not beside or any(path in values for path in beside)


def _say_time_of_day(told: CsvMap, values: dict[str, Json]) -> None:
    for one in told.fields:
        if one.time_of_day is not None and one.path in values:
            said = f"{one.path}: time of day not recorded, {one.time_of_day} stated by the import map"
            values["note"] = f"{values['note']}\n{said}" if "note" in values else said


def _put(event: Json, path: str, value: Json) -> None:
    here = event
    *outer, (last, _) = steps_of(path)
    for name, index in outer:
        if index is None:
            here = here.setdefault(name, {})
            continue
        items = here.setdefault(name, [])
        if index > len(items):
            raise CellError("required", f"{name}[{index}] is given, {name}[{index - 1}] is not")
        if index == len(items):
            items.append({})
        here = items[index]
    here[last] = value


def _where(one: FieldMap) -> str:
    return f" (column {', '.join(map(repr, one.columns))})" if one.columns else ""


def _column(path: str, by_path: dict[str, FieldMap]) -> str:
    """The column of the longest mapped path that an issue's path begins with."""
    held = [p for p in by_path if path == p or path.startswith(f"{p}.")]
    return _where(by_path[max(held, key=len)]) if held else ""


def refused_row(row: Row, reasons: Sequence[Issue], told: CsvMap) -> bytes:
    """The row as it was, behind its line and its reasons: one record of the file of refused rows."""
    words = "; ".join(f"{i.path}: {i.rule}: {i.message}" for i in reasons)
    words = words.encode(told.encoding, "replace").decode(told.encoding)
    return written([str(row.line), words, *row.cells], told)


def written(cells: Sequence[str], told: CsvMap) -> bytes:
    """One record in the form of the file."""
    out = io.StringIO()
    csv.writer(out, delimiter=told.delimiter, lineterminator="").writerow(cells)
    return out.getvalue().encode(told.encoding, "surrogateescape")
