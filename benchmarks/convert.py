"""Refill events to FHIR on one core: this project beside the pipeline one would write first.

Ours: bytes -> checked event -> transaction Bundle (refill and Provenance) -> strict R4 validation ->
bytes. The rival: json -> marshmallow -> a dict -> `fhir.resources` model_validate -> model_dump_json,
of the MedicationAdministration alone. Both read the same 1,000 distinct lines, in turns, several times.

    python benchmarks/convert.py [--rounds 5] [--at-least 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from fhir.resources.R4B.medicationadministration import MedicationAdministration
from marshmallow import Schema, fields

from mappings import codes, load_event
from mappings.exact_json import dumps, loads
from mappings.stream import Converter
from mappings.validate import validate

LINES = 1000


def line(n: int) -> bytes:
    """One refill event, as a clinic's system would send it."""
    event = {
        "type": "refill",
        "source": "clinic-a",
        "id": f"R-{n}",
        "patient": {"system": "http://hospital.invalid/mrn", "value": f"MRN{n % 50:03}"},
        "pump": f"NGP{n % 50:06}H",
        "occurred_at": f"2025-0{n % 9 + 1}-03T12:{n % 60:02}:00-06:00",
        "performer": {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893", "name": "Nurse A"},
        "verifier": {"name": "Nurse B"},
        "drug": {
            "name": "baclofen",
            "concentration": {"value": 2000, "unit": "ug/mL"},
            "lot": f"A{n}",
            "expires_on": "2027-09-30",
        },
        "volume_expected": {"value": 5.25, "unit": "mL"},
        "volume_removed": {"value": 6.5, "unit": "mL"},
        "volume_instilled": {"value": 20.5, "unit": "mL"},
        "low_alarm_volume": {"value": 2, "unit": "mL"},
        "alarm_on": "2025-10-21",
        "refill_by": "2025-09-28",
        "needle_passes": 1,
    }
    return json.dumps(event).encode()


class Quantity(Schema):
    value = fields.Decimal(required=True)
    unit = fields.String(required=True)


class Named(Schema):
    system = fields.String()
    value = fields.String()
    name = fields.String()


class Drug(Schema):
    name = fields.String()
    concentration = fields.Nested(Quantity, required=True)
    lot = fields.String(required=True)
    expires_on = fields.Date(required=True)


class Refill(Schema):
    type = fields.String(required=True)
    source = fields.String(required=True)
    id = fields.String(required=True)
    patient = fields.Nested(Named, required=True)
    pump = fields.String(required=True)
    occurred_at = fields.AwareDateTime(required=True)
    performer = fields.Nested(Named)
    verifier = fields.Nested(Named)
    drug = fields.Nested(Drug, required=True)
    volume_expected = fields.Nested(Quantity)
    volume_removed = fields.Nested(Quantity)
    volume_instilled = fields.Nested(Quantity, required=True)
    low_alarm_volume = fields.Nested(Quantity)
    alarm_on = fields.Date()
    refill_by = fields.Date()
    needle_passes = fields.Integer()


REFILL = Refill()


def ucum(quantity: Any) -> dict[str, Any]:
    unit = quantity["unit"]
    return {"value": quantity["value"], "unit": unit, "system": codes.UCUM, "code": unit}


def naive(raw: bytes) -> bytes:
    """The pipeline one would write first."""
    event: Any = REFILL.load(json.loads(raw, parse_float=Decimal))
    drug = event["drug"]
    detail = [
        {"url": url, "valueQuantity": ucum(event[name])}
        for name, url in (
            ("volume_expected", "volumeExpected"),
            ("volume_removed", "volumeRemoved"),
            ("volume_instilled", "volumeInstilled"),
            ("low_alarm_volume", "lowReservoirAlarmVolume"),
        )
    ]
    strength = drug["concentration"]["value"]
    resource = {
        "resourceType": "MedicationAdministration",
        "contained": [
            {
                "resourceType": "Medication",
                "id": "fill",
                "code": {"text": drug["name"]},
                "ingredient": [
                    {
                        "itemCodeableConcept": codes.BACLOFEN,
                        "strength": {
                            "numerator": ucum({"value": strength, "unit": "ug"}),
                            "denominator": ucum({"value": 1, "unit": "mL"}),
                        },
                    }
                ],
                "batch": {"lotNumber": drug["lot"], "expirationDate": drug["expires_on"].isoformat()},
            }
        ],
        "extension": [{"url": codes.definition("itb-refill-detail"), "extension": detail}],
        "identifier": [{"system": codes.sid("refill"), "value": f"{event['source']}.{event['id']}"}],
        "status": "completed",
        "medicationReference": {"reference": "#fill"},
        "subject": {"type": "Patient", "identifier": dict(event["patient"])},
        "effectiveDateTime": event["occurred_at"].isoformat(),
        "performer": [
            {"actor": {"type": "Practitioner", "display": event[role]["name"]}}
            for role in ("performer", "verifier")
        ],
        "device": [{"type": "Device", "identifier": {"system": codes.sid("device"), "value": event["pump"]}}],
        "dosage": {
            "route": codes.local("pump-reservoir"),
            "method": codes.local("reservoir-fill"),
            "dose": ucum(event["volume_instilled"]),
        },
    }
    return MedicationAdministration.model_validate(resource).model_dump_json().encode()


def ours() -> Callable[[bytes], bytes]:
    """This project's pipeline, with full validation."""
    converter = Converter()

    def convert(raw: bytes) -> bytes:
        bundle = converter.to_fhir(load_event(loads(raw)))
        issues = validate(bundle)
        assert not issues, issues
        return dumps(bundle)

    return convert


def rate(convert: Callable[[bytes], bytes], raw: list[bytes]) -> float:
    """Events a second."""
    started = time.perf_counter()
    for one in raw:
        convert(one)
    return len(raw) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=3.0, help="fail below this ratio of the medians")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    raw = [line(n) for n in range(LINES)]
    rivals = {"itb-fhir, fully validated": ours(), "json + marshmallow + fhir.resources": naive}
    for convert in rivals.values():
        rate(convert, raw[:100])
    exact = {
        name: b'"value":20.50,' in convert(raw[0].replace(b"20.5", b"20.50"))
        for name, convert in rivals.items()
    }
    runs: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(chosen.rounds):
        for name, convert in rivals.items():
            runs[name].append(rate(convert, raw))
    print(f"{'pipeline':40} {'min':>8} {'median':>8} {'max':>8} events/s   digits kept of 20.50")
    for name, found in runs.items():
        kept = "yes" if exact[name] else "no"
        print(
            f"{name:40} {min(found):8.0f} {statistics.median(found):8.0f} {max(found):8.0f}            {kept}"
        )
    first, second = (statistics.median(found) for found in runs.values())
    print(f"ratio of the medians: {first / second:.2f} (bar: {chosen.at_least})")
    raise SystemExit(first / second < chosen.at_least)


if __name__ == "__main__":
    main()
