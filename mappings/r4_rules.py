"""R4's error-level invariants of the types that are checked, each once, under its R4 id.

Those over what is contained (dom-2 to dom-5, ref-1) are in `validate`; `NOT_CHECKED` says which are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .codes import CONDITION_CLINICAL, CONDITION_VERIFICATION, UCUM
from .fields import instant
from .paths import Json
from .r4_table import ABSOLUTE, RESOURCE_TYPES

Holds = Callable[[Json], bool]


def per_1(v: Json) -> bool:
    """A Period ends no earlier than it starts, as far as both are known (a year tells the year only)."""
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


def _counted(v: Json) -> bool:
    return _measured(v) and v.get("code", "1") == "1" and "." not in str(v.get("value", 1))


def _first_type(v: Json) -> str | None:
    entries = _entries(v)
    return (entries[0].get("resource") or {}).get("resourceType") if entries else None


def _cpb_16(v: Json) -> bool:
    return v.get("kind") != "requirements" or not {"implementation", "software"} & v.keys()


_LITERAL = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)(?:/[A-Za-z0-9\-.]+(?:/_history/.+)?|\?.*)$", re.S)


def types_of(reference: Json) -> Iterator[str]:
    """The resource types that a Reference names, in `type` and in a literal reference."""
    if isinstance(reference.get("type"), str):
        yield reference["type"]
    literal = reference.get("reference")
    if isinstance(literal, str) and not literal.startswith(("#", "urn:")):
        match = _LITERAL.match(literal)
        if match:
            yield match.group(1)


def _has(v: Json, name: str) -> bool:
    """Whether the choice element `name` is there, as one of its types."""
    return any(key.lstrip("_").startswith(name) for key in v)


def _coded(concept: Json, system: str) -> set[str]:
    """The codes of one system in a CodeableConcept."""
    return {c.get("code") for c in (concept or {}).get("coding", []) if c.get("system") == system}


def _app_3(v: Json) -> bool:
    return {"start", "end"} <= v.keys() or v.get("status") in ("proposed", "cancelled", "waitlist")


_ABSOLUTE = re.compile(ABSOLUTE)


def _reference_type(v: Json) -> bool:
    if "type" not in v:
        return True
    named = _LITERAL.match(v["reference"]) if "reference" in v and "?" not in v["reference"] else None
    if named and named.group(1) in RESOURCE_TYPES and named.group(1) != v["type"]:
        return bool(v["reference"].startswith(("#", "urn:")))
    return v["type"] in RESOURCE_TYPES or bool(_ABSOLUTE.match(v["type"]))


def _full_url(v: Json) -> bool:
    """R4 Bundle, "Resource URL & Uniqueness rules": who each resource is, and nobody else."""
    needed = v.get("type") in ("document", "message", "searchset", "history", "collection")
    for entry in _entries(v):
        resource, url = entry.get("resource"), entry.get("fullUrl")
        if url is None:
            if needed and resource is not None:
                return False
            continue
        if not _ABSOLUTE.match(url):
            return False
        named = _LITERAL.match(url) if url.startswith("http") and resource is not None else None
        if (
            named
            and named.group(1) in RESOURCE_TYPES
            and not url.endswith(f"/{resource.get('resourceType')}/{resource.get('id')}")
        ):
            return False
    return True


def _con_4(v: Json) -> bool:
    ended = {"resolved", "remission", "inactive"}
    return not _has(v, "abatement") or bool(_coded(v.get("clinicalStatus"), CONDITION_CLINICAL) & ended)


def _con_5(v: Json) -> bool:
    wrong = "entered-in-error" in _coded(v.get("verificationStatus"), CONDITION_VERIFICATION)
    return not wrong or "clinicalStatus" not in v


def _ctm_1(v: Json) -> bool:
    return "onBehalfOf" not in v or set(types_of(v.get("member", {}))) <= {"Practitioner"}


def _gol_1(v: Json) -> bool:
    return not _has(v, "detail") or "measure" in v


def _trd_1(v: Json) -> bool:
    return "data" not in v or not _has(v, "timing")


def _trd_3(v: Json) -> bool:
    type = v.get("type", "")
    if type == "named-event" and "name" not in v:
        return False
    if type == "periodic" and not _has(v, "timing"):
        return False
    return not type.startswith("data-") or "data" in v


QUANTITIES = ("Age", "Count", "Distance", "Duration", "Quantity", "SimpleQuantity")
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
    (("Count",), "cnt-3", _counted, "a whole number in UCUM 1"),
    (("Period",), "per-1", per_1, "the end lies before the start"),
    (
        ("Identifier",),
        "absolute-uri",
        lambda v: "system" not in v or bool(_ABSOLUTE.match(v["system"])),
        "a system is an absolute URI",
    ),
    (
        ("Reference",),
        "reference-type",
        _reference_type,
        "the type is one of R4's resource types, and that of the literal reference",
    ),
    (
        ("Reference",),
        "literal-reference",
        lambda v: not re.search(r"\s", v.get("reference", "")),
        "a literal reference is a URL",
    ),
    (("Bundle",), "full-url", _full_url, "a fullUrl is absolute and names its resource; a search has all"),
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
        lambda v: per_1({"start": v.get("authoredOn"), "end": v.get("lastModified")}),
        "modified before it was authored",
    ),
    (
        ("MedicationDispense",),
        "mdd-1",
        lambda v: per_1({"start": v.get("whenPrepared"), "end": v.get("whenHandedOver")}),
        "handed over before it was prepared",
    ),
    (("Appointment.participant",), "app-1", lambda v: bool({"type", "actor"} & v.keys()), "says who"),
    (("Appointment",), "app-2", lambda v: ("start" in v) == ("end" in v), "start and end belong together"),
    (("Appointment",), "app-3", _app_3, "only one proposed, cancelled or waiting has no times"),
    (
        ("Appointment",),
        "app-4",
        lambda v: "cancelationReason" not in v or v.get("status") in ("no-show", "cancelled"),
        "a reason for cancelling is of a cancelled appointment",
    ),
    (("CareTeam.participant",), "ctm-1", _ctm_1, "onBehalfOf is of a Practitioner"),
    (
        ("Condition.stage",),
        "con-1",
        lambda v: bool({"summary", "assessment"} & v.keys()),
        "needs a summary or assessment",
    ),
    (
        ("Condition.evidence",),
        "con-2",
        lambda v: bool({"code", "detail"} & v.keys()),
        "needs a code or detail",
    ),
    (("Condition",), "con-4", _con_4, "what has abated is inactive, resolved or in remission"),
    (("Condition",), "con-5", _con_5, "what was entered in error has no clinicalStatus"),
    (
        ("DataRequirement.codeFilter",),
        "drq-1",
        lambda v: ("path" in v) != ("searchParam" in v),
        "either a path or a searchParam",
    ),
    (
        ("DataRequirement.dateFilter",),
        "drq-2",
        lambda v: ("path" in v) != ("searchParam" in v),
        "either a path or a searchParam",
    ),
    (("Goal.target",), "gol-1", _gol_1, "a detail needs its measure"),
    (("TriggerDefinition",), "trd-1", _trd_1, "either data or a timing"),
    (
        ("TriggerDefinition",),
        "trd-2",
        lambda v: "condition" not in v or "data" in v,
        "a condition needs data",
    ),
    (("TriggerDefinition",), "trd-3", _trd_3, "name, timing or data as its type needs"),
]
"""(types, R4 id, whether it holds, words). Those over what is contained are in `validate._whole`."""


BEYOND = frozenset({"absolute-uri", "reference-type", "literal-reference", "full-url", "contained-id"})
"""Rules that are no invariants of R4 but follow from its text, and that HL7's validator checks too."""

NOT_CHECKED = {
    "sqty-1": "SimpleQuantity has no comparator in the element table",
    "txt-1": "no narrative is written, and none is shown",
    "txt-2": "no narrative is written, and none is shown",
}
"""Error-level invariants of the checked types that are not among the rules, and why."""
