"""Events of one made-up pump, by the day after its start: for the tests of ledger and checks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from mappings import load_event

Json = dict[str, Any]
SERIAL = "NGP000009H"
START = datetime(2025, 1, 1, 12, tzinfo=UTC)
PATIENT = {"system": "http://hospital.invalid/mrn", "value": "MRN009"}


def at(days: float) -> datetime:
    return START + timedelta(seconds=round(days * 86_400))


def quantity(value: str | Decimal, unit: str) -> Json:
    return {"value": Decimal(value), "unit": unit}


def envelope(type: str, id: str, when: datetime) -> Json:
    made: Json = {"type": type, "source": "clinic-a", "id": id, "patient": PATIENT, "pump": SERIAL}
    return made | {"occurred_at": when.strftime("%Y-%m-%dT%H:%M:%SZ")}


def refill(id: str, days: float, *, strength: str = "500", volume: str = "20", **more: Any) -> Json:
    drug = {"concentration": quantity(strength, "ug/mL"), "lot": "L1", "expires_on": "2030-01-01"}
    filled = {"drug": drug, "volume_instilled": quantity(volume, "mL")}
    return load_event(envelope("refill", id, at(days)) | filled | more)


def simple(dose: str, strength: str = "500") -> Json:
    return {
        "mode": "simple",
        "daily_dose": quantity(dose, "ug/d"),
        "concentration": quantity(strength, "ug/mL"),
    }


def change(id: str, days: float, after: Json, before: Json | None = None, **more: Any) -> Json:
    sides = ({"before": before} if before else {}) | {"after": after}
    return load_event(envelope("dose-change", id, at(days)) | sides | more)


def device(id: str, days: float, **more: Any) -> Json:
    made = envelope("device", id, at(days))
    del made["pump"]
    return load_event(made | more)


def told(type: str, id: str, days: float, **more: Any) -> Json:
    """An event of any other type about the pump."""
    return load_event(envelope(type, id, at(days)) | more)


def about_patient(type: str, id: str, days: float, **more: Any) -> Json:
    """An event that names no pump."""
    made = envelope(type, id, at(days))
    del made["pump"]
    return load_event(made | more)
