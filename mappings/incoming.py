"""Foreign FHIR made ready to read: refused where it must not be guessed, ours by identity, mg as ug."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from . import identity
from .codes import UCUM, sid
from .exact_json import dumps, reread
from .paths import Json
from .rates import rate_unit_issues
from .rows import Issue, MappingError
from .telling import Telling

Entry = tuple[str, str | None, Json]
"""(path of the resource in what was sent, its fullUrl, the resource)."""
Listed = list[Entry]


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
    why = f"found {types}; nothing here tells a pump event by a code or profile of ours (docs/fhir.md)"
    return Issue(listed[0][0] if listed else "Bundle", "not-ours", why)


def prepare(
    resource: Json, at: str, told: Telling | None, source: str, errors: list[Issue], notes: list[Issue]
) -> Json | None:
    """A copy ready to decode; None, with its errors, for a resource that must not be read.

    `told` is how it tells an event, if it does: it then gets a business identifier of ours.
    """
    found = [Issue(under(at, i.path), i.rule, i.message) for i in rate_unit_issues(resource)]
    keep_mg = told is not None and told.milligrams
    text = dumps(resource)
    if any(mark in text for mark in NOTICED):
        ready = _Copier(found, notes, keep_mg).copied(resource, at)
    else:
        ready = reread(text)  # without a look at every element
    errors.extend(found)
    if found:
        return None
    if told is not None:
        _name(ready, told.kind, source)
    return ready


NOTICED = (b'"modifierExtension":', b'"implicitRules":', b'"code":"mg')
"""What `_Copier` looks for, as it stands in JSON."""
MILLI = {"mg": "ug", "mg/d": "ug/d", "mg/mL": "ug/mL", "mg/h": "ug/h"}


class _Copier:
    """Copies a resource; notes what it converts, and collects what must be refused on the way.

    Refused: modifier extensions that are not known (none is) and implicit rules, as whoever ignores them
    may read the opposite. Converted: mg in UCUM, by an exact decimal shift (rule `mg-to-ug`).
    """

    def __init__(self, refused: list[Issue], notes: list[Issue], keep_mg: bool) -> None:
        self.refused, self.notes, self.keep_mg = refused, notes, keep_mg

    def copied(self, node: Any, at: str) -> Any:
        if isinstance(node, list):
            return [
                self.copied(item, f"{at}[{index}]") if isinstance(item, (dict, list)) else item
                for index, item in enumerate(node)
            ]
        if "modifierExtension" in node or "implicitRules" in node:
            self._refuse(node, at)
        if not self.keep_mg and node.get("system") == UCUM and str(node.get("code")) in MILLI:
            return self._micrograms(node, at)
        return {
            key: self.copied(value, f"{at}.{key}") if isinstance(value, (dict, list)) else value
            for key, value in node.items()
        }

    def _refuse(self, node: Json, at: str) -> None:
        if "implicitRules" in node:
            self.refused.append(
                Issue(f"{at}.implicitRules", "implicit-rules", "implicit rules are not understood")
            )
        for index, item in enumerate(node.get("modifierExtension") or []):
            url = item.get("url") if isinstance(item, dict) else item
            why = f"{url} is not understood, so the whole resource is refused"
            self.refused.append(Issue(f"{at}.modifierExtension[{index}]", "modifier-extension", why))

    def _micrograms(self, node: Json, at: str) -> Json:
        code, value = node["code"], node.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or node.get("unit", code) != code:
            return dict(node)
        micro, shifted = MILLI[code], Decimal(format(Decimal(value).scaleb(3), "f"))
        self.notes.append(Issue(at, "mg-to-ug", f"{value} {code} was read as {shifted} {micro}"))
        return node | {"value": shifted, "unit": micro, "code": micro}


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
