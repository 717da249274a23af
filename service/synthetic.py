"""A made-up clinic for load tests: clinically coherent events, the same for the same seed.

Memory holds one state for each pump; events come out in the order in which they happened.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from mappings.event import Event, load_event
from mappings.exact_json import dumps

ZONE = ZoneInfo("America/Chicago")
BEGIN = date(2020, 1, 6)
SYSTEM = "http://hospital.invalid/mrn"
SOURCE = "clinic-synthetic"


@dataclass(frozen=True, slots=True)
class Model:
    """A pump model and its catheter: mL, and mL/cm (docs/clinical.md, "Devices")."""

    manufacturer: str
    model: str
    capacity: int
    catheter: str
    volume_per_length: str
    patient_bolus: bool


MODELS = (
    Model("Medtronic", "8637-20", 20, "8780", "0.0022", True),
    Model("Medtronic", "8637-40", 40, "8781", "0.0022", True),
    Model("Infusyn Therapeutics", "13827", 20, "Prometra catheter", "0.0026", False),
)
NURSES = ("Nurse A", "Nurse B", "Nurse C", "Nurse D")


def write_clinic(out: BinaryIO, pumps: int, years: int, seed: int) -> int:
    """Write the clinic as NDJSON; how many events."""
    number = 0
    for event in clinic(pumps, years, seed):
        out.write(dumps(event) + b"\n")
        number += 1
    return number


def clinic(pumps: int, years: int, seed: int) -> Iterator[Event]:
    """The events of `pumps` pumps over `years` years, in order of time."""
    histories = [_keyed(_history(n, years, random.Random(f"{seed}/{n}"))) for n in range(1, pumps + 1)]
    for _, _, event in heapq.merge(*histories, key=lambda item: item[:2]):
        yield load_event(event)


def _keyed(events: Iterator[tuple[datetime, Any]]) -> Iterator[tuple[datetime, str, Any]]:
    for at, event in events:
        yield at.astimezone(UTC), event.get("pump") or event.get("serial") or event.get("parent"), event


def _quantity(value: Decimal | int | str, unit: str) -> dict[str, Any]:
    return {"value": Decimal(value), "unit": unit}


class _Pump:
    """One pump while its history is told."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.number, self.rng = number, rng
        self.model = rng.choice(MODELS)
        self.serial = f"SYN{number:06}H"
        self.patient = {"system": SYSTEM, "value": f"SYN{number:06}"}
        self.strength = Decimal(500)
        self.program: dict[str, Any] | None = None
        self.dose = Decimal(rng.choice((100, 150, 200)))
        self.volume = Decimal(0)
        self.count = 0

    def event(self, type: str, at: datetime, **more: Any) -> tuple[datetime, dict[str, Any]]:
        self.count += 1
        made: dict[str, Any] = {"type": type, "source": SOURCE, "id": f"{self.serial}-{self.count}"}
        made["patient"] = self.patient
        if type != "device":
            made["pump"] = self.serial
        made |= {"occurred_at": at.isoformat(), "performer": {"name": self.rng.choice(NURSES)}}
        return at, made | more

    @property
    def flow(self) -> Decimal:
        """mL/d (docs/clinical.md, "Dosing")."""
        return self.dose / self.strength


def _visit(day: date, rng: random.Random) -> datetime:
    minute = rng.randrange(8 * 60, 16 * 60, 5)
    return datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=ZONE)


def _history(number: int, years: int, rng: random.Random) -> Iterator[tuple[datetime, Any]]:
    pump = _Pump(number, rng)
    day = BEGIN + timedelta(days=rng.randrange(120))
    last = BEGIN + timedelta(days=365 * years)
    at = _visit(day, rng)
    yield from _implant(pump, at)
    yield _refill(pump, at, expected=None)
    yield _programmed(pump, at, "start after implant")
    while True:
        low = Decimal(pump.model.capacity) / 10
        days_left = int((pump.volume - low) / pump.flow)
        gap = min(max(days_left - 7, 1), 150, rng.choice((2, 7, 14, 60, 90)))
        at, before = _visit(at.date() + timedelta(days=gap), rng), at
        if at.date() > last:
            return
        elapsed = Decimal((at.astimezone(UTC) - before.astimezone(UTC)) // timedelta(seconds=1)) / 86_400
        pump.volume = (pump.volume - elapsed * pump.flow).quantize(Decimal("0.0001"))
        refills = gap >= min(days_left - 7, 60)
        strength = pump.strength
        if refills:
            yield from _refill_visit(pump, at)
        if pump.strength == strength and rng.random() < 0.6:  # else it would cut the bridge short
            yield _titrated(pump, at)


def _implant(pump: _Pump, at: datetime) -> Iterator[tuple[datetime, Any]]:
    when = at - timedelta(minutes=30)
    model, on = pump.model, at.date().isoformat()
    shared = {"manufacturer": model.manufacturer, "device_status": "active", "implanted_on": on}
    yield pump.event(
        "device",
        when,
        kind="pump",
        model=model.model,
        serial=pump.serial,
        reservoir_capacity=_quantity(model.capacity, "mL"),
        **shared,
    )
    yield pump.event(
        "device",
        when,
        kind="catheter",
        model=model.catheter,
        lot=f"C{pump.rng.randrange(1000, 9999)}",
        implanted_length=_quantity(Decimal(pump.rng.randrange(600, 900)) / 10, "cm"),
        volume_per_length=_quantity(model.volume_per_length, "mL/cm"),
        tip_level=pump.rng.choice(("T4", "T6", "T8", "T10")),
        parent=pump.serial,
        **shared,
    )


def _refill(pump: _Pump, at: datetime, expected: Decimal | None, **more: Any) -> tuple[datetime, Any]:
    capacity = Decimal(pump.model.capacity)
    found: dict[str, Any] = {}
    if expected is not None:
        noise = Decimal(pump.rng.randrange(-5, 6)) / 10
        removed = max(Decimal("0.1"), expected.quantize(Decimal("0.1")) + noise)
        found = {
            "volume_expected": _quantity(expected.quantize(Decimal("0.001")), "mL"),
            "volume_removed": _quantity(removed, "mL"),
            "volume_discarded": _quantity(removed, "mL"),
            "needle_passes": pump.rng.choice((1, 1, 1, 2)),
        }
    pump.volume = capacity
    expires = (at.date() + timedelta(days=pump.rng.randrange(200, 700))).isoformat()
    lot = f"L{pump.rng.randrange(10_000, 99_999)}"
    return pump.event(
        "refill",
        at,
        verifier={"name": "Nurse V"},
        drug={
            "name": "baclofen",
            "concentration": _quantity(pump.strength, "ug/mL"),
            "lot": lot,
            "expires_on": expires,
        },
        volume_instilled=_quantity(f"{capacity}.0", "mL"),
        low_alarm_volume=_quantity(2, "mL"),
        **found,
        **more,
    )


def _refill_visit(pump: _Pump, at: datetime) -> Iterator[tuple[datetime, Any]]:
    expected = pump.volume
    if pump.strength == 500 and pump.dose >= 250:
        old, pump.strength = pump.strength, Decimal(2000)
        volume = Decimal("0.375")
        hours = (volume / (pump.dose / old) * 24).quantize(Decimal("0.01"))
        seconds = int(hours * 3600)
        ends = (at.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(ZONE).isoformat()
        bridge = {"volume": _quantity(volume, "mL"), "duration": _quantity(hours, "h"), "ends_at": ends}
        yield _refill(pump, at, expected, bridge=bridge)
        yield _programmed(pump, at, "new concentration", bridge=bridge)
        return
    yield _refill(pump, at, expected)


def _titrated(pump: _Pump, at: datetime) -> tuple[datetime, Any]:
    factor = Decimal(pump.rng.choice((105, 108, 110, 112, 115, 95, 90))) / 100
    pump.dose = min(max((pump.dose * factor).quantize(Decimal(1)), Decimal(60)), Decimal(900))
    return _programmed(
        pump, at, pump.rng.choice(("titration", "tone higher in the morning", "sleepy by day"))
    )


def _programmed(pump: _Pump, at: datetime, reason: str, **more: Any) -> tuple[datetime, Any]:
    before = {"before": pump.program} if pump.program is not None else {}
    pump.program = _program(pump)
    pump.dose = pump.program["daily_dose"]["value"]
    return pump.event("dose-change", at, **before, after=pump.program, reason=reason, **more)


def _program(pump: _Pump) -> dict[str, Any]:
    made: dict[str, Any] = {"mode": "simple", "daily_dose": _quantity(pump.dose, "ug/d")}
    if pump.rng.random() < 0.3:
        made = _flex(pump)
    made["concentration"] = _quantity(pump.strength, "ug/mL")
    if pump.model.patient_bolus and pump.rng.random() < 0.15:
        dose = (pump.dose / 20).quantize(Decimal(1))
        made["patient_bolus"] = {
            "dose": _quantity(dose, "ug"),
            "lockout": _quantity(4, "h"),
            "max_per_day": pump.rng.randrange(1, 5),
        }
    return made


def _flex(pump: _Pump) -> dict[str, Any]:
    """Three steps that tile the day; their doses add up to the daily dose exactly."""
    morning = pump.rng.choice((5, 6, 7))
    evening = pump.rng.choice((18, 20, 22))
    lengths = (evening - morning, 24 - evening, morning)
    per_hour = pump.dose / 24
    doses = [(per_hour * hours).quantize(Decimal("0.1")) for hours in lengths[:2]]
    doses.append(pump.dose - sum(doses))
    steps = [
        {
            "start": f"{start:02}:00",
            "duration": _quantity(hours, "h"),
            "dose": _quantity(dose, "ug"),
        }
        for start, hours, dose in zip((morning, evening, 0), lengths, doses, strict=True)
    ]
    return {"mode": "flex", "daily_dose": _quantity(pump.dose, "ug/d"), "steps": steps}
