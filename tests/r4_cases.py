"""For every R4 invariant that is checked: a resource that breaks it, and the same put right."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

Json = Any
UCUM = "http://unitsofmeasure.org"
S = {"display": "somebody"}
MA = {
    "resourceType": "MedicationAdministration",
    "status": "completed",
    "medicationCodeableConcept": {"text": "baclofen"},
    "subject": S,
    "effectiveDateTime": "2025-01-01",
}
MR = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": {"text": "baclofen"},
    "subject": S,
}
OBS = {"resourceType": "Observation", "status": "final", "code": {"coding": [{"system": "s:x", "code": "a"}]}}
PATIENT = {"resourceType": "Patient", "active": True}
BUNDLE = {"resourceType": "Bundle", "type": "transaction"}
REQUEST = {"method": "POST", "url": "Patient"}
CAPABILITY = {
    "resourceType": "CapabilityStatement",
    "status": "active",
    "date": "2025-01-01",
    "kind": "instance",
    "fhirVersion": "4.0.1",
    "format": ["json"],
    "software": {"name": "x"},
    "implementation": {"description": "x"},
    "rest": [{"mode": "server"}],
}
CONDITION = {"resourceType": "Condition", "subject": S}
APPOINTMENT = {"resourceType": "Appointment", "status": "proposed", "participant": []}
DISPENSE = {
    "resourceType": "MedicationDispense",
    "status": "completed",
    "medicationCodeableConcept": {"text": "baclofen"},
}
TASK = {"resourceType": "Task", "status": "requested", "intent": "order"}
GOAL = {
    "resourceType": "Goal",
    "lifecycleStatus": "active",
    "description": {"text": "x"},
    "subject": S,
}


def _who(**more: Json) -> Json:
    return {"actor": S, "status": "accepted", **more}


def _ext(value: Json) -> Json:
    return PATIENT | {"extension": [value]}


def _value(name: str, value: Json) -> Json:
    return _ext({"url": "http://x.invalid/e", f"value{name}": value})


def _repeat(**repeat: Json) -> Json:
    return MR | {"dosageInstruction": [{"timing": {"repeat": repeat}}]}


def _entry(kind: str, *entries: Json, **more: Json) -> Json:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries), **more}


def _visit(**more: Json) -> Json:
    return APPOINTMENT | {"participant": [_who()]} | more


def _clinical(code: str) -> Json:
    return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": code}]}


def _certain(code: str) -> Json:
    return {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": code}]
    }


P = {"resource": PATIENT, "request": REQUEST}
URN = "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7"
MESSAGE = {
    "fullUrl": URN,
    "resource": {"resourceType": "MessageHeader", "eventUri": "urn:x:e", "source": {"endpoint": "urn:x:s"}},
}
COMPOSITION = {
    "fullUrl": URN,
    "resource": {
        "resourceType": "Composition",
        "status": "final",
        "type": {"text": "x"},
        "date": "2025-01-01",
        "author": [S],
        "title": "x",
    },
}
FOUND = {"fullUrl": "http://x.invalid/Patient/1", "resource": PATIENT | {"id": "1"}}
ID = {"system": "urn:x:s", "value": "1"}
CASES: dict[str, tuple[Json, Json]] = {
    "qty-3": (_value("Quantity", {"code": "mL"}), _value("Quantity", {"code": "mL", "system": UCUM})),
    "drt-1": (
        _value("Duration", {"value": 1, "code": "h", "system": "s:x"}),
        _value("Duration", {"value": 1, "code": "h", "system": UCUM}),
    ),
    "age-1": (
        _value("Age", {"value": -1, "code": "a", "system": UCUM}),
        _value("Age", {"value": 1, "code": "a", "system": UCUM}),
    ),
    "dis-1": (
        _value("Distance", {"value": 1, "code": "m", "system": "s:x"}),
        _value("Distance", {"value": 1, "code": "m", "system": UCUM}),
    ),
    "cnt-3": (
        _value("Count", {"value": 1, "code": "2", "system": UCUM}),
        _value("Count", {"value": 1, "code": "1", "system": UCUM}),
    ),
    "per-1": (
        _value("Period", {"start": "2025-02-02", "end": "2025-02-01"}),
        _value("Period", {"start": "2025-02-01", "end": "2025-02-02"}),
    ),
    "absolute-uri": (
        PATIENT | {"identifier": [{"system": "mrn", "value": "1"}]},
        PATIENT | {"identifier": [{"system": "urn:oid:2.16.840.1.113883.4.6", "value": "1"}]},
    ),
    "reference-type": (
        MA | {"subject": {"type": "Person1", "display": "x"}},
        MA | {"subject": {"type": "Patient", "display": "x"}},
    ),
    "literal-reference": (
        MA | {"subject": {"reference": "Patient/a b"}},
        MA | {"subject": {"reference": "Patient/a-b"}},
    ),
    "rat-1": (
        _value("Ratio", {"numerator": {"value": 1}}),
        _value("Ratio", {"numerator": {"value": 1}, "denominator": {"value": 1}}),
    ),
    "rng-2": (
        _value("Range", {"low": {"value": 2}, "high": {"value": 1}}),
        _value("Range", {"low": {"value": 1}, "high": {"value": 2}}),
    ),
    "att-1": (
        _value("Attachment", {"data": "AAAA"}),
        _value("Attachment", {"data": "AAAA", "contentType": "text/plain"}),
    ),
    "cpt-2": (
        PATIENT | {"telecom": [{"value": "1"}]},
        PATIENT | {"telecom": [{"value": "1", "system": "phone"}]},
    ),
    "exp-1": (
        _value("Expression", {"language": "text/fhirpath"}),
        _value("Expression", {"language": "text/fhirpath", "expression": "1"}),
    ),
    "ext-1": (_ext({"url": "http://x.invalid/e"}), _value("String", "x")),
    "tim-1": (_repeat(duration=1), _repeat(duration=1, durationUnit="h")),
    "tim-2": (_repeat(period=1), _repeat(period=1, periodUnit="h")),
    "tim-4": (_repeat(duration=-1, durationUnit="h"), _repeat(duration=0, durationUnit="h")),
    "tim-5": (_repeat(period=-1, periodUnit="h"), _repeat(period=0, periodUnit="h")),
    "tim-6": (_repeat(periodMax=2), _repeat(periodMax=2, period=1, periodUnit="h")),
    "tim-7": (_repeat(durationMax=2), _repeat(durationMax=2, duration=1, durationUnit="h")),
    "tim-8": (_repeat(countMax=2), _repeat(countMax=2, count=1)),
    "tim-9": (_repeat(offset=10, when=["C"]), _repeat(offset=10, when=["AC"])),
    "tim-10": (_repeat(timeOfDay=["06:00:00"], when=["AC"]), _repeat(timeOfDay=["06:00:00"])),
    "mad-1": (MA | {"dosage": {"text": "x"}}, MA | {"dosage": {"text": "x", "dose": {"value": 1}}}),
    "obs-6": (
        OBS | {"valueBoolean": True, "dataAbsentReason": {"text": "x"}},
        OBS | {"dataAbsentReason": {"text": "x"}},
    ),
    "obs-7": (
        OBS | {"valueBoolean": True, "component": [{"code": OBS["code"], "valueBoolean": True}]},
        OBS | {"valueBoolean": True, "component": [{"code": {"text": "b"}, "valueBoolean": True}]},
    ),
    "obs-3": (
        OBS | {"referenceRange": [{"appliesTo": [{"text": "x"}]}]},
        OBS | {"referenceRange": [{"text": "x"}]},
    ),
    "pat-1": (
        PATIENT | {"contact": [{"gender": "female"}]},
        PATIENT | {"contact": [{"name": {"text": "x"}}]},
    ),
    "bdl-1": (BUNDLE | {"total": 1}, {"resourceType": "Bundle", "type": "searchset", "total": 1}),
    "bdl-2": (
        _entry("collection", FOUND | {"search": {"mode": "match"}}),
        _entry("searchset", FOUND | {"search": {"mode": "match"}}),
    ),
    "bdl-3": (_entry("transaction", {"resource": PATIENT}), _entry("transaction", P)),
    "bdl-4": (
        _entry("transaction-response", {"resource": PATIENT}),
        _entry("transaction-response", {"response": {"status": "200"}}),
    ),
    "bdl-5": (
        _entry("collection", {"fullUrl": "urn:x:1"}),
        _entry("collection", {"fullUrl": "urn:x:1", "resource": PATIENT}),
    ),
    "bdl-7": (
        _entry("collection", *[{"fullUrl": "urn:x:1", "resource": PATIENT}] * 2),
        _entry("collection", *[{"fullUrl": f"urn:x:{n}", "resource": PATIENT} for n in (1, 2)]),
    ),
    "bdl-8": (
        _entry("collection", {"fullUrl": "http://x.invalid/Patient/1/_history/2", "resource": PATIENT}),
        _entry("collection", FOUND),
    ),
    "full-url": (_entry("collection", {"resource": PATIENT}), _entry("collection", FOUND)),
    "bdl-9": (
        _entry("document", COMPOSITION, timestamp="2025-01-01T00:00:00Z"),
        _entry("document", COMPOSITION, timestamp="2025-01-01T00:00:00Z", identifier=ID),
    ),
    "bdl-10": (
        _entry("document", COMPOSITION, identifier=ID),
        _entry("document", COMPOSITION, identifier=ID, timestamp="2025-01-01T00:00:00Z"),
    ),
    "bdl-11": (
        _entry("document", {"resource": PATIENT}, identifier=ID, timestamp="2025-01-01T00:00:00Z"),
        _entry("document", COMPOSITION, identifier=ID, timestamp="2025-01-01T00:00:00Z"),
    ),
    "bdl-12": (_entry("message", {"resource": PATIENT}), _entry("message", MESSAGE)),
    "cpb-1": ({k: v for k, v in CAPABILITY.items() if k != "rest"}, CAPABILITY),
    "cpb-2": (
        CAPABILITY | {"kind": "requirements", "software": None, "implementation": None},
        CAPABILITY,
    ),
    "cpb-3": (
        CAPABILITY
        | {
            "kind": "requirements",
            "description": "x",
            "software": None,
            "implementation": None,
            "messaging": [{"endpoint": [{"protocol": {"code": "x"}, "address": "urn:x:1"}]}],
        },
        CAPABILITY | {"messaging": [{"endpoint": [{"protocol": {"code": "x"}, "address": "urn:x:1"}]}]},
    ),
    "cpb-7": (
        CAPABILITY | {"document": [{"mode": "producer", "profile": "urn:x:1"}] * 2},
        CAPABILITY | {"document": [{"mode": "producer", "profile": f"urn:x:{n}"} for n in (1, 2)]},
    ),
    "cpb-9": (
        CAPABILITY | {"rest": [{"mode": "server", "resource": [{"type": "Patient"}] * 2}]},
        CAPABILITY | {"rest": [{"mode": "server", "resource": [{"type": "Patient"}]}]},
    ),
    "cpb-12": (
        CAPABILITY
        | {
            "rest": [
                {
                    "mode": "server",
                    "resource": [{"type": "Patient", "searchParam": [{"name": "a", "type": "token"}] * 2}],
                }
            ]
        },
        CAPABILITY
        | {
            "rest": [
                {
                    "mode": "server",
                    "resource": [{"type": "Patient", "searchParam": [{"name": "a", "type": "token"}]}],
                }
            ]
        },
    ),
    "cpb-14": (CAPABILITY | {"implementation": None}, CAPABILITY),
    "cpb-15": (
        CAPABILITY | {"kind": "capability", "software": None, "implementation": None, "description": "x"},
        CAPABILITY | {"kind": "capability", "implementation": None},
    ),
    "cpb-16": (
        CAPABILITY | {"kind": "requirements", "implementation": None},
        CAPABILITY | {"kind": "requirements", "implementation": None, "software": None, "description": "x"},
    ),
    "inv-1": (
        TASK | {"authoredOn": "2025-01-02T00:00:00Z", "lastModified": "2025-01-01T00:00:00Z"},
        TASK | {"authoredOn": "2025-01-01T00:00:00Z", "lastModified": "2025-01-02T00:00:00Z"},
    ),
    "mdd-1": (
        DISPENSE | {"whenPrepared": "2025-01-02T00:00:00Z", "whenHandedOver": "2025-01-01T00:00:00Z"},
        DISPENSE | {"whenPrepared": "2025-01-01T00:00:00Z", "whenHandedOver": "2025-01-02T00:00:00Z"},
    ),
    "app-1": (_visit(participant=[{"status": "accepted"}]), _visit()),
    "app-2": (
        _visit(start="2025-01-01T00:00:00Z"),
        _visit(start="2025-01-01T00:00:00Z", end="2025-01-01T01:00:00Z"),
    ),
    "app-3": (
        _visit(status="booked"),
        _visit(status="booked", start="2025-01-01T00:00:00Z", end="2025-01-01T01:00:00Z"),
    ),
    "app-4": (
        _visit(cancelationReason={"text": "x"}),
        _visit(cancelationReason={"text": "x"}, status="cancelled"),
    ),
    "ctm-1": (
        {
            "resourceType": "CareTeam",
            "participant": [{"member": {"reference": "Patient/1"}, "onBehalfOf": {"display": "x"}}],
        },
        {
            "resourceType": "CareTeam",
            "participant": [{"member": {"reference": "Practitioner/1"}, "onBehalfOf": {"display": "x"}}],
        },
    ),
    "con-1": (
        CONDITION | {"stage": [{"type": {"text": "x"}}]},
        CONDITION | {"stage": [{"summary": {"text": "x"}}]},
    ),
    "con-2": (
        CONDITION | {"evidence": [{"extension": [{"url": "urn:x:1", "valueString": "x"}]}]},
        CONDITION | {"evidence": [{"code": [{"text": "x"}]}]},
    ),
    "con-4": (
        CONDITION | {"abatementDateTime": "2025-01-01", "clinicalStatus": _clinical("active")},
        CONDITION | {"abatementDateTime": "2025-01-01", "clinicalStatus": _clinical("resolved")},
    ),
    "con-5": (
        CONDITION
        | {"verificationStatus": _certain("entered-in-error"), "clinicalStatus": _clinical("active")},
        CONDITION | {"verificationStatus": _certain("entered-in-error")},
    ),
    "drq-1": (
        _value("DataRequirement", {"type": "Patient", "codeFilter": [{"valueSet": "urn:x:1"}]}),
        _value(
            "DataRequirement", {"type": "Patient", "codeFilter": [{"path": "code", "valueSet": "urn:x:1"}]}
        ),
    ),
    "drq-2": (
        _value("DataRequirement", {"type": "Patient", "dateFilter": [{"valueDateTime": "2025"}]}),
        _value(
            "DataRequirement", {"type": "Patient", "dateFilter": [{"path": "x", "valueDateTime": "2025"}]}
        ),
    ),
    "gol-1": (
        GOAL | {"target": [{"detailString": "x"}]},
        GOAL | {"target": [{"detailString": "x", "measure": {"text": "x"}}]},
    ),
    "trd-1": (
        _value(
            "TriggerDefinition", {"type": "periodic", "timingDate": "2025", "data": [{"type": "Patient"}]}
        ),
        _value("TriggerDefinition", {"type": "periodic", "timingDate": "2025"}),
    ),
    "trd-2": (
        _value(
            "TriggerDefinition",
            {"type": "named-event", "name": "x", "condition": {"language": "text/cql", "expression": "1"}},
        ),
        _value(
            "TriggerDefinition",
            {
                "type": "named-event",
                "name": "x",
                "data": [{"type": "Patient"}],
                "condition": {"language": "text/cql", "expression": "1"},
            },
        ),
    ),
    "trd-3": (
        _value("TriggerDefinition", {"type": "named-event"}),
        _value("TriggerDefinition", {"type": "named-event", "name": "x"}),
    ),
    "dom-2": (
        MR
        | {
            "medicationReference": {"reference": "#a"},
            "contained": [
                {
                    "resourceType": "Medication",
                    "id": "a",
                    "contained": [{"resourceType": "Patient", "id": "b"}],
                }
            ],
        },
        {k: v for k, v in MR.items() if k != "medicationCodeableConcept"}
        | {
            "medicationReference": {"reference": "#a"},
            "contained": [{"resourceType": "Medication", "id": "a"}],
        },
    ),
    "dom-3": (
        MR | {"contained": [{"resourceType": "Patient", "id": "a"}]},
        MR | {"subject": {"reference": "#a"}, "contained": [{"resourceType": "Patient", "id": "a"}]},
    ),
    "dom-4": (
        MR
        | {
            "subject": {"reference": "#a"},
            "contained": [{"resourceType": "Patient", "id": "a", "meta": {"versionId": "1"}}],
        },
        MR
        | {
            "subject": {"reference": "#a"},
            "contained": [{"resourceType": "Patient", "id": "a", "meta": {"tag": [{"code": "x"}]}}],
        },
    ),
    "dom-5": (
        MR
        | {
            "subject": {"reference": "#a"},
            "contained": [{"resourceType": "Patient", "id": "a", "meta": {"security": [{"code": "x"}]}}],
        },
        MR | {"subject": {"reference": "#a"}, "contained": [{"resourceType": "Patient", "id": "a"}]},
    ),
    "contained-id": (
        MR | {"subject": {"reference": "#a"}, "contained": [{"resourceType": "Patient", "id": "a"}] * 2},
        MR | {"subject": {"reference": "#a"}, "contained": [{"resourceType": "Patient", "id": "a"}]},
    ),
    "ref-1": (
        MR | {"subject": {"reference": "#b"}, "contained": [{"resourceType": "Patient", "id": "a"}]},
        MR | {"subject": {"reference": "#a"}, "contained": [{"resourceType": "Patient", "id": "a"}]},
    ),
}
"""Invariant -> (broken, put right). An element that is None is left out."""
SHAPES: dict[str, tuple[Json, str, str]] = {
    "unknown element": (MA | {"colour": "red"}, "MedicationAdministration.colour", "unknown-element"),
    "wrong type": (MA | {"status": 1}, "MedicationAdministration.status", "type"),
    "number as text": (_value("Decimal", "1"), "Patient.extension[0].valueDecimal", "type"),
    "missing": (
        {k: v for k, v in MA.items() if k != "status"},
        "MedicationAdministration.status",
        "cardinality",
    ),
    "missing choice": (
        {k: v for k, v in MA.items() if k != "effectiveDateTime"},
        "MedicationAdministration.effective[x]",
        "cardinality",
    ),
    "two of a choice": (
        MA | {"medicationReference": S},
        "MedicationAdministration.medication[x]",
        "choice",
    ),
    "one for a list": (MA | {"note": {"text": "x"}}, "MedicationAdministration.note", "structure"),
    "list for one": (MA | {"subject": [S]}, "MedicationAdministration.subject", "structure"),
    "null": (MA | {"note": [None]}, "MedicationAdministration.note[0]", "structure"),
    "empty list": (MA | {"note": []}, "MedicationAdministration.note", "ele-1"),
    "empty object": (MA | {"dosage": {}}, "MedicationAdministration.dosage", "ele-1"),
    "empty text": (MA | {"note": [{"text": ""}]}, "MedicationAdministration.note[0].text", "format"),
    "required binding": (MA | {"status": "done"}, "MedicationAdministration.status", "required-binding"),
    "required binding of a concept": (
        CONDITION | {"clinicalStatus": {"text": "active"}},
        "Condition.clinicalStatus",
        "required-binding",
    ),
    "required binding of a concept, other system": (
        CONDITION | {"clinicalStatus": {"coding": [{"system": "http://x.invalid/codes", "code": "active"}]}},
        "Condition.clinicalStatus",
        "required-binding",
    ),
    "count with a fraction": (
        _value("Count", {"value": Decimal("1.0"), "code": "1", "system": UCUM}),
        "Patient.extension[0].valueCount",
        "cnt-3",
    ),
    "reference target": (
        MA | {"subject": {"reference": "Device/1"}},
        "MedicationAdministration.subject",
        "reference-target",
    ),
    "id": (MA | {"id": "a b"}, "MedicationAdministration.id", "format"),
    "date": (_value("Date", "2025-02-30"), "Patient.extension[0].valueDate", "format"),
    "time without zone": (
        MA | {"effectiveDateTime": "2025-01-01T00:00:00"},
        "MedicationAdministration.effectiveDateTime",
        "format",
    ),
    "instant": (_value("Instant", "2025-01-01"), "Patient.extension[0].valueInstant", "format"),
    "uri": (_value("Uri", "a b"), "Patient.extension[0].valueUri", "format"),
    "positive": (_value("PositiveInt", 0), "Patient.extension[0].valuePositiveInt", "type"),
    "sibling of nothing": (
        MA | {"_colour": {"id": "x"}},
        "MedicationAdministration._colour",
        "unknown-element",
    ),
    "sibling with a value": (
        MA | {"_status": {"value": "x"}},
        "MedicationAdministration._status",
        "structure",
    ),
    "no type at all": ({"status": "x"}, "None.resourceType", "resource-type"),
    "oid in a uri": (
        PATIENT | {"identifier": [{"system": "urn:oid:2.16.840.01", "value": "1"}]},
        "Patient.identifier[0].system",
        "format",
    ),
    "uuid in capitals": (
        PATIENT | {"meta": {"source": "urn:uuid:53FEFA32-FCBB-4FF8-8A92-55EE120877B7"}},
        "Patient.meta.source",
        "format",
    ),
    "relative canonical": (
        PATIENT | {"meta": {"profile": ["StructureDefinition/x"]}},
        "Patient.meta.profile[0]",
        "format",
    ),
    "type beside another literal": (
        MA | {"subject": {"reference": "Group/1", "type": "Patient"}},
        "MedicationAdministration.subject",
        "reference-type",
    ),
    "pointing to nothing, nothing contained": (
        MA | {"subject": {"reference": "#nowhere"}},
        "MedicationAdministration",
        "ref-1",
    ),
    "relative full url": (_entry("collection", FOUND | {"fullUrl": "Patient/1"}), "Bundle", "full-url"),
    "full url of another": (
        _entry("collection", FOUND | {"fullUrl": "http://x.invalid/Patient/2"}),
        "Bundle",
        "full-url",
    ),
    "unknown type": ({"resourceType": "Pump"}, "Pump.resourceType", "resource-type"),
}
"""Kind of defect -> (resource, path, rule)."""
