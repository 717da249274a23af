"""Every URL and code of the project, each written once.

Sources: HL7 FHIR R4 4.0.1 and THO for the HL7 systems; docs/fhir.md lists where each clinical code
was seen. A clinical concept without a verified standard code stays in the local code system.
"""

from __future__ import annotations

from typing import Any

from .rows import Codec, Path, Refused, Step, at

ITB = "https://w3id.org/itb-fhir"
LOCAL = f"{ITB}/CodeSystem/itb"
UCUM = "http://unitsofmeasure.org"
SNOMED = "http://snomed.info/sct"
NDC = "http://hl7.org/fhir/sid/ndc"
DOSE_RATE_TYPE = "http://terminology.hl7.org/CodeSystem/dose-rate-type"
PERFORM_FUNCTION = "http://terminology.hl7.org/CodeSystem/med-admin-perform-function"
DEVICE_ACTION = "http://hl7.org/fhir/device-action"
DATA_OPERATION = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
PROVENANCE_PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
DATA_ABSENT_REASON = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
UDI_ISSUERS = {
    "gs1": "http://hl7.org/fhir/NamingSystem/gs1",
    "hibcc": "http://hl7.org/fhir/NamingSystem/hibcc",
    "iccbba": "http://hl7.org/fhir/NamingSystem/iccbba-blood",
}

DISPLAY = {
    "itb-pump": "Implantable programmable intrathecal infusion pump",
    "itb-catheter": "Intrathecal catheter",
    "reservoir-capacity": "Reservoir capacity",
    "catheter-length-implanted": "Catheter length implanted",
    "catheter-volume-per-length": "Catheter volume per length",
    "catheter-volume": "Catheter volume",
    "catheter-tip-level": "Catheter tip level",
    "pump-reservoir": "Into implanted pump reservoir (not a dose to the patient)",
    "reservoir-fill": "Percutaneous reservoir fill",
    "pump-reprogramming": "Intrathecal pump interrogation and reprogramming",
    "simple-continuous": "Simple continuous infusion",
    "flex": "Flexible (stepped) infusion",
    "periodic-bolus": "Periodic bolus infusion",
    "minimum-rate": "Minimum rate infusion",
    "stopped": "Pump stopped",
    "bridge": "Bridge bolus",
}
"""The local codes and their displays."""


def local(code: str) -> dict[str, Any]:
    """A CodeableConcept of the local code system."""
    return {"coding": [{"system": LOCAL, "code": code, "display": DISPLAY[code]}], "text": DISPLAY[code]}


BACLOFEN = {
    "coding": [{"system": SNOMED, "code": "387342009", "display": "Baclofen"}],
    "text": "baclofen",
}
INTRATHECAL = {"coding": [{"system": SNOMED, "code": "72607000", "display": "Intrathecal route"}]}


def definition(name: str) -> str:
    """The canonical URL of one of our profiles or extensions."""
    return f"{ITB}/StructureDefinition/{name}"


def sid(kind: str) -> str:
    """The identifier system of one kind of our business identifiers."""
    return f"{ITB}/sid/{kind}"


def extension(name: str, value: str, *, under: str = "") -> Path:
    """The path of extension `name`'s value, e.g. `extension[url=…/itb-x].valueQuantity`."""
    return at(under, f"extension[url={definition(name)}]", value)


def part(name: str, inner: str, value: str) -> Path:
    """The path of a part of the complex extension `name`."""
    return at(f"extension[url={definition(name)}]", f"extension[url={inner}]", value)


def property_of(code: str, value: str) -> Path:
    """The path of a Device.property of local type `code`."""
    steps = (Step("property", ("type", local(code))), *at(value).steps)
    return Path(f"property[type={code}].{value}", steps)


def table(pairs: dict[str, str]) -> Codec:
    """A one-to-one code table: declared once, read both ways, checked at import."""
    back = {v: k for k, v in pairs.items()}
    if len(back) != len(pairs):
        raise AssertionError(f"code table is not one-to-one: {pairs}")

    def look(which: dict[str, str]) -> Any:
        def up(value: Any) -> str:
            if not isinstance(value, str) or value not in which:
                raise Refused("code", f"unknown code {value!r}; known: {', '.join(which)}")
            return which[value]

        return up

    return Codec(look(pairs), look(back))


MODES = {
    "simple": "simple-continuous",
    "flex": "flex",
    "periodic-bolus": "periodic-bolus",
    "minimum-rate": "minimum-rate",
    "stopped": "stopped",
}
"""Program modes of the event JSON and their local codes (docs/fhir.md, "Program")."""
