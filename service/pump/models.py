"""What a pump model can do and how long it serves: one row a model, None where nothing is known.

Sources and what nobody has checked yet: docs/clinical.md, "Devices". A model without a row gets no claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Model:
    """Volumes mL, flows mL/d, concentrations ug/mL; `references` begin a word of the recorded model."""

    name: str
    references: tuple[str, ...]
    tubing_volume: Decimal | None = None
    least_flow: Decimal | None = None
    greatest_flow: Decimal | None = None
    minimum_rate: Decimal | None = None
    """The least flow in the mode `minimum-rate`."""
    most_steps: int | None = None
    """Flex steps in one day."""
    concentrations: tuple[Decimal, Decimal] | None = None
    """Of baclofen, as the maker permits."""
    permits_patient_bolus: bool | None = None
    empty_before_mri: bool = False
    service_years: int | None = None
    """After which the pump stops by itself."""
    planning_years: int | None = None
    """From which on its replacement is to be planned."""
    indicator_days: int | None = None
    """From the elective replacement indicator (ERI) to the end of service (EOS)."""


MODELS = (
    Model(
        "SynchroMed II",
        ("8637",),
        tubing_volume=Decimal("0.199"),
        least_flow=Decimal("0.048"),
        greatest_flow=Decimal(24),
        minimum_rate=Decimal("0.006"),
        most_steps=13,
        service_years=7,
        planning_years=6,
        indicator_days=90,
    ),
    Model(
        "SynchroMed III",
        ("8667",),
        tubing_volume=Decimal("0.199"),
        least_flow=Decimal("0.048"),
        greatest_flow=Decimal(24),
        minimum_rate=Decimal("0.006"),
        most_steps=13,
    ),
    Model(
        "Prometra II",
        ("13827", "16827"),
        least_flow=Decimal(0),
        greatest_flow=Decimal("28.8"),
        minimum_rate=Decimal(0),
        concentrations=(Decimal(500), Decimal(2000)),
        permits_patient_bolus=False,
        empty_before_mri=True,
        planning_years=10,
    ),
)


def model_of(device: Mapping[str, Any] | None, models: tuple[Model, ...] = MODELS) -> Model | None:
    """The row of a device record, by a reference in its model text; None unless just one fits."""
    words = str((device or {}).get("model", "")).split()
    found = [m for m in models if any(word.startswith(m.references) for word in words)]
    return found[0] if len(found) == 1 else None
