"""Foreign FHIR made ready to read: refused where it must not be guessed, ours by identity, mg as ug."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from . import identity
from .codes import UCUM, sid
from .rates import rate_unit_issues
from .rows import Issue, Json, MappingError, copy

Listed = list[tuple[str, str | None, Json]]
"""(path of the resource in what was sent, its fullUrl, the resource)."""

KIND_OF_TYPE = {
    "Device": "device-event",
    "Procedure": "programming-session",
    "MedicationAdministration": "refill",
}
TELLING = "Device (pump or catheter), MedicationAdministration (refill), Procedure (pump reprogramming)"


def entries(content: Json) -> Listed:
    """The resources of a Bundle or a single resource; raises `MappingError` for anything else."""
    if not isinstance(content, dict) or not isinstance(content.get("resourceType"), str):
        raise MappingError([Issue("$", "resource-type", "a FHIR resource with a resourceType is needed")])
    if content["resourceType"] != "Bundle":
        return [(content["resourceType"], None, content)]
    listed: Listed = []
    found = content.get("entry", [])
    if not isinstance(found, list):
        raise MappingError([Issue("Bundle.entry", "type", "must be a list")])
    for index, entry in enumerate(found):
        at = f"Bundle.entry[{index}].resource"
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            raise MappingError([Issue(at, "resource-type", "an entry needs a resource with a resourceType")])
        url = entry.get("fullUrl")
        listed.append((at, url if isinstance(url, str) else None, resource))
    return listed


def under(at: str, path: str) -> str:
    """An issue's path below the resource at `at`: `Bundle.entry[0].resource.dosage.dose`."""
    type, _, rest = path.partition(".")
    if at.startswith("Bundle") and type[:1].isupper():
        return f"{at}.{rest}" if rest else at
    return path if type[:1].isupper() else f"{at}.{path}"


def not_ours(listed: Listed) -> Issue:
    """Nothing that was sent tells an event."""
    types = ", ".join(sorted({r["resourceType"] for _, _, r in listed})) or "nothing"
    return Issue(
        listed[0][0] if listed else "Bundle", "not-ours", f"found {types}; an event is told by {TELLING}"
    )


def prepare(resource: Json, at: str, source: str, errors: list[Issue], notes: list[Issue]) -> Json | None:
    """A copy ready to decode; None, with its errors, for a resource that must not be read."""
    found = list(refusals(resource, at))
    found.extend(_rates(resource, at))
    if found:
        errors.extend(found)
        return None
    ready = _micrograms(copy(resource), at, notes)
    kind = KIND_OF_TYPE.get(resource["resourceType"])
    if kind is not None:
        _name(ready, kind, source)
    return ready


def refusals(node: Any, at: str) -> list[Issue]:
    """Unknown modifier extensions and implicit rules: whoever ignores them may read the opposite."""
    found = []
    if isinstance(node, dict):
        for key, value in node.items():
            path = f"{at}.{key}"
            if key == "modifierExtension" and value:
                urls = ", ".join(str(e.get("url")) for e in value if isinstance(e, dict))
                found.append(
                    Issue(path, "modifier-extension", f"not understood, so the whole is refused: {urls}")
                )
            elif key == "implicitRules":
                found.append(Issue(path, "implicit-rules", "implicit rules are not understood"))
            elif isinstance(value, (dict, list)):
                found.extend(refusals(value, path))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            found.extend(refusals(item, f"{at}[{index}]"))
    return found


def _rates(resource: Json, at: str) -> list[Issue]:

    return [Issue(under(at, i.path), i.rule, i.message) for i in rate_unit_issues(resource)]


MILLI = {"mg": "ug", "mg/d": "ug/d", "mg/mL": "ug/mL", "mg/h": "ug/h"}


def _micrograms(node: Any, at: str, notes: list[Issue]) -> Any:
    """mg written as ug: an exact decimal shift, noted (rule `mg-to-ug`); nothing else is converted."""
    if isinstance(node, list):
        return [_micrograms(item, f"{at}[{i}]", notes) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    code, value = node.get("code"), node.get("value")
    if node.get("system") == UCUM and code in MILLI and isinstance(value, (int, Decimal)):
        if node.get("unit", code) == code:
            micro = MILLI[code]
            shifted = Decimal(format(Decimal(value).scaleb(3), "f"))
            notes.append(Issue(at, "mg-to-ug", f"{value} {code} was read as {shifted} {micro}"))
            return node | {"value": shifted, "unit": micro, "code": micro}
    return {key: _micrograms(item, f"{at}.{key}", notes) for key, item in node.items()}


def _name(resource: Json, kind: str, source: str) -> None:
    """Give a foreign record our identifier: (source, its own business identifier or Type/id)."""
    identifiers = resource.setdefault("identifier", [])
    if not isinstance(identifiers, list):
        return
    ours = next((i for i in identifiers if isinstance(i, dict) and i.get("system") == sid(kind)), None)
    if ours is not None and identity.split_value(str(ours.get("value"))) is not None:
        return
    named = ours or next((i for i in identifiers if isinstance(i, dict) and i.get("value")), None)
    id = named["value"] if named and "value" in named else f"{resource['resourceType']}/{resource.get('id')}"
    if named is None and "id" not in resource:
        return
    if ours is not None:
        identifiers.remove(ours)
    identifiers.append({"system": sid(kind), "value": identity.business_value(source, str(id))})
