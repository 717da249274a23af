"""What the columns of a clinic's CSV file mean: read from a TOML map, checked as a whole. Pure.

Units, the decimal mark, date formats and the time zone must be stated; every column must be mapped or
named in `ignore`: what a file holds is neither guessed nor dropped without a word (docs/import.md).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal
from typing import Any

from mappings import MAPPINGS, Issue, MappingError
from mappings.fields import Code, Day, Flag, Line, Moment, Part, Prose, Quantity, Whole, Words, to_ucum
from mappings.identity import SOURCE

from . import cells as csv_cells

ENCODINGS = ("utf-8", "windows-1252", "iso-8859-1", "iso-8859-15")
DELIMITERS = (",", ";", "\t", "|")
OWN_COLUMNS = ("itb_line", "itb_reason")
"""What the file of refused rows begins with; ignored when it is read again."""
GIVEN = ("type", "source", "id")
"""Fields that the map states elsewhere."""


@dataclass(frozen=True, slots=True)
class FieldMap:
    """One field of the event: its path, its kind, where its text comes from, and what is stated of it."""

    path: str
    field: Any
    columns: tuple[str, ...] = ()
    constant: str | None = None
    join: str = " "
    unit: str | None = None
    unit_column: str | None = None
    milligrams: bool = False
    format: str | None = None
    century: int | None = None
    time_of_day: str | None = None
    codes: Mapping[str, str] | None = None
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    separator: str | None = None


@dataclass(frozen=True, slots=True)
class CsvMap:
    """A whole map."""

    event: str
    source: str
    encoding: str
    delimiter: str
    decimal: str
    thousands: str
    where: tzinfo | None
    missing: frozenset[str]
    ignore: frozenset[str]
    multiline: bool
    id_columns: tuple[str, ...]
    id_prefix: str
    fields: tuple[FieldMap, ...]

    @property
    def named(self) -> set[str]:
        """Every column that the map uses."""
        of_fields = {c for f in self.fields for c in (*f.columns, f.unit_column) if c}
        return of_fields | set(self.id_columns)


def load(text: str) -> CsvMap:
    """The map of a TOML text; raises `MappingError` with everything that is wrong with it."""
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise MappingError([Issue("$", "toml", str(error))]) from None
    found = _Reader(raw)
    made = found.whole()
    if found.issues or made is None:
        raise MappingError(found.issues)
    return made


FILE_KEYS = {
    "event": str,
    "source": str,
    "encoding": str,
    "delimiter": str,
    "decimal": str,
    "thousands": str,
    "time_zone": str,
    "missing": list,
    "ignore": list,
    "multiline": bool,
}
FIELD_KEYS = {
    "column": str,
    "columns": list,
    "constant": (str, bool, int),
    "join": str,
    "unit": str,
    "unit_column": str,
    "milligrams": bool,
    "format": str,
    "century": int,
    "time_of_day": str,
    "codes": dict,
    "true": list,
    "false": list,
    "separator": str,
}


class _Reader:
    """Collects the issues of one map."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.issues = raw, list[Issue]()

    def wrong(self, path: str, rule: str, message: str) -> None:
        self.issues.append(Issue(path, rule, message))

    def section(self, holder: Any, path: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        """A table of known keys of known types."""
        if not isinstance(holder, dict):
            self.wrong(path, "map", "must be a table")
            return {}
        kept = {}
        for key, value in holder.items():
            if key not in keys:
                self.wrong(f"{path}.{key}", "map", f"is not known here; known: {', '.join(keys)}")
            elif not isinstance(value, keys[key]):
                self.wrong(f"{path}.{key}", "map", 'is of the wrong type; write numbers as text: "19.0"')
            elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
                self.wrong(f"{path}.{key}", "map", "must be a list of texts")
            else:
                kept[key] = value
        return kept

    def whole(self) -> CsvMap | None:
        for key in self.raw.keys() - {"file", "id", "fields"}:
            self.wrong(key, "map", "is not known here; known: file, id, fields")
        file = self.section(self.raw.get("file"), "file", FILE_KEYS)
        id = self.section(self.raw.get("id"), "id", {"columns": list, "prefix": str})
        for key in ("event", "source", "encoding", "delimiter", "decimal"):
            if key not in file:
                self.wrong(f"file.{key}", "required", "must be stated")
        if not id.get("columns"):
            self.wrong("id.columns", "required", "name the columns that say which record a row is")
        self._check_file(file)
        event = file.get("event")
        if event not in MAPPINGS or self.issues:
            return None
        where = csv_cells.zone(file["time_zone"]) if "time_zone" in file else None
        fields = tuple(self._fields(MAPPINGS[event].SCHEMA, where, file["decimal"]))
        return CsvMap(
            event=event,
            source=file["source"],
            encoding=file["encoding"],
            delimiter=file["delimiter"],
            decimal=file["decimal"],
            thousands=file.get("thousands", ""),
            where=where,
            missing=frozenset(file.get("missing", ())) | {""},
            ignore=frozenset(file.get("ignore", ())),
            multiline=file.get("multiline", False),
            id_columns=tuple(id["columns"]),
            id_prefix=id.get("prefix", ""),
            fields=fields,
        )

    def _check_file(self, file: dict[str, Any]) -> None:
        for key, allowed in (
            ("event", tuple(MAPPINGS)),
            ("encoding", ENCODINGS),
            ("delimiter", DELIMITERS),
            ("decimal", (".", ",")),
            ("thousands", (".", ",", " ", "'", "\u00a0", "\u202f")),
        ):
            if key in file and file[key] not in allowed:
                shown = ", ".join(repr(a) for a in allowed)
                self.wrong(f"file.{key}", "map", f"must be one of {shown}")
        if file.get("thousands") is not None and file.get("thousands") == file.get("decimal"):
            self.wrong("file.thousands", "map", "is also the decimal mark")
        if "source" in file and not SOURCE.fullmatch(file["source"]):
            self.wrong("file.source", "format", "must match [a-z0-9-]{1,40}")
        if "time_zone" in file:
            try:
                csv_cells.zone(file["time_zone"])
            except ValueError as error:
                self.wrong("file.time_zone", "time-zone", str(error))

    def _fields(self, schema: Any, where: tzinfo | None, decimal: str) -> list[FieldMap]:
        made = []
        listed = self.raw.get("fields")
        if not isinstance(listed, dict) or not listed:
            self.wrong("fields", "required", "name the fields of the event that the columns tell")
            return []
        for path, spec in listed.items():
            at = f'fields."{path}"'
            given = self.section(spec, at, FIELD_KEYS)
            field = None if path in GIVEN else field_at(schema, path)
            if field is None or isinstance(field, Part):
                self.wrong(at, "unknown-field", "is no single field of this event")
                continue
            made.append(self._field(at, path, field, given, where))
        return made

    def _field(self, at: str, path: str, field: Any, given: dict[str, Any], where: tzinfo | None) -> FieldMap:
        sources = [key for key in ("column", "columns", "constant") if key in given]
        if len(sources) != 1:
            self.wrong(at, "map", "needs one of column, columns, constant")
        for key, kinds in BELONGS.items():
            if key in given and not isinstance(field, kinds):
                self.wrong(f"{at}.{key}", "map", "has no meaning for this kind of field")
        constant = given.get("constant")
        if isinstance(constant, bool) != isinstance(field, Flag) and constant is not None:
            self.wrong(f"{at}.constant", "map", "must be true or false for a flag, and only there")
        columns = tuple(given.get("columns", ())) or ((given["column"],) if "column" in given else ())
        stated: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k not in SOURCES
        }
        text = None if constant is None else str(constant)
        made = FieldMap(path=path, field=field, columns=columns, constant=text, **stated)
        CHECKS.get(type(field), _nothing)(self, at, made, where)
        return made

    def quantity(self, at: str, made: FieldMap, where: tzinfo | None) -> None:
        if (made.unit is None) == (made.unit_column is None):
            self.wrong(at, "unit", "needs a unit or a unit_column: a unit is never guessed")
        elif made.unit is not None:
            unit = to_ucum(made.unit)
            if csv_cells.MILLIGRAM.match(unit) and unit not in made.field.units:
                unit = csv_cells.MILLIGRAM.sub("ug", unit)
                if not made.milligrams:
                    why = "mg is converted only where the map says milligrams = true"
                    self.wrong(f"{at}.unit", "U1", why)
            if unit not in made.field.units:
                self.wrong(f"{at}.unit", "unit", f"accepted: {', '.join(made.field.units)}")

    def moment(self, at: str, made: FieldMap, where: tzinfo | None) -> None:
        letters = self.date_format(at, made)
        if letters is None:
            return
        timed = made.format == "iso" or bool({"H", "I"} & set(letters))
        if timed == (made.time_of_day is not None):
            why = "a date without a time of day is no time: put hours and minutes into format, or state one"
            self.wrong(f"{at}.time_of_day", "time", why if not timed else "the format has a time already")
        if made.time_of_day and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", made.time_of_day):
            self.wrong(f"{at}.time_of_day", "time", "must be HH:MM")
        if "I" in letters and "p" not in letters:
            self.wrong(f"{at}.format", "time", "%I needs %p")
        if where is None and "z" not in letters and made.format != "iso":
            self.wrong(
                "file.time_zone", "time-zone", f"must be stated: the times of {made.path} have no offset"
            )

    def date_format(self, at: str, made: FieldMap) -> list[str] | None:
        if made.format is None:
            self.wrong(f"{at}.format", "required", 'state "iso" or a form such as %d.%m.%Y %H:%M')
            return None
        if made.format == "iso":
            return []
        try:
            letters = csv_cells.directives(made.format)
        except ValueError as error:
            self.wrong(f"{at}.format", "date", str(error))
            return None
        if ("y" in letters) != (made.century is not None):
            self.wrong(f"{at}.century", "date", "goes with %y: century = 20 reads 25 as 2025")
        needed = {"m"} if isinstance(made.field, Day) and made.field.month_enough else {"m", "d"}
        if not needed <= set(letters) or not {"y", "Y"} & set(letters):
            self.wrong(f"{at}.format", "date", "needs year, month and day")
        if isinstance(made.field, Day) and not set(letters) <= {"y", "Y", "m", "d"}:
            self.wrong(f"{at}.format", "date", "this field is a date without a time")
        return letters

    def flag(self, at: str, made: FieldMap, where: tzinfo | None) -> None:
        if made.constant is None and not (made.true and made.false):
            self.wrong(at, "required", 'state what means true and false: true = ["yes"], false = ["no"]')

    def words(self, at: str, made: FieldMap, where: tzinfo | None) -> None:
        if not made.separator:
            self.wrong(f"{at}.separator", "required", "state what stands between the words")
        self.code(at, made, where)

    def code(self, at: str, made: FieldMap, where: tzinfo | None) -> None:
        for code in (made.codes or {}).values():
            if code not in made.field.choices:
                self.wrong(f"{at}.codes", "code", f"known: {', '.join(made.field.choices)}")


def _nothing(*_: object) -> None:
    """Text and whole numbers need nothing stated."""


SOURCES = ("column", "columns", "constant")
BELONGS: dict[str, Any] = {
    "unit": Quantity,
    "unit_column": Quantity,
    "milligrams": Quantity,
    "format": (Moment, Day),
    "century": (Moment, Day),
    "time_of_day": Moment,
    "codes": (Code, Words),
    "true": Flag,
    "false": Flag,
    "separator": Words,
}
CHECKS: dict[type, Any] = {
    Quantity: _Reader.quantity,
    Moment: _Reader.moment,
    Day: lambda reader, at, made, where: reader.date_format(at, made),
    Flag: _Reader.flag,
    Words: _Reader.words,
    Code: _Reader.code,
    Line: _nothing,
    Prose: _nothing,
    Whole: _nothing,
}
"""What must be stated for each kind of field."""

STEP = re.compile(r"([a-z_]+)(?:\[(\d{1,2})\])?")


def steps_of(path: str) -> list[tuple[str, int | None]]:
    """`after.steps[0].dose` -> [("after", None), ("steps", 0), ("dose", None)]; raises ValueError."""
    made = []
    for step in path.split("."):
        match = STEP.fullmatch(step)
        if match is None:
            raise ValueError(path)
        made.append((match[1], int(match[2]) if match[2] else None))
    return made


def field_at(schema: Any, path: str) -> Any:
    """The field of a schema at a path, None where there is none."""
    try:
        *outer, last = steps_of(path)
        for name, index in outer:
            part = schema.load_fields[name]
            if not isinstance(part, Part) or part.many != (index is not None):
                return None
            schema = part.schema
        return schema.load_fields[last[0]] if last[1] is None else None
    except (KeyError, ValueError):
        return None
