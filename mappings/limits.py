"""The hard limits: beyond them an input is refused as a mix-up of units, not as unusual medicine.

They are design choices, to be configured by a site; docs/clinical.md, "Rules", gives their sources:
published daily doses lie between 24 and 2,000 ug/d, products between 50 and 4,000 ug/mL.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Limits:
    """Rule U2 (daily dose, ug/d, and new to old), C1 (ug/mL), U3 (steps against daily dose), R1 (mL)."""

    daily_dose_min: Decimal = Decimal(5)
    daily_dose_max: Decimal = Decimal(5000)
    dose_ratio_max: Decimal = Decimal(10)
    concentration_min: Decimal = Decimal(50)
    concentration_max: Decimal = Decimal(4000)
    dose_tolerance: Decimal = Decimal("0.01")
    largest_reservoir: Decimal = Decimal(40)


LIMITS = Limits()

HUGE = Decimal(10) ** 30
NO_LIMITS = Limits(Decimal(0), HUGE, HUGE, Decimal(0), HUGE, HUGE, HUGE)
"""For a record entered in error: what was wrong with it must not keep it from being withdrawn."""
