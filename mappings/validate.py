"""Strict FHIR R4 4.0.1 validation without Java: every resource that comes in or goes out.

The element table `r4_types.json` is made from HL7's own definitions (tests/r4_definitions.py); a checker
for each type is compiled from it on first use. Invariants are written below, each under its R4 id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Any

from .codes import UCUM
from .exact_json import dumps, loads
from .fields import instant
from .paths import Json
from .r4_schema import compiled
from .r4_table import CHECKED, PATTERNS, table
from .rows import Issue

Check = Callable[[Any, str, list[Issue]], None]


def validate(resource: Json) -> list[Issue]:
    """Everything wrong with a resource (or a Bundle and its entries): path, R4 rule, words."""
    return [] if is_plainly_valid(resource) else thoroughly(resource)


def is_plainly_valid(resource: Json) -> bool:
    """Whether the compiled schema finds nothing wrong; False may still be valid (`thoroughly` says)."""
    type = resource.get("resourceType") if isinstance(resource, dict) else None
    if type not in CHECKED:
        return False
    try:
        if not compiled(type, NESTED, _per_1).is_valid(resource):
            return False
    except (ValueError, TypeError, OverflowError):
        return False  # a number that JSON Schema cannot hold
    inside = [e["resource"] for e in resource.get("entry", ()) if "resource" in e]
    return all(_whole_holds(one) for one in [resource, *inside])


def _whole_holds(resource: Json) -> bool:
    """The rules over a whole resource, which the schema does not know."""
    if any(not holds(resource) for _, holds, _ in _rules_of(resource["resourceType"])):
        return False
    if "contained" not in resource:
        return True
    issues: list[Issue] = []
    _whole(resource, "", issues)
    return not issues and not any(_rules_of(c["resourceType"]) for c in resource["contained"])


def thoroughly(resource: Json) -> list[Issue]:
    """What `validate` gives, element by element."""
    issues: list[Issue] = []
    if not isinstance(resource, dict):
        return [Issue("$", "structure", "a resource is a JSON object")]
    type = resource.get("resourceType")
    _resource(resource, str(type), issues)
    return issues


def _resource(value: Any, path: str, issues: list[Issue]) -> None:
    if not isinstance(value, dict):
        issues.append(Issue(path, "structure", "must be an object"))
        return
    type = value.get("resourceType")
    if not isinstance(type, str) or type not in table()["types"]:
        known = type in table()["resourceTypes"] if isinstance(type, str) else False
        if not known:
            issues.append(
                Issue(f"{path}.resourceType", "resource-type", f"{type!r} is not an R4 resource type")
            )
        return
    _complex(type)(value, path, issues)


@lru_cache(None)
def _complex(type: str) -> Check:
    """The checker of a resource, datatype or backbone element."""
    elements: dict[str, tuple[Check, bool, str]] = {}
    choices: dict[str, tuple[list[str], int]] = {}
    choice_of: dict[str, str] = {}
    required: list[str] = []
    for name, element in table()["types"][type].items():
        many, least = element.get("many", False), element.get("min", 0)
        if name.endswith("[x]"):
            names = []
            for kind in element["types"]:
                shown = "Quantity" if kind == "SimpleQuantity" else kind
                full = name[:-3] + shown[0].upper() + shown[1:]
                names.append(full)
                choice_of[full] = choice_of[f"_{full}"] = name
                elements[full] = (_one(kind, element), many, kind)
            choices[name] = (names, least)
            continue
        elements[name] = (_one(element["types"][0], element), many, element["types"][0])
        if least:
            required.append(name)
    rules = _rules_of(type)
    is_resource = type in table()["resourceTypes"]

    def check(value: Any, path: str, issues: list[Issue]) -> None:
        if not isinstance(value, dict):
            issues.append(Issue(path, "structure", "must be an object"))
            return
        if not value or (is_resource and len(value) == 1):
            issues.append(Issue(path, "ele-1", "must not be empty"))
            return
        for name, item in value.items():
            found = elements.get(name)
            if found is None:
                _other(name, item, value, elements, path, issues, is_resource)
                continue
            one, many, _ = found
            if not many:
                one(item, f"{path}.{name}", issues)
            elif not isinstance(item, list):
                issues.append(Issue(f"{path}.{name}", "structure", "must be a list"))
            elif not item:
                issues.append(Issue(f"{path}.{name}", "ele-1", "must not be an empty list"))
            else:
                for index, part in enumerate(item):
                    if part is not None or f"_{name}" not in value:
                        one(part, f"{path}.{name}[{index}]", issues)
        for name in required:
            if name not in value and f"_{name}" not in value:
                issues.append(Issue(f"{path}.{name}", "cardinality", "is required"))
        if choices:
            given = [name for name in value if name in choice_of]
            for name, (names, least) in choices.items():
                made = {n.lstrip("_") for n in given if choice_of[n] == name}
                if len(made) > 1:
                    issues.append(Issue(f"{path}.{name}", "choice", f"only one of {', '.join(sorted(made))}"))
                elif least and not made:
                    issues.append(
                        Issue(f"{path}.{name}", "cardinality", f"is required: one of {', '.join(names)}")
                    )
        for id, holds, words in rules:
            try:
                held = holds(value)
            except (AttributeError, TypeError, ValueError):
                held = True  # misshapen: said above, element by element
            if not held:
                issues.append(Issue(path, id, words))
        if is_resource and isinstance(value.get("contained"), list):
            _whole(value, path, issues)

    return check


PRIMITIVES = {*PATTERNS, "boolean", "integer", "positiveInt", "unsignedInt", "decimal"}


def _other(
    name: str, item: Any, value: Json, elements: Any, path: str, issues: list[Issue], is_resource: bool
) -> None:
    if name == "resourceType" and is_resource:
        return
    base = name[1:]
    if name.startswith("_") and base in elements and elements[base][2] in PRIMITIVES:
        for part in item if isinstance(item, list) else [item]:
            if part is not None and not (
                isinstance(part, dict) and part and set(part) <= {"id", "extension"}
            ):
                issues.append(Issue(f"{path}.{name}", "structure", "holds only id and extension"))
        return
    issues.append(Issue(f"{path}.{name}", "unknown-element", "is not an element of R4 here"))


def _one(kind: str, element: Json) -> Check:
    if kind in ("Resource",):
        return _resource
    if kind == "Reference":
        return _reference(tuple(element.get("targets", ())))
    if kind in PRIMITIVES:
        return _primitive(kind, element.get("codes"))
    if kind == "CodeableConcept" and element.get("codes") in table()["codes"]:
        return _bound(element["codes"])
    return _later(kind)


def _bound(codes: str) -> Check:
    """A concept whose binding is required: one of its codings is in the value set."""
    whole, allowed = _later("CodeableConcept"), frozenset(table()["codes"][codes])

    def check(value: Any, path: str, issues: list[Issue]) -> None:
        whole(value, path, issues)
        codings = value.get("coding") if isinstance(value, dict) else None
        listed = codings if isinstance(codings, list) else []
        if not any(
            isinstance(c, dict) and isinstance(c.get("code"), str) and c["code"] in allowed for c in listed
        ):
            issues.append(Issue(path, "required-binding", f"no coding is in the value set {codes}"))

    return check


def _later(kind: str) -> Check:
    """The checker of a type that may hold itself: compiled when it is first met."""
    compiled: list[Check] = []

    def check(value: Any, path: str, issues: list[Issue]) -> None:
        if not compiled:
            compiled.append(_complex(kind))
        compiled[0](value, path, issues)

    return check


def _primitive(kind: str, codes: str | None) -> Check:
    if kind == "boolean":
        return _typed(lambda v: isinstance(v, bool), "must be true or false")
    if kind == "decimal":
        return _typed(lambda v: isinstance(v, (int, Decimal)) and not isinstance(v, bool), "must be a number")
    if kind in ("integer", "positiveInt", "unsignedInt"):
        least = {"integer": -(2**31), "positiveInt": 1, "unsignedInt": 0}[kind]
        return _typed(
            lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v < 2**31,
            f"must be a {kind}",
        )
    matches = re.compile(PATTERNS[kind]).fullmatch
    allowed = frozenset(table()["codes"][codes]) if codes and codes in table()["codes"] else None

    def check(value: Any, path: str, issues: list[Issue]) -> None:
        if not isinstance(value, str):
            issues.append(Issue(path, "type", "must be a string"))
        elif not matches(value):
            issues.append(Issue(path, "format", f"is not a {kind}"))
        elif allowed is not None and value not in allowed:
            issues.append(Issue(path, "required-binding", f"{value[:40]!r} is not in the value set {codes}"))

    return check


def _typed(right: Callable[[Any], bool], words: str) -> Check:
    def check(value: Any, path: str, issues: list[Issue]) -> None:
        if not right(value):
            issues.append(Issue(path, "type", words))

    return check


def _reference(targets: tuple[str, ...]) -> Check:
    whole = _later("Reference")

    def check(value: Any, path: str, issues: list[Issue]) -> None:
        whole(value, path, issues)
        if not targets or not isinstance(value, dict):
            return
        for type in _types_of(value):
            if type not in targets:
                issues.append(Issue(path, "reference-target", f"{type} is not one of {', '.join(targets)}"))

    return check


_LITERAL = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)(?:/[A-Za-z0-9\-.]+(?:/_history/.+)?|\?.*)$", re.S)


def _types_of(reference: Json) -> Iterator[str]:
    if isinstance(reference.get("type"), str):
        yield reference["type"]
    literal = reference.get("reference")
    if isinstance(literal, str) and not literal.startswith(("#", "urn:")):
        match = _LITERAL.match(literal)
        if match:
            yield match.group(1)


# --- invariants -----------------------------------------------------------------------------------------

Holds = Callable[[Json], bool]


def _per_1(v: Json) -> bool:
    start, end = v.get("start"), v.get("end")
    if not (isinstance(start, str) and isinstance(end, str)):
        return True
    if "T" in start and "T" in end:
        try:
            return instant(start) <= instant(end)
        except ValueError:
            return True  # the pattern says so already
    least = min(len(start.split("T")[0]), len(end.split("T")[0]))
    return start[:least] <= end[:least]


def _tim_9(v: Json) -> bool:
    return "offset" not in v or bool(v.get("when") and not set(v["when"]) & {"C", "CM", "CD", "CV"})


def _distinct(items: Any) -> bool:
    listed = list(items)
    return len(set(listed)) == len(listed)


def _entries(v: Json) -> list[Json]:
    return [e for e in v.get("entry", []) if isinstance(e, dict)]


def _bdl_3(v: Json) -> bool:
    wanted = v.get("type") in ("batch", "transaction", "history")
    return all(("request" in e) == wanted for e in _entries(v))


def _bdl_4(v: Json) -> bool:
    wanted = v.get("type") in ("batch-response", "transaction-response", "history")
    return all(("response" in e) == wanted for e in _entries(v))


def _bdl_7(v: Json) -> bool:
    named = [
        (e["fullUrl"], (e.get("resource") or {}).get("meta", {}).get("versionId"))
        for e in _entries(v)
        if "fullUrl" in e
    ]
    return v.get("type") == "history" or _distinct(named)


def _obs_7(v: Json) -> bool:
    if not any(name.startswith("value") for name in v):
        return True
    own = {(c.get("system"), c.get("code")) for c in v.get("code", {}).get("coding", [])}
    parts = [c for part in v.get("component", []) for c in part.get("code", {}).get("coding", [])]
    return not any((c.get("system"), c.get("code")) in own for c in parts)


def _value_of(v: Json) -> bool:
    return any(name.lstrip("_").startswith("value") for name in v)


def _measured(v: Json) -> bool:
    return ("code" in v or "value" not in v) and v.get("system", UCUM) == UCUM


def _first_type(v: Json) -> str | None:
    entries = _entries(v)
    return (entries[0].get("resource") or {}).get("resourceType") if entries else None


def _cpb_16(v: Json) -> bool:
    return v.get("kind") != "requirements" or not {"implementation", "software"} & v.keys()


QUANTITIES = ("Age", "Count", "Distance", "Duration", "Quantity")
RULES: list[tuple[tuple[str, ...], str, Holds, str]] = [
    (QUANTITIES, "qty-3", lambda v: "code" not in v or "system" in v, "a unit's code needs its system"),
    (
        ("Duration",),
        "drt-1",
        lambda v: "code" not in v or (v.get("system") == UCUM and "value" in v),
        "in UCUM",
    ),
    (("Age",), "age-1", lambda v: _measured(v) and v.get("value", 1) > 0, "a positive time in UCUM"),
    (("Distance",), "dis-1", _measured, "a length in UCUM"),
    (("Count",), "cnt-3", lambda v: _measured(v) and v.get("code", "1") == "1", "a whole number in UCUM 1"),
    (("Period",), "per-1", _per_1, "the end lies before the start"),
    (
        ("Ratio",),
        "rat-1",
        lambda v: ("numerator" in v) == ("denominator" in v) and ("numerator" in v or "extension" in v),
        "numerator and denominator belong together",
    ),
    (
        ("Range",),
        "rng-2",
        lambda v: v.get("low", {}).get("value", 0) <= v.get("high", {}).get("value", 10**30),
        "low is above high",
    ),
    (("Attachment",), "att-1", lambda v: "data" not in v or "contentType" in v, "data needs a contentType"),
    (("ContactPoint",), "cpt-2", lambda v: "value" not in v or "system" in v, "a value needs its system"),
    (
        ("Expression",),
        "exp-1",
        lambda v: bool({"expression", "reference"} & v.keys()),
        "needs an expression or reference",
    ),
    (("Extension",), "ext-1", lambda v: ("extension" in v) != _value_of(v), "either a value or extensions"),
    (
        ("Timing.repeat",),
        "tim-1",
        lambda v: "duration" not in v or "durationUnit" in v,
        "a duration needs its unit",
    ),
    (
        ("Timing.repeat",),
        "tim-2",
        lambda v: "period" not in v or "periodUnit" in v,
        "a period needs its unit",
    ),
    (("Timing.repeat",), "tim-4", lambda v: v.get("duration", 0) >= 0, "a duration is not negative"),
    (("Timing.repeat",), "tim-5", lambda v: v.get("period", 0) >= 0, "a period is not negative"),
    (("Timing.repeat",), "tim-6", lambda v: "periodMax" not in v or "period" in v, "periodMax needs period"),
    (
        ("Timing.repeat",),
        "tim-7",
        lambda v: "durationMax" not in v or "duration" in v,
        "durationMax needs duration",
    ),
    (("Timing.repeat",), "tim-8", lambda v: "countMax" not in v or "count" in v, "countMax needs count"),
    (("Timing.repeat",), "tim-9", _tim_9, "an offset needs a when that is not a meal itself"),
    (
        ("Timing.repeat",),
        "tim-10",
        lambda v: "timeOfDay" not in v or "when" not in v,
        "timeOfDay or when, not both",
    ),
    (
        ("MedicationAdministration.dosage",),
        "mad-1",
        lambda v: bool({"dose", "rateRatio", "rateQuantity"} & v.keys()),
        "a dosage needs a dose or a rate",
    ),
    (
        ("Observation",),
        "obs-6",
        lambda v: "dataAbsentReason" not in v or not _value_of(v),
        "a value is there: it is not absent",
    ),
    (("Observation",), "obs-7", _obs_7, "a component repeats the observation's own code"),
    (
        ("Observation.referenceRange",),
        "obs-3",
        lambda v: bool({"low", "high", "text"} & v.keys()),
        "needs low, high or text",
    ),
    (
        ("Patient.contact",),
        "pat-1",
        lambda v: bool({"name", "telecom", "address", "organization"} & v.keys()),
        "says nothing",
    ),
    (
        ("Bundle",),
        "bdl-1",
        lambda v: "total" not in v or v.get("type") in ("searchset", "history"),
        "total only in a search or history",
    ),
    (
        ("Bundle",),
        "bdl-2",
        lambda v: v.get("type") == "searchset" or not any("search" in e for e in _entries(v)),
        "search only in a searchset",
    ),
    (
        ("Bundle",),
        "bdl-3",
        _bdl_3,
        "each entry of a transaction, batch or history has a request, and no other",
    ),
    (("Bundle",), "bdl-4", _bdl_4, "each entry of a response or history has a response, and no other"),
    (("Bundle",), "bdl-7", _bdl_7, "a fullUrl stands twice"),
    (
        ("Bundle",),
        "bdl-9",
        lambda v: v.get("type") != "document" or {"system", "value"} <= v.get("identifier", {}).keys(),
        "a document has an identifier",
    ),
    (
        ("Bundle",),
        "bdl-10",
        lambda v: v.get("type") != "document" or "timestamp" in v,
        "a document has a timestamp",
    ),
    (
        ("Bundle",),
        "bdl-11",
        lambda v: v.get("type") != "document" or _first_type(v) == "Composition",
        "a document begins with a Composition",
    ),
    (
        ("Bundle",),
        "bdl-12",
        lambda v: v.get("type") != "message" or _first_type(v) == "MessageHeader",
        "a message begins with a MessageHeader",
    ),
    (
        ("Bundle.entry",),
        "bdl-5",
        lambda v: bool({"resource", "request", "response"} & v.keys()),
        "says nothing",
    ),
    (
        ("Bundle.entry",),
        "bdl-8",
        lambda v: "/_history/" not in str(v.get("fullUrl", "")),
        "a fullUrl names no version",
    ),
    (
        ("CapabilityStatement",),
        "cpb-1",
        lambda v: bool({"rest", "messaging", "document"} & v.keys()),
        "says nothing",
    ),
    (
        ("CapabilityStatement",),
        "cpb-2",
        lambda v: bool({"description", "software", "implementation"} & v.keys()),
        "says of what",
    ),
    (
        ("CapabilityStatement",),
        "cpb-3",
        lambda v: v.get("kind") == "instance" or not any("endpoint" in m for m in v.get("messaging", [])),
        "endpoints only of an instance",
    ),
    (
        ("CapabilityStatement",),
        "cpb-7",
        lambda v: _distinct((d.get("profile"), d.get("mode")) for d in v.get("document", [])),
        "a document twice",
    ),
    (
        ("CapabilityStatement",),
        "cpb-14",
        lambda v: v.get("kind") != "instance" or "implementation" in v,
        "an instance has an implementation",
    ),
    (
        ("CapabilityStatement",),
        "cpb-15",
        lambda v: v.get("kind") != "capability" or ("implementation" not in v and "software" in v),
        "a capability has software",
    ),
    (("CapabilityStatement",), "cpb-16", _cpb_16, "requirements have neither implementation nor software"),
    (
        ("CapabilityStatement.rest",),
        "cpb-9",
        lambda v: _distinct(r.get("type") for r in v.get("resource", [])),
        "a type twice",
    ),
    (
        ("CapabilityStatement.rest.resource",),
        "cpb-12",
        lambda v: _distinct(p.get("name") for p in v.get("searchParam", [])),
        "a parameter twice",
    ),
    (
        ("Task",),
        "inv-1",
        lambda v: (
            not {"lastModified", "authoredOn"} <= v.keys()
            or instant(v["lastModified"]) >= instant(v["authoredOn"])
        ),
        "modified before it was authored",
    ),
]
"""(types, R4 id, whether it holds, words). Those over a whole resource are in `_whole`."""


NESTED = frozenset((type, id) for types, id, _, _ in RULES for type in types if type not in CHECKED)


@lru_cache(None)
def _rules_of(type: str) -> list[tuple[str, Holds, str]]:
    return [(id, holds, words) for types, id, holds, words in RULES if type in types]


def _whole(resource: Json, path: str, issues: list[Issue]) -> None:
    """dom-2 to dom-5 and ref-1: what is contained, and what points to it."""
    contained = [c for c in resource.get("contained", []) if isinstance(c, dict)]
    pointed = {value[1:] for value in _local_references(resource) if value != "#"}
    ids = [c["id"] for c in contained if isinstance(c.get("id"), str)]
    for index, inner in enumerate(contained):
        at = f"{path}.contained[{index}]"
        if "contained" in inner:
            issues.append(Issue(at, "dom-2", "a contained resource contains none"))
        if str(inner.get("id")) not in pointed and "#" not in _local_references(inner):
            issues.append(Issue(at, "dom-3", "nothing in the resource points to it"))
        meta = inner["meta"] if isinstance(inner.get("meta"), dict) else {}
        if "versionId" in meta or "lastUpdated" in meta:
            issues.append(Issue(f"{at}.meta", "dom-4", "a contained resource has no version"))
        if "security" in meta:
            issues.append(Issue(f"{at}.meta", "dom-5", "a contained resource has no security label"))
    for missing in sorted(pointed - set(ids)):
        issues.append(Issue(path, "ref-1", f"#{missing} points to nothing contained"))


_LOCAL = re.compile(rb'"reference":"(#(?:[^"\\]|\\.)*)"')


def _local_references(node: Json) -> set[str]:
    """Every `reference` that begins with #, at any depth; written as JSON, as that is the fastest walk."""
    return {loads(b'"%s"' % found) for found in _LOCAL.findall(dumps(node))}
