"""The marshmallow fields of the event JSON: strict, exact, and each refusal with a rule."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from marshmallow import Schema, ValidationError, fields
from marshmallow.exceptions import SCHEMA

from .rows import Issue

Json = Any
MAX_DIGITS = 18  # FHIR decimal: at least 18 significant digits are to be supported (R4 Data types)


class Said(str):
    """A message that knows its rule."""

    rule: str

    def __new__(cls, rule: str, message: str) -> Said:
        said = super().__new__(cls, message)
        said.rule = rule
        return said


def refuse(rule: str, message: str) -> ValidationError:
    """The error of one field."""
    return ValidationError([Said(rule, message)])


class Strict(fields.Field[Any]):
    """A field whose errors carry rules (`Strictly.load` calls `_deserialize` and nothing else)."""


def issues_of(messages: Any, path: str = "") -> list[Issue]:
    """marshmallow's nested messages as issues with dotted paths: `after.steps[0].dose.unit`."""
    if isinstance(messages, dict):
        found: list[Issue] = []
        for key, inner in messages.items():
            if key == SCHEMA:
                below = path
            elif isinstance(key, int):
                below = f"{path}[{key}]"
            else:
                below = f"{path}.{key}" if path else str(key)
            found.extend(issues_of(inner, below))
        return found
    if isinstance(messages, list):
        return [issue for item in messages for issue in issues_of(item, path)]
    return [Issue(path or "$", getattr(messages, "rule", "type"), str(messages))]


_LINE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f\u2028\u2029]*[^\s\x00-\x1f\x7f-\x9f])?")
_PROSE = re.compile(r"(?=\s*\S)[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]+")


class Line(Strict):
    """One line of text: no control characters, no space at either end; `pattern` narrows it."""

    def __init__(self, *, most: int = 200, pattern: str = "", words: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.most, self.words = most, words
        self.pattern = re.compile(pattern) if pattern else _LINE

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise refuse("type", "must be a string")
        if len(value) > self.most:
            raise refuse("length", f"has {len(value)} characters; at most {self.most} are accepted")
        if not self.pattern.fullmatch(value):
            raise refuse("format", self.words or "must be one line of text without spaces at its ends")
        return value


class Prose(Strict):
    """Free text: some of it not blank, line breaks allowed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise refuse("type", "must be a string")
        if len(value) > 10_000:
            raise refuse("length", f"has {len(value)} characters; at most 10000 are accepted")
        if not _PROSE.fullmatch(value) or "\r" in value:
            raise refuse("format", "must hold text, without control characters (line breaks as \\n)")
        return value


class Code(Strict):
    """One of a closed list of words."""

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise refuse("type", "must be a string")
        if value not in self.choices:
            raise refuse("code", f"unknown code {value[:40]!r}; known: {', '.join(self.choices)}")
        return value


class Flag(Strict):
    """true or false, nothing that only looks like it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise refuse("type", "must be true or false")
        return value


class Whole(Strict):
    """A whole number from `least` to `most`."""

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most = least, most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse("type", "must be a whole number")
        if not self.least <= value <= self.most:
            raise refuse("range", f"must be from {self.least} to {self.most}")
        return value


_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)?")
_FRACTION = re.compile(r"\.(\d+)")


@lru_cache(maxsize=4096)
def instant(text: str) -> datetime:
    """The aware datetime of an ISO 8601 time with offset (fractions beyond microseconds are cut)."""
    return datetime.fromisoformat(_FRACTION.sub(lambda m: f".{m.group(1)[:6]:0<6}", text))


class Moment(Strict):
    """A time with offset, kept as it is written."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise refuse("type", "must be a string such as 2025-02-03T12:00:00-06:00")
        match = _MOMENT.fullmatch(value)
        if match is None:
            raise refuse("time", "must be an ISO 8601 time with seconds, such as 2025-02-03T12:00:00-06:00")
        zone = match.group(1)
        if zone is None:
            raise refuse("time-zone", "has no offset from UTC; a time zone is never guessed")
        if zone != "Z" and not (int(zone[1:3]) < 14 or zone[1:] == "14:00"):
            raise refuse("time", f"the offset {zone} is beyond 14:00")
        try:
            instant(value)
        except ValueError:
            raise refuse("time", "is not a time that exists") from None
        return value


class Day(Strict):
    """A date `YYYY-MM-DD`; with `month_enough` also `YYYY-MM`. Never widened to a time."""

    def __init__(self, *, month_enough: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.month_enough = month_enough

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise refuse("type", "must be a string such as 2027-09-30")
        whole = f"{value}-01" if self.month_enough and len(value) == 7 else value
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", whole):
                raise ValueError
            date.fromisoformat(whole)
        except ValueError:
            raise refuse("date", "must be a date such as 2027-09-30") from None
        return value


SAME_UNIT = {"mcg": "ug", "day": "d", "hour": "h", "days": "d", "hours": "h"}
"""What people write for a UCUM unit, position by position (contract: `mcg`, `day`, `hour`)."""


def to_ucum(unit: str) -> str:
    """`mcg/day` -> `ug/d`; other text is given back as it is."""
    return "/".join(SAME_UNIT.get(part, part) for part in unit.split("/"))


class Quantity(Strict):
    """`{"value": decimal, "unit": "..."}` in one of `units`, never a bare number, never negative."""

    def __init__(self, *units: str, above_zero: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.above_zero = units, above_zero

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Json:
        if not isinstance(value, dict):
            wanted = f'{{"value": 1, "unit": "{self.units[0]}"}}'
            if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
                raise refuse("bare-number", f"a number without a unit is refused; write {wanted}")
            raise refuse("type", f"must be a quantity such as {wanted}")
        problems: dict[str, list[Said]] = {}
        for name in value.keys() - {"value", "unit"}:
            problems[name] = [Said("unknown-field", "is not a field of a quantity")]
        number = self._number(value, problems)
        unit = self._unit(value, number, problems)
        if problems or number is None:
            raise ValidationError(dict(problems))
        return {"value": number, "unit": unit}

    def _number(self, value: Json, problems: dict[str, list[Said]]) -> Decimal | None:
        number = value.get("value")
        said = None
        if "value" not in value:
            said = Said("required", "is required")
        elif number is None:
            said = Said("null", "must not be null")
        elif isinstance(number, bool) or not isinstance(number, (int, Decimal)):
            said = Said("type", "must be a number")
        else:
            number = Decimal(number)
            if not number.is_finite():
                said = Said("number", "must be a finite number")
            elif len(number.as_tuple().digits) > MAX_DIGITS or abs(number.adjusted()) > MAX_DIGITS:
                said = Said("number", f"at most {MAX_DIGITS} digits are accepted")
            elif number.is_signed():
                said = Said("negative", "must not be negative")
            elif self.above_zero and not number:
                said = Said("range", "must be above zero")
        if said is not None:
            problems["value"] = [said]
            return None
        assert isinstance(number, Decimal)
        return number

    def _unit(self, value: Json, number: Decimal | None, problems: dict[str, list[Said]]) -> str:
        if "unit" not in value:
            problems["unit"] = [Said("required", "is required; a unit is never guessed")]
            return ""
        if not isinstance(value["unit"], str):
            problems["unit"] = [Said("type", "must be a string")]
            return ""
        unit = to_ucum(value["unit"])
        if unit in self.units:
            return unit
        micro = re.sub(r"^mg", "ug", unit)
        if unit.startswith("mg") and micro in self.units:
            same = f"; {number} {unit} would be {number.scaleb(3):f} {micro}" if number is not None else ""
            problems["unit"] = [Said("U1", f"mg is refused for an intrathecal amount: write {micro}{same}")]
        else:
            known = ", ".join(self.units)
            problems["unit"] = [Said("unit", f"unknown unit {value['unit'][:40]!r}; accepted: {known}")]
        return ""


class Part(Strict):
    """An object with a schema of its own, or with `many` a list of them; the schema is built once."""

    def __init__(self, schema: Schema, *, many: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema, self.many = schema, many

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Json:
        if self.many:
            if not isinstance(value, list) or not value:
                raise refuse("type", "must be a list with at least one item")
            if len(value) > 500:
                raise refuse("length", f"has {len(value)} items; at most 500 are accepted")
            for index, item in enumerate(value):
                if not isinstance(item, dict):
                    raise ValidationError({index: [Said("type", "must be an object")]})
        elif not isinstance(value, dict):
            raise refuse("type", "must be an object")
        return self.schema.load(value, many=self.many)


class Words(Strict):
    """A list of distinct words out of a closed list, e.g. weekdays."""

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[str]:
        if not isinstance(value, list) or not value:
            raise refuse("type", "must be a list with at least one item")
        for index, item in enumerate(value):
            if item not in self.choices:
                raise ValidationError({index: [Said("code", f"must be one of {', '.join(self.choices)}")]})
        if len(set(value)) != len(value):
            raise refuse("duplicate", "names one item twice")
        return value
