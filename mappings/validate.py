"""Strict FHIR R4 4.0.1 validation without Java: every resource that comes in or goes out.

The element table `r4_types.json` is made from HL7's own definitions (tests/r4_definitions.py); a checker
for each type is compiled from it on first use. Invariants are in `r4_rules.py`, each under its R4 id.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from .exact_json import dumps, loads
from .paths import Json
from .r4_rules import RULES, Holds, per_1, types_of
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
    schema = compiled("Resource" if "contained" in resource else type, NESTED, per_1)
    try:
        if not schema.is_valid(resource):
            return False
    except (ValueError, TypeError, OverflowError):
        return False  # a number that JSON Schema cannot hold
    inside = [e["resource"] for e in resource.get("entry", ()) if "resource" in e]
    return _whole_holds(resource) and all(
        is_plainly_valid(one) if "contained" in one or "entry" in one else _whole_holds(one) for one in inside
    )


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
        if is_resource and type != "Bundle" and not _CONTAINED.search(path):
            _whole(value, path, issues)

    return check


_CONTAINED = re.compile(r"\.contained\[[0-9]+\]$")
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
        return _bound(element["codes"], element["system"])
    return _later(kind)


def _bound(codes: str, system: str) -> Check:
    """A concept whose binding is required: one of its codings is in the value set."""
    whole, allowed = _later("CodeableConcept"), frozenset(table()["codes"][codes])

    def check(value: Any, path: str, issues: list[Issue]) -> None:
        whole(value, path, issues)
        codings = value.get("coding") if isinstance(value, dict) else None
        listed = codings if isinstance(codings, list) else []
        if not any(_code(c, system) in allowed for c in listed):
            issues.append(Issue(path, "required-binding", f"no coding is in the value set {codes}"))

    return check


def _code(coding: Any, system: str) -> str | None:
    """The code of a coding in this system."""
    code = coding.get("code") if isinstance(coding, dict) and coding.get("system") == system else None
    return code if isinstance(code, str) else None


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
        for type in types_of(value):
            if type not in targets:
                issues.append(Issue(path, "reference-target", f"{type} is not one of {', '.join(targets)}"))

    return check


# --- rules over a whole resource ------------------------------------------------------------------------

NESTED = frozenset((type, id) for types, id, _, _ in RULES for type in types if type not in CHECKED)


@lru_cache(None)
def _rules_of(type: str) -> list[tuple[str, Holds, str]]:
    return [(id, holds, words) for types, id, holds, words in RULES if type in types]


def _whole(resource: Json, path: str, issues: list[Issue]) -> None:
    """dom-2 to dom-5 and ref-1: what is contained, and what points to it."""
    listed = resource.get("contained")
    contained = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
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
    for twice in sorted({id for id in ids if ids.count(id) > 1}):
        issues.append(Issue(path, "contained-id", f"{twice} is contained twice"))
    for missing in sorted(pointed - set(ids)):
        issues.append(Issue(path, "ref-1", f"#{missing} points to nothing contained"))


_LOCAL = re.compile(rb'"reference":"(#(?:[^"\\]|\\.)*)"')


def _local_references(node: Json) -> set[str]:
    """Every `reference` that begins with #, at any depth; written as JSON, as that is the fastest walk."""
    text = dumps(node)
    return {loads(b'"%s"' % found) for found in _LOCAL.findall(text)} if b"#" in text else set()
