"""FHIR R4's shapes as JSON Schema, from HL7's definitions in r4_types.json.

r4_types.json holds, for each resource type this package writes or reads and for every datatype those
use: elements, cardinalities, required codes, reference targets and error-level invariants. It is written
by `python -m tests.r4_definitions` and compared with the definitions in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

Json = Any

R4: Final[Json] = msgspec.json.decode(Path(__file__).with_name("r4_types.json").read_bytes())
TYPES: Final[dict[str, dict[str, Json]]] = {
    **R4["types"],
    "Element": {"id": {"types": ["string"]}, "extension": {"types": ["Extension"], "many": True}},
}
RESOURCE_TYPES: Final = frozenset(R4["resourceTypes"])
CHECKED: Final = frozenset(RESOURCE_TYPES & TYPES.keys())
"""The resource types that are checked in full."""

_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DAY = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_PARTIAL = rf"{_YEAR}|{_YEAR}-(?:0[1-9]|1[0-2])|{_DAY}"


def _text(pattern: str) -> Json:
    return {"type": "string", "pattern": pattern}


PRIMITIVES: Final[dict[str, Json]] = {
    "base64Binary": _text(r"^\s*(?:[0-9A-Za-z+/]{4}\s*)*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?\s*$"),
    "boolean": {"type": "boolean"},
    "canonical": _text(r"^(?:\S+)$"),
    "code": _text(r"^[^\s]+(?:[ ][^\s]+)*$"),
    "date": _text(rf"^(?:{_PARTIAL})$"),
    "dateTime": _text(rf"^(?:{_PARTIAL}|{_DAY}T{_TIME}{_ZONE})$"),
    "decimal": {"type": "number"},
    "id": _text(r"^[A-Za-z0-9.-]{1,64}$"),
    "instant": _text(rf"^{_DAY}T{_TIME}{_ZONE}$"),
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "markdown": _text(r"\S(?:)"),
    "oid": _text(r"^urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+$"),
    "positiveInt": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "string": _text(r"\S"),
    "time": _text(rf"^{_TIME}$"),
    "unsignedInt": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "uri": _text(r"^\S+$"),
    "url": _text(r"^\S+(?:)$"),
    "uuid": _text(r"^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
    "xhtml": {"type": "string"},
}
"""The forms of R4 datatypes; dates are calendar days, a dateTime with a time has seconds and a zone."""

WHOLE: Final = frozenset({"integer", "positiveInt", "unsignedInt"})
NAME_OF_PATTERN: Final = {form["pattern"]: name for name, form in PRIMITIVES.items() if "pattern" in form}
_NO_EXTENSION: Final = {"id", "url"}
"""Elements that are attributes in XML (`Element.id`, `Extension.url`) and so carry no extension."""


def elements(type_: str) -> Iterator[tuple[str, str, Json]]:
    """(JSON name, datatype, definition) of each element; a choice gives one for each of its types."""
    for name, element in TYPES[type_].items():
        for datatype in element["types"]:
            if name.endswith("[x]"):
                plain = "Quantity" if datatype == "SimpleQuantity" else datatype
                yield name[:-3] + plain[0].upper() + plain[1:], datatype, element
            else:
                yield name, datatype, element


def may_extend(type_: str, name: str, datatype: str) -> bool:
    """Whether `_name` may stand beside the primitive `name`."""
    attribute = name in _NO_EXTENSION and (name == "id" or type_ == "Extension")
    return datatype in PRIMITIVES and datatype != "xhtml" and not attribute


def json_schema(resource_type: str) -> Json:
    """The JSON Schema of one resource type; a resource inside it is any object (it is checked by itself)."""
    defs: dict[str, Json] = {}
    wanted = [resource_type, "Element"]
    while wanted:
        name = wanted.pop()
        if name in defs:
            continue
        if name in PRIMITIVES:
            defs[name] = PRIMITIVES[name]
        elif name == "Resource":
            defs[name] = {"type": "object"}
        else:
            defs[name] = _object(name)
            wanted += [datatype for _, datatype, _ in elements(name)]
    defs["Element?"] = {**defs["Element"], "type": ["object", "null"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ref(resource_type), "$defs": defs}


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _object(type_: str) -> Json:
    properties: dict[str, Json] = {}
    required = []
    for name, datatype, element in elements(type_):
        properties[name] = _element(datatype, element)
        if may_extend(type_, name, datatype):
            properties[f"_{name}"] = _many(_ref("Element?")) if "many" in element else _ref("Element")
        if "min" in element and len(element["types"]) == 1:
            required.append(name)
    made: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    if type_ in CHECKED:
        properties["resourceType"] = {"const": type_}
        required.append("resourceType")
    else:
        made |= {"minProperties": 1, "not": {"required": ["id"], "maxProperties": 1}}
    return {**made, "required": required} if required else made


def _element(datatype: str, element: Json) -> Json:
    one = {"enum": R4["codes"][element["codes"]]} if "codes" in element else _ref(datatype)
    if "many" not in element:
        return one
    if "codes" in element:
        one = {"enum": [*one["enum"], None]}
    elif datatype in PRIMITIVES:
        one = {**PRIMITIVES[datatype], "type": [PRIMITIVES[datatype]["type"], "null"]}
    return _many(one)


def _many(item: Json) -> Json:
    return {"type": "array", "minItems": 1, "items": item}
