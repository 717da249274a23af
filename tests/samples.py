"""One full event of each type, as a clinic sends it, in canonical form."""

from __future__ import annotations

from typing import Any

Json = Any
PATIENT = {"system": "http://hospital.invalid/mrn", "value": "MRN001"}
NURSE = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893", "name": "N. Nurse"}
SERIAL = "NGP000001H"


def q(value: Any, unit: str) -> Json:
    return {"value": value, "unit": unit}


PUMP = {
    "type": "device",
    "source": "clinic-a",
    "id": "D-1",
    "version": 2,
    "patient": PATIENT,
    "occurred_at": "2025-02-03T12:00:00-06:00",
    "performer": NURSE,
    "verifier": NURSE,
    "note": "right side",
    "kind": "pump",
    "manufacturer": "Medtronic",
    "model": "8637-20",
    "serial": SERIAL,
    "lot": "L1",
    "udi": {"di": "00643169123456", "carrier": "(01)00643169123456"},
    "device_status": "inactive",
    "implanted_on": "2025-02-03",
    "explanted_on": "2026-02-03",
    "reservoir_capacity": q(20, "mL"),
}
CATHETER = {
    "type": "device",
    "source": "clinic-a",
    "id": "D-2",
    "patient": PATIENT,
    "occurred_at": "2025-02-03T12:00:00-06:00",
    "kind": "catheter",
    "manufacturer": "Medtronic",
    "model": "8780",
    "lot": "LOT9",
    "implanted_length": q(72, "cm"),
    "volume_per_length": q(0.0022, "mL/cm"),
    "tip_level": "T6",
    "parent": SERIAL,
}
BRIDGE = {"volume": q(0.27, "mL"), "duration": q(11, "h"), "ends_at": "2025-05-05T21:00:00-05:00"}
REFILL = {
    "type": "refill",
    "source": "clinic-a",
    "id": "R-1",
    "patient": PATIENT,
    "pump": SERIAL,
    "occurred_at": "2025-05-05T10:00:00-05:00",
    "performer": NURSE,
    "verifier": NURSE,
    "note": "no difficulty",
    "drug": {
        "name": "baclofen",
        "concentration": q(2000, "ug/mL"),
        "ndc": "70257-562-55",
        "lot": "A1234",
        "expires_on": "2027-09-30",
        "compounded": False,
    },
    "volume_expected": q(3.1, "mL"),
    "volume_removed": q(3, "mL"),
    "volume_discarded": q(3, "mL"),
    "volume_instilled": q(20, "mL"),
    "low_alarm_volume": q(2, "mL"),
    "alarm_on": "2025-10-01",
    "refill_by": "2025-10-01",
    "needle_passes": 1,
    "started_at": "2025-05-05T09:30:00-05:00",
    "bridge": BRIDGE,
}
FLEX = {
    "mode": "flex",
    "daily_dose": q(100, "ug/d"),
    "concentration": q(500, "ug/mL"),
    "steps": [
        {
            "start": "00:00",
            "duration": q(24, "h"),
            "dose": q(100, "ug"),
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        }
    ],
    "patient_bolus": {
        "dose": q(10, "ug"),
        "duration": q(5, "min"),
        "lockout": q(4, "h"),
        "max_per_day": 3,
    },
}
PERIODIC = {
    "mode": "periodic-bolus",
    "daily_dose": q(110, "ug/d"),
    "concentration": q(500, "ug/mL"),
    "periodic_bolus": {"dose": q(27.5, "ug"), "duration": q(5, "min"), "interval": q(6, "h")},
}
DOSE_CHANGE = {
    "type": "dose-change",
    "source": "clinic-a",
    "id": "P-1",
    "patient": PATIENT,
    "pump": SERIAL,
    "occurred_at": "2025-05-05T10:05:00-05:00",
    "performer": NURSE,
    "verifier": NURSE,
    "note": "tolerated",
    "before": FLEX,
    "after": PERIODIC,
    "reason": "titration",
    "bridge": BRIDGE,
}
EVERY = {"pump": PUMP, "catheter": CATHETER, "refill": REFILL, "dose-change": DOSE_CHANGE}


def without(event: Json, *names: str) -> Json:
    """The event without some of its fields."""
    return {key: value for key, value in event.items() if key not in names}
