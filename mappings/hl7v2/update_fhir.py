"""Updates as FHIR and back: a kit is a MedicationDispense, a report a DocumentReference, a merge a Patient.

A Patient is shown in a collection, which no server takes for an order to write: patients are the EHR's.
"""

from __future__ import annotations

from mappings.codes import BACLOFEN, NDC, sid
from mappings.identity import conditional, resource_identity, urn
from mappings.identity import patient as patient_reference
from mappings.paths import Json
from mappings.rows import Always, Issue, Mapping, MappingError, Row
from mappings.shared_rows import SUBJECT, key
from mappings.values import ML, PERSON, UG_PER_ML

from .updates import Update, load_update

KIT = "contained[id=kit]"
DISPENSE = Mapping(
    Always("resourceType", "MedicationDispense"),
    Always(f"{KIT}.resourceType", "Medication"),
    Row("drug.name", f"{KIT}.code.text"),
    Row("drug.ndc", f"{KIT}.code.coding[system={NDC}].code"),
    Always(f"{KIT}.ingredient[0].itemCodeableConcept", BACLOFEN),
    Row("drug.concentration", f"{KIT}.ingredient[0].strength", UG_PER_ML),
    Row("drug.lot", f"{KIT}.batch.lotNumber"),
    Row("drug.expires_on", f"{KIT}.batch.expirationDate"),
    key("dispense"),
    Always("status", "completed"),
    Always("medicationReference.reference", "#kit"),
    SUBJECT,
    Row("performer", "performer[0].actor", PERSON),
    Row("quantity", "quantity", ML, required=True),
    Row("occurred_at", "whenHandedOver", required=True),
)
REPORT = Mapping(
    Always("resourceType", "DocumentReference"),
    key("report"),
    Always("status", "current"),
    SUBJECT,
    Row("occurred_at", "date", required=True),
    Row("title", "description", required=True),
    Row("content_type", "content[0].attachment.contentType", required=True),
    Row("data", "content[0].attachment.data", required=True),
)
TOLD = {"MedicationDispense": ("dispense", DISPENSE), "DocumentReference": ("report", REPORT)}
MAPPED = dict(TOLD.values())
LINKS = {"patient-merge": "replaced-by", "patient-link": "seealso"}


def bundle_of(update: Update) -> Json:
    """The Bundle of an update: a transaction, or for a patient a collection."""
    kind = update["kind"]
    if kind not in MAPPED:
        return {"resourceType": "Bundle", "type": "collection", "entry": [_patient(update)]}
    resource = MAPPED[kind].encode(update)
    system, value = resource_identity(resource)
    condition = conditional("", system, value)[1:]
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": condition}
    entry = {"fullUrl": urn(system, value), "resource": resource, "request": request}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}


def _patient(update: Update) -> Json:
    """The number that was merged or linked, and where it leads; of a mere change the number alone."""
    of: Json = update.get("other") or update["patient"]
    resource: Json = {"resourceType": "Patient", "identifier": [dict(of)]}
    if update["kind"] == "patient-merge":
        resource["active"] = False
    if "other" in update:
        target = patient_reference(update["patient"])
        resource["link"] = [{"other": target, "type": LINKS[update["kind"]]}]
    return {"fullUrl": urn(of["system"], of["value"]), "resource": resource}


def updates_of(content: Json) -> list[Update]:
    """The updates that a resource or Bundle of ours tells; raises `MappingError` for one that is damaged."""
    found = []
    for resource in _resources(content):
        told = TOLD.get(str(resource.get("resourceType")))
        if told is None or not _named(resource, told[0]):
            continue
        kind, rows = told
        try:
            update, _ = rows.decode(resource)
            found.append(load_update({"kind": kind, **update}))
        except (AttributeError, LookupError, TypeError) as error:
            why = f"is not shaped as FHIR R4 has it ({type(error).__name__})"
            raise MappingError([Issue(str(resource["resourceType"]), "shape", why)]) from None
    return found


def still_told(update: Update, content: Json) -> bool:
    """Whether the Bundle still says of a patient what the update says."""
    wanted = _patient(update)["resource"]
    return any(
        all(resource.get(name) == value for name, value in wanted.items()) for resource in _resources(content)
    )


def _resources(content: Json) -> list[Json]:
    if not isinstance(content, dict):
        return []
    entries = content.get("entry", []) if content.get("resourceType") == "Bundle" else [{"resource": content}]
    found = [e.get("resource") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return [resource for resource in found if isinstance(resource, dict)]


def _named(resource: Json, kind: str) -> bool:
    listed = resource.get("identifier")
    return isinstance(listed, list) and any(
        isinstance(one, dict) and one.get("system") == sid(kind) for one in listed
    )
