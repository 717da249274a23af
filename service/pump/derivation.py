"""How each derived value came about, in words and numbers (docs/clinical.md, "Dosing")."""

from __future__ import annotations

from typing import Any

from .reservoir import Thresholds
from .run import Run

FORMULAS = {
    "flow_rate": "q = D / C (weekly mean)",
    "path_volume": "implanted length * volume per length + pump tubing",
    "worst_case_daily_dose": "daily dose + patient bolus * most boluses a day",
    "reservoir_volume": "volume filled - integral of the flow since, bridge included",
    "alarm_at": "when the calculated volume reaches the low alarm volume, cut to the second before",
    "empty_at": "when the calculated volume reaches 0, cut to the second before",
    "stability_on": "day of the refill + {stability_days} d",
    "refill_by": "the earlier of alarm date - {refill_margin_days} d and stability date",
}


def derivation(run: Run, facts: dict[str, Any], thresholds: Thresholds) -> dict[str, str]:
    """The formula of each derived value that is there."""
    numbers = {
        "stability_days": thresholds.stability_days,
        "refill_margin_days": thresholds.refill_margin_days,
    }
    return {
        name: formula.format(**numbers) for name, formula in FORMULAS.items() if facts.get(name) is not None
    }
