"""A rate must be an amount per time.

The R4 specification's own examples 0305 and 0307 hold minutes in `rateQuantity`; read as a rate they
would be a dose out of nothing (docs/fhir.md, "Rates").
"""

from __future__ import annotations

from collections.abc import Iterator

from .codes import UCUM
from .paths import Json
from .rows import Issue

AMOUNTS = ("ug", "mg", "g", "ng", "mL", "L", "uL", "mmol", "mol", "[iU]", "ug/kg", "mg/kg", "ng/kg", "mL/kg")
TIMES = ("s", "min", "h", "d", "wk")


def rate_unit_issues(resource: Json) -> list[Issue]:
    """An issue (rule `rate-unit`) for each rate of a medication resource that is no amount per time."""
    return [
        Issue(path, "rate-unit", f"{said} is not an amount per time; a rate is never guessed")
        for path, said in _bad_rates(resource)
    ]


def _bad_rates(resource: Json) -> Iterator[tuple[str, str]]:
    if resource.get("resourceType") == "MedicationAdministration":
        yield from _bad_in(resource.get("dosage"), "MedicationAdministration.dosage")
    if resource.get("resourceType") == "MedicationRequest":
        for i, dosage in enumerate(_items(resource.get("dosageInstruction"))):
            for j, rate in enumerate(_items(dosage.get("doseAndRate"))):
                yield from _bad_in(rate, f"MedicationRequest.dosageInstruction[{i}].doseAndRate[{j}]")


def _items(value: Json) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _bad_in(holder: Json, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(holder, dict):
        return
    if "rateQuantity" in holder:
        rate = holder["rateQuantity"]
        unit = _unit(rate)
        amount, _, time = unit.rpartition("/")
        if amount not in AMOUNTS or time not in TIMES:
            yield f"{path}.rateQuantity", f"a rate in {unit or 'no UCUM unit'!r}"
    if "rateRatio" in holder:
        rate = holder["rateRatio"] if isinstance(holder["rateRatio"], dict) else {}
        above, below = _unit(rate.get("numerator")), _unit(rate.get("denominator"))
        if above not in AMOUNTS or below not in TIMES:
            yield (
                f"{path}.rateRatio",
                f"a rate of {above or 'no UCUM unit'!r} per {below or 'no UCUM unit'!r}",
            )


def _unit(quantity: Json) -> str:
    if not isinstance(quantity, dict) or quantity.get("system") != UCUM:
        return ""
    return str(quantity.get("code", ""))
