"""The fast half of the validator: R4's shapes as a compiled JSON Schema that only says yes.

It accepts nothing that `validate` would find an issue in, and leaves what it is not sure of (ids of
elements, extensions of primitives, rare datatypes) to it. Made from the same element table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs

from .codes import UCUM
from .paths import Json
from .r4_table import ABSOLUTE, CHECKED, OID, PATTERNS, RESOURCE_TYPES, UUID, table

FRAGMENTS: dict[str, Json] = {
    "qty-3": {"dependentRequired": {"code": ["system"]}},
    "drt-1": {
        "dependentRequired": {"code": ["system", "value"]},
        "properties": {"system": {"const": UCUM}},
    },
    "rat-1": {"required": ["numerator", "denominator"]},
    "ext-1": {"minProperties": 2, "maxProperties": 2},
    "tim-1": {"dependentRequired": {"duration": ["durationUnit"]}},
    "tim-2": {"dependentRequired": {"period": ["periodUnit"]}},
    "tim-4": {"properties": {"duration": {"minimum": 0}}},
    "tim-5": {"properties": {"period": {"minimum": 0}}},
    "tim-6": {"properties": {"periodMax": False}},
    "tim-7": {"properties": {"durationMax": False}},
    "tim-8": {"properties": {"countMax": False}},
    "tim-9": {"properties": {"offset": False}},
    "tim-10": {"not": {"required": ["timeOfDay", "when"]}},
    "mad-1": {"anyOf": [{"required": ["dose"]}, {"required": ["rateRatio"]}, {"required": ["rateQuantity"]}]},
    "per-1": {"anyOf": [{"not": {"required": ["start", "end"]}}, {"r4-per-1": True}]},
    "absolute-uri": {"properties": {"system": {"pattern": f"^{ABSOLUTE}"}}},
    "literal-reference": {},  # see _aimed
    "reference-type": {"properties": {"type": {"enum": sorted(RESOURCE_TYPES)}}},
    "app-1": {"required": ["actor"]},
    "ctm-1": {"properties": {"onBehalfOf": False}},
    "con-2": {"anyOf": [{"required": ["code"]}, {"required": ["detail"]}]},
    "gol-1": {"propertyNames": {"not": {"pattern": "^detail"}}},
    "bdl-5": {"required": ["resource"]},
    "bdl-8": {"properties": {"fullUrl": {"not": {"pattern": "/_history/"}}}},
}
"""R4 invariants of datatypes and backbone elements, said in a schema at least as strictly."""

NUMBERS: dict[str, Json] = {
    "decimal": {"type": "number"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "positiveInt": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "unsignedInt": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "boolean": {"type": "boolean"},
}
VISIBLE = r"[^\s\x1c-\x1f\x85]"
"""What is no white space for Python: JSON Schema's own \\S would let these pass."""
URI = rf"(?:[^u\s]\S*|urn:[^ou\s]\S*|{OID}|{UUID})".replace(r"\s", r"\s\x1c-\x1f\x85").replace(r"\S", VISIBLE)
"""Nearly every URI, without looking ahead for OIDs and UUIDs that are none."""
CANONICAL = f"https?://{VISIBLE}+|{OID}|{UUID}"
REGEX = jsonschema_rs.RegexOptions()
"""Linear in the length of what is matched; no pattern here looks around."""


@lru_cache(None)
def compiled(type: str, nested: frozenset[tuple[str, str]], per_1: Any) -> Any:
    """The compiled schema of a resource type that contains no other, or of any `Resource` that does.

    `nested` are the (datatype, rule id) of all invariants.
    """

    class Per1:
        def __init__(self, parent: Any, value: Any, path: Any) -> None:
            pass

        def validate(self, instance: Any) -> None:
            if not per_1(instance):
                raise ValueError("per-1")

    return jsonschema_rs.Draft202012Validator(
        schema(type, nested), keywords={"r4-per-1": Per1}, pattern_options=REGEX
    )


def schema(type: str, nested: frozenset[tuple[str, str]]) -> Json:
    """The JSON Schema of one resource type, as `compiled` takes it."""
    rules: dict[str, list[str]] = {}
    for name, id in nested:
        rules.setdefault(name, []).append(id)
    defs: dict[str, Json] = {}
    wanted = [type]
    while wanted:
        name = wanted.pop()
        if name in defs:
            continue
        defs[name] = _any_resource() if name == "Resource" else _object(name, rules.get(name, []))
        wanted += CHECKED if name == "Resource" else [t for t in _types(name) if not _is_primitive(t)]
    if type != "Resource":
        _without_contained(defs)
    return {"$ref": f"#/$defs/{type}", "$defs": defs}


def _without_contained(defs: dict[str, Json]) -> None:
    """Let resources contain none, and no reference point inside: then it need not be looked where to (ref-1).

    An entry of a Bundle may contain others still: it is left to a check of its own (`validate`).
    """
    for name in CHECKED:
        defs.get(name, {}).get("properties", {}).pop("contained", None)
    for made in defs.values():
        if "reference" in made.get("properties", ()):
            _narrow(made, {"properties": {"reference": {"pattern": "^[^#]"}}})
    if "Bundle.entry" in defs:
        entry = defs["Bundle.entry"]["properties"]
        contains = {"type": "object", "required": ["contained"]}
        entry["resource"] = {"if": contains, "then": True, "else": entry["resource"]}


def _is_primitive(type: str) -> bool:
    return type in PATTERNS or type in NUMBERS


def _types(name: str) -> list[str]:
    return [kind for element in table()["types"][name].values() for kind in element["types"]]


def _any_resource() -> Json:
    """A resource inside another: of a checked type, and with no rules over the whole of it."""
    made: Json = False
    for type in reversed(CHECKED):
        of_type = {"properties": {"resourceType": {"const": type}}, "required": ["resourceType"]}
        made = {"if": of_type, "then": {"$ref": f"#/$defs/{type}"}, "else": made}
    return {"type": "object", **made}


def _object(name: str, rules: list[str]) -> Json:
    properties: dict[str, Json] = {}
    required: list[str] = []
    choices: list[Json] = []
    for element, definition in table()["types"][name].items():
        if element in ("id", "modifierExtension") and name not in CHECKED:
            continue
        if element.endswith("[x]"):
            named = _choice(element, definition)
            properties.update(named)
            one = [{"required": [n]} for n in named]
            if name != "Extension":  # ext-1 leaves room for one
                choices.append({"oneOf": one if definition.get("min") else [*one, {"not": {"anyOf": one}}]})
            continue
        properties[element] = _element(definition, definition["types"][0])
        if definition.get("min"):
            required.append(element)
    made: Json = {"type": "object", "additionalProperties": False, "minProperties": 1}
    if name in CHECKED:
        properties["resourceType"] = {"const": name}
        made["minProperties"] = 2
    made |= {"properties": properties, "required": required, "dependentRequired": {}, "allOf": choices}
    for id in rules:
        _narrow(made, FRAGMENTS.get(id, {"not": {}}))
    return {keyword: said for keyword, said in made.items() if said or keyword != "allOf"}


def _narrow(made: Json, fragment: Json) -> None:
    """Put what the fragment says into the object's schema, so that each element is looked at once."""
    for keyword, said in fragment.items():
        if keyword == "properties":
            for name, narrower in said.items():
                if narrower is False:
                    made["properties"].pop(name, None)
                elif name in made["properties"]:
                    made["properties"][name] = {"allOf": [made["properties"][name], narrower]}
        elif keyword == "dependentRequired":
            for name, others in said.items():
                made[keyword][name] = sorted({*made[keyword].get(name, ()), *others})
        elif keyword == "required":
            made[keyword] = sorted({*made[keyword], *said})
        elif keyword in ("minProperties", "maxProperties"):
            made[keyword] = said
        else:
            made["allOf"].append({keyword: said})


def _choice(element: str, definition: Json) -> dict[str, Json]:
    named = {}
    for kind in definition["types"]:
        shown = "Quantity" if kind == "SimpleQuantity" else kind
        named[element[:-3] + shown[0].upper() + shown[1:]] = _element(definition, kind)
    return named


def _element(definition: Json, kind: str) -> Json:
    one = _one(definition, kind)
    return {"type": "array", "minItems": 1, "items": one} if definition.get("many") else one


def _one(definition: Json, kind: str) -> Json:
    codes = table()["codes"].get(definition.get("codes"))
    if kind in NUMBERS:
        return NUMBERS[kind]
    if kind in PATTERNS:
        if codes is not None:
            return {"type": "string", "enum": codes}
        if kind in ("string", "markdown"):
            return {"type": "string", "pattern": VISIBLE}
        exact = PATTERNS[kind].replace(r"[^\s]", VISIBLE)
        if kind in ("uri", "url", "canonical"):
            exact = CANONICAL if kind == "canonical" else URI
        return {"type": "string", "pattern": f"^(?:{exact})$"}
    whole: Json = {"$ref": f"#/$defs/{kind}"}
    if kind == "CodeableConcept" and codes is not None:
        return {"allOf": [whole, _bound(codes, definition["system"])]}
    if kind == "Reference":
        return {"allOf": [whole, _aimed(definition.get("targets"))]}
    return whole


def _bound(codes: list[str], system: str) -> Json:
    """A required binding: every coding is one of the codes."""
    return {
        "required": ["coding"],
        "properties": {
            "coding": {
                "items": {
                    "properties": {"system": {"const": system}, "code": {"enum": codes}},
                    "required": ["system", "code"],
                }
            }
        },
    }


def _aimed(targets: list[str] | None) -> Json:
    """A Reference to one of the target types: contained, urn, or `Type/id`, `Type?query` of its `type`."""
    if targets is None:
        return {"properties": {"reference": _literal(r"[A-Z][A-Za-z]+")}, **NO_TYPE_BESIDE}
    branches = [_to({"const": target}, target) for target in targets]
    return branches[0] if len(targets) == 1 else {"anyOf": [_to(False, "|".join(targets)), *branches]}


def _to(type: Json, types: str) -> Json:
    """The type first: it is quicker to look at than the pattern."""
    return {"allOf": [{"properties": {"type": type}}, {"properties": {"reference": _literal(types)}}]}


def _literal(types: str) -> Json:
    inside = r"[^/\s\x1c-\x1f\x85]*"
    return {"pattern": rf"^(?:#{inside}|urn:{inside}|(?:{types})/[A-Za-z0-9.-]+|(?:{types})\?{VISIBLE}*)$"}


NO_TYPE_BESIDE = {
    "anyOf": [
        {"properties": {"type": False}},
        {"properties": {"reference": {"pattern": "^(?:#|urn:)"}}},
        _to({"const": "Patient"}, "Patient"),
    ]
}
"""Where any type may be meant, one that is said twice is left to `validate`, but for a patient."""
