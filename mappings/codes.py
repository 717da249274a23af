"""Every URL and code of the project, each written once.

Sources: HL7 FHIR R4 4.0.1 and THO for the HL7 systems; docs/fhir.md lists where each clinical code
was seen. A clinical concept without a verified standard code stays in the local code system.
"""

from __future__ import annotations

from typing import Any

from .compiled import maker
from .paths import Path, Step, at
from .rows import Codec, Refused

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

LOINC = "http://loinc.org"
ABSENT_REASON = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CONDITION_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
CONDITION_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
CONDITION_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
US_CORE_DOCUMENT_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ADVERSE_EVENT_SEVERITY = "http://terminology.hl7.org/CodeSystem/adverse-event-severity"
FLAG_CATEGORY = "http://terminology.hl7.org/CodeSystem/flag-category"

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
    "prime": "Priming bolus",
    "evaluation": "Evaluation for intrathecal baclofen therapy",
    "multiple-sclerosis": "Multiple sclerosis",
    "screening-bolus": "Intrathecal baclofen screening bolus",
    "trial-response": "Response to intrathecal baclofen screening trial",
    "adverse-effects": "Adverse effects",
    "effect-duration": "Duration of effect of screening bolus",
    "recommended-daily-dose": "Recommended starting daily dose",
    "implant": "Implantation of intrathecal pump system",
    "revision": "Revision of intrathecal pump system",
    "replacement": "Replacement of intrathecal pump",
    "explant": "Explantation of intrathecal pump system",
    "pump-interrogation": "Intrathecal pump interrogation",
    "reservoir-volume-calculated": "Calculated reservoir volume",
    "low-reservoir-alarm-volume": "Low reservoir alarm volume",
    "low-reservoir-alarm-date": "Low reservoir alarm date",
    "pump-daily-dose": "Programmed daily dose",
    "drug-concentration": "Programmed drug concentration",
    "infusion-mode": "Infusion mode",
    "eri-months": "Months to elective replacement indicator",
    "eri-date": "Elective replacement date",
    "pump-clock": "Time of the pump's clock at interrogation",
    "patient-bolus-requested": "Patient boluses requested",
    "patient-bolus-delivered": "Patient boluses delivered",
    "patient-bolus-denied": "Patient boluses denied",
    "log-motor-stall": "Pump log: motor stall",
    "log-motor-stall-recovery": "Pump log: motor stall recovery",
    "log-stopped-pump": "Pump log: pump stopped for more than 48 h",
    "log-pump-reset": "Pump log: pump reset",
    "log-safe-state": "Pump log: safe state",
    "log-low-reservoir": "Pump log: low reservoir",
    "log-empty-reservoir": "Pump log: empty reservoir",
    "log-eri": "Pump log: elective replacement indicator",
    "log-eos": "Pump log: end of service",
    "log-critical-memory-error": "Pump log: critical memory error",
    "log-noncritical-memory-error": "Pump log: non-critical memory error",
    "log-telemetry-mode-stall": "Pump log: stall in telemetry mode",
    "log-therapy-stop": "Pump log: therapy stopped",
    "log-therapy-start": "Pump log: therapy started",
    "log-alarm-silenced": "Pump log: alarm silenced",
    "pump-alarm": "Intrathecal pump alarm",
    "alarm-low-reservoir": "Low reservoir alarm",
    "alarm-empty": "Empty reservoir alarm",
    "alarm-eri": "Elective replacement indicator alarm",
    "alarm-eos": "End of service alarm",
    "alarm-stall": "Motor stall alarm",
    "alarm-stopped": "Pump stopped alarm",
    "alarm-memory": "Critical memory error alarm",
    "alarm-memory-noncritical": "Non-critical memory error alarm",
    "withdrawal": "Intrathecal baclofen withdrawal",
    "overdose": "Intrathecal baclofen overdose",
    "infection": "Infection of intrathecal pump system",
    "csf-leak": "Cerebrospinal fluid leak",
    "catheter-problem": "Catheter kink, fracture, disconnection or migration",
    "pocket-fill": "Drug injected beside the pump at a refill",
    "seroma": "Seroma of the pump pocket",
    "pump-flip": "Pump turned over in its pocket",
    "erosion": "Erosion of the skin over the pump",
    "mri-effect": "Effect of magnetic resonance imaging on the pump",
    "itb-assessment": "Assessment of intrathecal baclofen therapy",
    "mas-0": "0",
    "mas-1": "1",
    "mas-1plus": "1+",
    "mas-2": "2",
    "mas-3": "3",
    "mas-4": "4",
    "gmfcs-level": "Gross Motor Function Classification System level",
    "gmfcs-1": "I",
    "gmfcs-2": "II",
    "gmfcs-3": "III",
    "gmfcs-4": "IV",
    "gmfcs-5": "V",
    "barry-albright-dystonia": "Barry-Albright Dystonia Scale, total",
    "goal-attainment": "Goal Attainment Scaling",
    "education": "Education on intrathecal baclofen therapy",
    "education-alarms": "Pump alarms",
    "education-withdrawal": "Signs of withdrawal",
    "education-overdose": "Signs of overdose",
    "education-refills": "Refill appointments",
    "education-emergency-card": "Emergency card",
    "education-mri": "Magnetic resonance imaging and magnets",
    "education-wound-care": "Wound care",
    "education-patient-bolus": "Patient boluses",
    "education-oral-baclofen": "Oral baclofen",
    "oral-baclofen": "Oral baclofen beside intrathecal therapy",
    "itb-event": "Canonical event of itb-fhir",
    "itb-record": "Intrathecal baclofen pump record",
    "pump-refill": "Refill of intrathecal baclofen pump",
    "pump-dose-change": "Dose change of intrathecal baclofen pump",
    "reservoir-volume-expected": "Reservoir volume expected before refill",
    "reservoir-volume-removed": "Reservoir volume removed at refill",
    "reservoir-volume-discarded": "Volume discarded at refill",
    "reservoir-volume-instilled": "Volume filled into pump reservoir (not a dose to the patient)",
    "drug-lot": "Lot of the drug in the pump",
    "drug-expiry": "Expiry date of the drug in the pump",
    "refill-by": "Refill by",
    "pump-daily-dose-before": "Daily dose before the change",
    "drug-concentration-before": "Drug concentration before the change",
    "infusion-mode-before": "Infusion mode before the change",
    "dose-change-percent": "Change of daily dose",
    "refill-due": "Refill due",
    "pump-visit": "Intrathecal pump visit",
    "refill-visit": "Visit for a pump refill",
    "titration-visit": "Visit for a dose change",
    "follow-up-visit": "Follow-up visit",
    "annual-review": "Annual review",
}
"""The local codes and their displays."""


def local(code: str) -> dict[str, Any]:
    """A CodeableConcept of the local code system."""
    return {"coding": [{"system": LOCAL, "code": code, "display": DISPLAY[code]}], "text": DISPLAY[code]}


def coded(system: str, code: str, display: str) -> dict[str, Any]:
    """A CodeableConcept of one coding."""
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def bare(system: str, code: str) -> dict[str, Any]:
    """A CodeableConcept of one coding of HL7's, whose display a reader knows."""
    return {"coding": [{"system": system, "code": code}]}


ORAL = {"coding": [{"system": SNOMED, "code": "26643006", "display": "Oral route"}]}
INDICATIONS = {
    "spasticity": coded(SNOMED, "221360009", "Spasticity"),
    "dystonia": coded(SNOMED, "15802004", "Dystonia"),
}
CAUSES = {
    "cerebral-palsy": coded(SNOMED, "128188000", "Cerebral palsy"),
    "traumatic-brain-injury": coded(SNOMED, "127295002", "Traumatic brain injury"),
    "spinal-cord-injury": coded(SNOMED, "90584004", "Spinal cord injury"),
    "stroke": coded(SNOMED, "230690007", "Cerebrovascular accident"),
    "multiple-sclerosis": local("multiple-sclerosis"),
}
BACLOFEN = {
    "coding": [{"system": SNOMED, "code": "387342009", "display": "Baclofen"}],
    "text": "baclofen",
}
INTRATHECAL = {"coding": [{"system": SNOMED, "code": "72607000", "display": "Intrathecal route"}]}
baclofen, intrathecal = maker(BACLOFEN), maker(INTRATHECAL)


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
    return _coded_item("property", "type", code, value)


def component(code: str, value: str) -> Path:
    """The path of an Observation.component of local `code`."""
    return _coded_item("component", "code", code, value)


def _coded_item(element: str, name: str, code: str, value: str) -> Path:
    steps = (Step(element, (name, local(code))), *at(value).steps)
    return Path(f"{element}[{name}={code}].{value}", steps)


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


def concepts(pairs: dict[str, Any], value_set: str = "") -> Codec:
    """A word of the event ⇄ its CodeableConcept, found by any of its codings; `value_set` lists them."""
    makers = {word: maker(concept) for word, concept in pairs.items()}
    back = {(c["system"], c["code"]): word for word, concept in pairs.items() for c in concept["coding"]}

    def to_fhir(word: str) -> Any:
        return makers[word]()

    def from_fhir(concept: Any) -> str:
        for coding in concept["coding"]:
            word = back.get((coding.get("system"), coding.get("code")))
            if word is not None:
                return word
        raise Refused("code", f"unknown concept; known: {', '.join(pairs)}")

    return Codec(to_fhir, from_fhir, value_set=value_set, concepts=tuple(pairs.values()))


def local_concepts(prefix: str, *words: str, value_set: str = "") -> Codec:
    """Words ⇄ CodeableConcepts of the local codes `prefix` + word."""
    return concepts({word: local(f"{prefix}{word}") for word in words}, value_set)


MODES = {
    "simple": "simple-continuous",
    "flex": "flex",
    "periodic-bolus": "periodic-bolus",
    "minimum-rate": "minimum-rate",
    "stopped": "stopped",
}
"""Program modes of the event JSON and their local codes (docs/fhir.md, "Program")."""
MODE = concepts({mode: local(code) for mode, code in MODES.items()}, "itb-program-mode")
