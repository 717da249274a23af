"""The fast half of loading an event: a marshmallow schema compiled to a JSON Schema and a copier.

It takes what the schema's own `load` would take, with the same result, and leaves everything else (None) to
it: the fields stay the one description of an event, and the source of every message.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import product
from typing import Any

import jsonschema_rs
from marshmallow import Schema, ValidationError

from .fields import SAME_UNIT, Code, Day, Flag, Line, Moment, Part, Prose, Quantity, Whole, Words, to_ucum
from .paths import Json
from .r4_table import DAY, YEAR

Loader = Callable[[Json], Json]
MONTH = rf"{YEAR}-(?:0[1-9]|1[0-2])"
MOMENT = (
    rf"^{DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,9}})?"
    r"(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)$"
)
PROSE = "^[^\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ufffe\\uffff]+$"
NO_CONTROL = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
"""Python's \\s holds some of these and that of JSON Schema does not."""
LONGEST = 17
"""Digits (and point) of a number that is surely within what a quantity accepts."""


class _Unusual(Exception):
    """Left to marshmallow."""


def loader(schema: Schema) -> Loader:
    """A function that loads what is plainly right, and gives None for anything else."""
    is_valid = jsonschema_rs.Draft202012Validator(
        _object(schema), pattern_options=jsonschema_rs.RegexOptions()
    ).is_valid
    copied = _copier(schema)

    def load(data: Json) -> Json:
        try:
            return copied(data) if is_valid(data) else None
        except (_Unusual, ValidationError, ValueError, TypeError, OverflowError):
            return None

    return load


def _object(schema: Schema) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _shape(field) for name, field in schema.load_fields.items()},
        "required": [name for name, field in schema.load_fields.items() if field.required],
    }


def _shape(field: Any) -> Json:
    match field:
        case Line():
            patterns = [{"pattern": f"^(?:{field.pattern.pattern})$"}, {"pattern": NO_CONTROL}]
            return {"type": "string", "maxLength": field.most, "allOf": patterns}
        case Prose():
            return {"type": "string", "maxLength": 10_000, "allOf": [{"pattern": r"\S"}, {"pattern": PROSE}]}
        case Code():
            return {"enum": list(field.choices)}
        case Flag():
            return {"type": "boolean"}
        case Whole():
            return {"type": "integer", "minimum": field.least, "maximum": field.most}
        case Moment():
            return {"type": "string", "pattern": MOMENT}
        case Day():
            days = f"{MONTH}|{DAY}" if field.month_enough else DAY
            return {"type": "string", "pattern": f"^(?:{days})$"}
        case Quantity():
            least = "exclusiveMinimum" if field.above_zero else "minimum"
            return {
                "type": "object",
                "additionalProperties": False,
                "required": ["value", "unit"],
                "properties": {
                    "value": {"type": "number", least: 0},
                    "unit": {"enum": _spellings(field.units)},
                },
            }
        case Part():
            inner = _object(field.schema)
            return {"type": "array", "minItems": 1, "maxItems": 500, "items": inner} if field.many else inner
        case Words():
            return {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": {"enum": list(field.choices)},
            }
    return {"not": {}}


def _spellings(units: tuple[str, ...]) -> list[str]:
    """Every accepted way to write the units: `ug/d`, `mcg/d`, `ug/day`, …"""
    found = []
    for unit in units:
        parts = [[part, *(s for s, same in SAME_UNIT.items() if same == part)] for part in unit.split("/")]
        found += ["/".join(chosen) for chosen in product(*parts)]
    return found


# --- copying ----------------------------------------------------------------------------------------------


def _copier(schema: Schema) -> Loader:
    """A canonical copy: fields in their order, numbers as Decimal, units in UCUM."""
    steps = [(name, _copy_of(field)) for name, field in schema.load_fields.items()]
    whole = getattr(schema, "whole", None)

    def copied(data: Json) -> Json:
        made = {}
        for name, copy in steps:
            if name in data:
                value = data[name]
                made[name] = value if copy is None else copy(value)
        if whole is not None:
            whole(made)
        return made

    return copied


def _copy_of(field: Any) -> Loader | None:
    if isinstance(field, Quantity):
        return _quantity
    if isinstance(field, Whole):
        return _whole_number
    if isinstance(field, Part):
        one = _copier(field.schema)
        return (lambda items: [one(item) for item in items]) if field.many else one
    return None


def _quantity(value: Json) -> Json:
    number = value["value"]
    text = str(number)
    if len(text) > LONGEST or text[0] == "-" or "E" in text:
        raise _Unusual
    unit = value["unit"]
    return {
        "value": number if type(number) is Decimal else Decimal(number),
        "unit": UCUM_OF.get(unit) or to_ucum(unit),
    }


UCUM_OF = {unit: unit for unit in ("ug", "ug/d", "ug/mL", "mL", "h", "min", "d", "cm", "mL/cm", "mg")}


def _whole_number(value: Json) -> Json:
    if type(value) is not int:
        raise _Unusual
    return value
