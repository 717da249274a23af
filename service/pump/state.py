"""The state of a pump at a moment, and the JSON it is served as."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

LABEL = "informational, not for dosing decisions"
WARNING, CRITICAL = "warning", "critical"


@dataclass(frozen=True, slots=True)
class OpenIssue:
    """An advisory finding: rule id (docs/clinical.md, "Rules"), warning or critical, words, and its sum."""

    rule: str
    severity: str
    message: str
    arithmetic: str


@dataclass(frozen=True, slots=True)
class RefillCheck:
    """What the last refill found in the reservoir, in mL; the ratio is delivered to programmed."""

    expected_residual: Decimal
    actual_residual: Decimal | None
    discrepancy: Decimal | None
    delivery_ratio: Decimal | None


@dataclass(frozen=True, slots=True)
class BridgeState:
    """The bridge that belongs to the running program: mL, mL/d, h, and ug of old drug."""

    volume: Decimal
    flow_rate: Decimal
    duration: Decimal
    drug: Decimal | None
    starts_at: datetime | None
    ends_at: datetime | None
    running: bool


@dataclass(frozen=True, slots=True)
class PumpState:
    """A pump at `at`. Volumes mL to 4 places, flow mL/d to 6, doses ug/d to 2; None is unknown or never."""

    pump: str | None
    patient: Any
    at: datetime
    device: Any = None
    catheter: Any = None
    in_use: bool = True
    path_volume: Decimal | None = None
    program: Any = None
    programmed_at: str | None = None
    flow_rate: Decimal | None = None
    daily_dose: Decimal | None = None
    worst_case_daily_dose: Decimal | None = None
    concentration: Decimal | None = None
    bridge: BridgeState | None = None
    last_refill_at: str | None = None
    last_refill: RefillCheck | None = None
    reservoir_volume: Decimal | None = None
    low_alarm_volume: Decimal | None = None
    alarm_at: datetime | None = None
    alarm_at_worst_case: datetime | None = None
    empty_at: datetime | None = None
    stability_on: date | None = None
    refill_by: date | None = None
    refill_by_decided_by: str | None = None
    least_daily_dose: Decimal | None = None
    greatest_daily_dose: Decimal | None = None
    eri_on: date | None = None
    eri_decided_by: str | None = None
    eos_on: date | None = None
    eos_decided_by: str | None = None
    plan_replacement_by: date | None = None
    open_issues: tuple[OpenIssue, ...] = ()
    derivation: dict[str, str] = field(default_factory=dict)


UNITS = {
    "path_volume": "mL",
    "flow_rate": "mL/d",
    "daily_dose": "ug/d",
    "worst_case_daily_dose": "ug/d",
    "least_daily_dose": "ug/d",
    "greatest_daily_dose": "ug/d",
    "concentration": "ug/mL",
    "reservoir_volume": "mL",
    "low_alarm_volume": "mL",
    "expected_residual": "mL",
    "actual_residual": "mL",
    "discrepancy": "mL",
    "delivery_ratio": "1",
    "volume": "mL",
    "duration": "h",
    "drug": "ug",
}


def to_json(state: PumpState) -> dict[str, Any]:
    """What GET /api/v1/pumps/{serial} answers; every field is there, null where it is unknown."""
    return {"label": LABEL, **_shown(asdict(state))}


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in fields.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, Decimal):
        return {"value": value, "unit": UNITS[name]}
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if name in ("bridge", "last_refill") and value is not None:
        return _shown(value)
    if name == "open_issues":
        return list(value)
    return value
