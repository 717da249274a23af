"""Rows that several event types share: who the record is, whose it is, and whether it still counts."""

from __future__ import annotations

from typing import Any

from . import identity
from .codes import DATA_ABSENT_REASON, OBSERVATION_CATEGORY, bare, definition, extension, sid, table
from .identity import business_value, split_value
from .paths import Json
from .rows import Always, Codec, Derived, Group, Refused, Row
from .values import PATIENT, PERSON

STATUS = table({"final": "completed", "entered-in-error": "entered-in-error"})
"""Status of a Procedure, MedicationAdministration or ClinicalImpression."""
OBSERVED = table({"final": "final", "entered-in-error": "entered-in-error"})
"""Status of an Observation."""
THERAPY = Always("category[0]", bare(OBSERVATION_CATEGORY, "therapy"), strict=False)
"""US Core asks for a category of every Observation; `therapy` is that of treatments, medicines among them."""
VERSION = Row("version", extension("itb-event-version", "valuePositiveInt"))
VERIFIER = Row("verifier", extension("itb-verifier", "valueReference"), PERSON)
"""The second person, where the resource has no element for one."""


def _no_requester(event: Json) -> Json:
    return {"extension": [{"url": DATA_ABSENT_REASON, "valueCode": "unknown"}]}


REQUESTER = Derived("requester", _no_requester)
"""US Core (us-core-21) asks who ordered; an event says who programmed or recorded, which may be another."""


def claim(profile: str) -> Always:
    """The claim of a profile of our guide (mappings/ig); a resource without it is read all the same."""
    return Always("meta.profile[0]", definition(profile), strict=False)


def key(kind: str, path: str = "") -> Group:
    """(source, id) ⇄ the business identifier of this kind; `path` where it is not in a list."""
    path = path or f"identifier[system={sid(kind)}].value"

    def read(found: Json) -> Json:
        pair = split_value(found[path]) if isinstance(found.get(path), str) else None
        if pair is None:
            raise Refused("identifier", f"needs an identifier of {sid(kind)} of the form source.id")
        del found[path]
        return {"source": pair[0], "id": pair[1]}

    return Group(
        ("source", "id"),
        (path,),
        Codec(lambda key: {path: business_value(key["source"], key["id"])}, read),
    )


def part_key(kind: str) -> Derived:
    """The business identifier of a resource that belongs to the event's primary one."""
    return Derived(
        f"identifier[system={sid(kind)}].value",
        lambda event: business_value(event["source"], event["id"]),
        strict=True,
    )


def part_reference(type: str, kind: str, event: Json) -> Json:
    """A Reference to the resource of `part_key`."""
    return identity.own(type, kind, business_value(event["source"], event["id"]))


def status_of(
    field: str, codes: dict[str, str], missing: str = "", path: str = "status", status: str = "status"
) -> Group:
    """The event's `field` as a resource's status, which gives way to `entered-in-error`.

    What it was before is then kept in an extension. `missing` is the status of an event without the
    field, `path` the resource's element, `status` where the event's own status stands.
    """
    before_error = f"extension[url={definition('itb-status-before-error')}].valueCode"
    named = table(codes)

    def write(found: Json) -> Json:
        said = named.to_fhir(found[field]) if field in found else missing
        if found.get(status) != "entered-in-error":
            return {path: said} if said else {}
        return {path: "entered-in-error"} | ({before_error: said} if said and field in found else {})

    def read(found: Json) -> Json:
        code = found.pop(path, None)
        made = {}
        if code == "entered-in-error":
            made, code = {status: code}, found.pop(before_error, None)
        if code is not None and code != missing:
            made[field] = named.from_fhir(code)
        return made

    return Group((status, field), (path, before_error), Codec(write, read))


SUBJECT = Row("patient", "subject", PATIENT, required=True)

MEMBER_SUBJECT = Row("event.patient", "subject", PATIENT, required=True)
MEMBER_OBSERVED = Row("event.status", "status", OBSERVED, required=True)


def event_status(event: Any, final: str) -> str:
    """The status of a resource that only follows the event: `final`, or `entered-in-error`."""
    return "entered-in-error" if event.get("status") == "entered-in-error" else final
