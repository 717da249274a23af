"""Events to FHIR and back on one core: this project beside the pipeline one would write first.

Three directions, each in turns with its rival on the same input in the same process, several rounds:

* refill: bytes -> checked event -> resources -> strict R4 validation -> bytes; the rival is json ->
  marshmallow -> a dict -> `fhir.resources` model_validate -> model_dump_json. Once with both making the
  MedicationAdministration alone, once with both making the whole transaction Bundle (Provenance, fullUrls).
* dose change: the same for the whole transaction (four to seven resources). The rivals of whole
  transactions get the mapping for nothing: the dict that they validate is there already.
* back: FHIR bytes -> validated -> events, beside model_validate alone of data that is parsed already.

    python benchmarks/convert.py [--rounds 5]

Exits 1 when a ratio of the medians is below its bar.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.medicationadministration import MedicationAdministration
from marshmallow import Schema, fields

from mappings import bundle, codes, load_event, read_fhir
from mappings.exact_json import dumps, loads
from mappings.stream import Converter
from mappings.validate import validate

LINES = 1000
PIECE = 50
Json = Any


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


class Program(Schema):
    mode = fields.String(required=True)
    daily_dose = fields.Nested(Quantity, required=True)
    concentration = fields.Nested(Quantity, required=True)


class DoseChange(Schema):
    type = fields.String(required=True)
    source = fields.String(required=True)
    id = fields.String(required=True)
    patient = fields.Nested(Named, required=True)
    pump = fields.String(required=True)
    occurred_at = fields.AwareDateTime(required=True)
    performer = fields.Nested(Named)
    before = fields.Nested(Program)
    after = fields.Nested(Program, required=True)
    reason = fields.String()


DOSE_CHANGE = DoseChange()


def dose_change_line(n: int) -> bytes:
    """The n-th titration of one pump: 10 ug/d more each time, from where the one before it ended."""

    def program(dose: int) -> Json:
        return {
            "mode": "simple",
            "daily_dose": {"value": dose, "unit": "ug/d"},
            "concentration": {"value": 2000, "unit": "ug/mL"},
        }

    event = {
        "type": "dose-change",
        "source": "clinic-a",
        "id": f"P-{n}",
        "patient": {"system": "http://hospital.invalid/mrn", "value": f"MRN{n // 20:03}"},
        "pump": f"NGP{n // 20:06}H",
        "occurred_at": f"20{10 + n % 20}-02-03T12:{n % 60:02}:00-06:00",
        "performer": {"name": "Dr Vega"},
        "after": program(110 + 10 * (n % 20)),
        "reason": "tone on waking",
    }
    if n % 20:
        event["before"] = program(100 + 10 * (n % 20))
    return json.dumps(event).encode()


def administration(raw: bytes) -> bytes:
    """This project: a refill's MedicationAdministration alone, validated."""
    made = bundle.encode(load_event(loads(raw)))[0]
    assert not validate(made)
    return dumps(made)


def transactions() -> Callable[[bytes], bytes]:
    """This project: an event's whole transaction Bundle, validated."""
    converter = Converter()

    def convert(raw: bytes) -> bytes:
        made = converter.to_fhir(load_event(loads(raw)))
        issues = validate(made)
        assert not issues, issues
        return dumps(made)

    return convert


def naive_transactions(schema: Schema, raw: list[bytes]) -> Callable[[bytes], bytes]:
    """The rival for whole transactions; the mapping itself costs it nothing."""
    convert = transactions()
    mapped = {one: json.loads(convert(one)) for one in raw}

    def naive_one(one: bytes) -> bytes:
        schema.load(json.loads(one, parse_float=Decimal))
        return Bundle.model_validate(mapped[one]).model_dump_json().encode()

    return naive_one


def back(raw: bytes) -> int:
    """This project: FHIR bytes, validated, to events."""
    content = loads(raw)
    assert not validate(content)
    return len(read_fhir(content).events)


@dataclass(frozen=True)
class Race:
    """Ours beside the rival's; each takes its own form of the same input."""

    name: str
    ours: Callable[[Any], Any]
    ours_input: list[Any]
    rival: Callable[[Any], Any]
    rival_input: list[Any]
    bar: float


def races() -> Iterable[Race]:
    refills = [line(n) for n in range(LINES)]
    changes = [dose_change_line(n) for n in range(LINES)]
    yield Race("refill, MedicationAdministration", administration, refills, naive, refills, 12)
    rival = naive_transactions(REFILL, refills)
    yield Race("refill, transaction", transactions(), refills, rival, refills, 12)
    rival = naive_transactions(DOSE_CHANGE, changes)
    yield Race("dose change, transaction", transactions(), changes, rival, changes, 15)
    for name, raw in (("refill", refills), ("dose change", changes)):
        convert = transactions()
        made = [convert(one) for one in raw]
        parsed = [json.loads(one) for one in made]
        yield Race(f"{name}, FHIR to event", back, made, Bundle.model_validate, parsed, 3)


def seconds(run: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Of this process's own time: another process on the core does not count."""
    gc.collect()
    started = time.process_time()
    for one in items:
        run(one)
    return time.process_time() - started


def raced(race: Race) -> tuple[float, float]:
    """Items a second of ours and of the rival, by turns of a few: a core that slows down slows both."""
    ours = rival = 0.0
    for start in range(0, LINES, PIECE):
        piece = slice(start, start + PIECE)
        ours += seconds(race.ours, race.ours_input[piece])
        rival += seconds(race.rival, race.rival_input[piece])
    return LINES / ours, LINES / rival


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    refill = line(0).replace(b"20.5", b"20.50")
    kept = {"ours": administration(refill), "json + marshmallow + fhir.resources": naive(refill)}
    for name, made in kept.items():
        print(f"digits of 20.50 kept by {name}: {'yes' if b'20.50' in made else 'no'}")
    print(f"{'medians of items/s':36} {'ours':>8} {'rival':>8} {'ratio':>7} {'bar':>5}")
    failed = False
    for race in races():
        seconds(race.ours, race.ours_input[:100])
        seconds(race.rival, race.rival_input[:100])
        runs = [raced(race) for _ in range(chosen.rounds)]
        ours, rival = (statistics.median(side) for side in zip(*runs, strict=True))
        ratio = statistics.median(ours / rival for ours, rival in runs)
        failed |= ratio < race.bar
        print(f"{race.name:36} {ours:8.0f} {rival:8.0f} {ratio:7.2f} {race.bar:5.0f}")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
