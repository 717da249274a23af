"""What a person should look at in the drug of the last refill and the alarm that was set with it.

One function a rule, in the table of `checks`. docs/clinical.md, "Rules".
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

from mappings.envelope import occurred

from .derivation import shown
from .reservoir import rounded
from .state import CRITICAL, WARNING, OpenIssue
from .view import View

PRODUCTS = {
    "70121249605": Decimal(50),
    "70121250101": Decimal(500),
    "70121250202": Decimal(2000),
    "70121250301": Decimal(2000),
    "70121250502": Decimal(2000),
    "66794015101": Decimal(50),
    "66794015701": Decimal(2000),
    "66794015702": Decimal(2000),
    "25021067920": Decimal(2000),
    "72888014636": Decimal(1000),
    "70511012180": Decimal(50),
}
"""ug/mL of baclofen injection by NDC in 11 digits (openFDA NDC listings, Lioresal product page)."""


def product_and_strength(view: View) -> Iterator[OpenIssue]:
    """C2: the product that was filled in has another strength than was recorded."""
    if view.run.refill is None:
        return
    drug = view.run.refill["drug"]
    said = drug["concentration"]["value"]
    made = PRODUCTS.get(eleven_digits(drug.get("ndc", "")) or "")
    if made is None or made == said or drug.get("compounded"):
        return
    yield OpenIssue(
        "C2",
        CRITICAL,
        f"the refill {view.run.refill['occurred_at']} is recorded with {shown(said)} mcg/mL, its product "
        f"NDC {drug['ndc']} has {shown(made)} mcg/mL, and it is not marked as diluted or compounded",
        f"{shown(made)} / {shown(said)} = {shown(rounded(Fraction(made) / Fraction(said), 3))} times the "
        "recorded strength",
    )


def eleven_digits(ndc: str) -> str | None:
    """`66794-157-01` -> `66794015701`; None where a missing zero could stand in more than one place."""
    parts = ndc.split("-")
    if len(parts) == 1:
        return ndc if len(ndc) == 11 else None
    if len(parts) != 3 or any(len(p) > n for p, n in zip(parts, (5, 4, 2), strict=True)):
        return None
    return parts[0].zfill(5) + parts[1].zfill(4) + parts[2].zfill(2)


def expired_lot(view: View) -> Iterator[OpenIssue]:
    """C2: a lot that had expired on the day it was filled in; a month lasts to its end."""
    if view.run.refill is None:
        return
    day = occurred(view.run.refill).date().isoformat()
    drug = view.run.refill["drug"]
    for lot in (drug, *drug.get("other_lots", ())):
        ends = lot["expires_on"]
        if ends < day[: len(ends)]:
            yield OpenIssue(
                "C2",
                WARNING,
                f"the lot {lot['lot']} that was filled in on {day} had expired on {ends}",
                f"{day} > {ends}",
            )


def unusual_strength(view: View) -> Iterator[OpenIssue]:
    """C1: a strength that is not sold for refills and not marked as compounded."""
    if view.run.refill is None:
        return
    drug, usual = view.run.refill["drug"], view.thresholds.strengths
    strength = drug["concentration"]["value"]
    if strength in usual or drug.get("compounded"):
        return
    listed = ", ".join(map(shown, usual))
    yield OpenIssue(
        "C1",
        WARNING,
        f"the reservoir holds {shown(strength)} mcg/mL, which is not sold for refills, and the drug is not "
        "marked as diluted or compounded",
        f"{shown(strength)} is none of {listed} mcg/mL",
    )


def strength_for_the_model(view: View) -> Iterator[OpenIssue]:
    """C1: a strength outside what the maker of the pump permits."""
    permitted = view.model.concentrations if view.model is not None else None
    strength = view.run.concentration
    if view.model is None or permitted is None or strength is None:
        return
    if not permitted[0] <= strength <= permitted[1]:
        yield OpenIssue(
            "C1",
            WARNING,
            f"the reservoir holds {shown(strength)} mcg/mL, a {view.model.name} takes baclofen of "
            f"{permitted[0]} to {permitted[1]} mcg/mL",
            f"{shown(strength)} < {permitted[0]} mcg/mL"
            if strength < permitted[0]
            else f"{shown(strength)} > {permitted[1]} mcg/mL",
        )


def low_alarm_is_low(view: View) -> Iterator[OpenIssue]:
    """R5: the low-reservoir alarm was set below the least that is advised."""
    said = (view.run.refill or {}).get("low_alarm_volume", {}).get("value")
    least = view.thresholds.low_alarm_least
    withdrawn = any(e["problem"] == "withdrawal" for e in view.of_type("complication"))
    if said is None or not (said < least or (withdrawn and said == least)):
        return
    why = "; a withdrawal is on record, and some patients did well with 4 mL" if withdrawn else ""
    yield OpenIssue(
        "R5",
        WARNING,
        f"the low-reservoir alarm is set to {shown(said)} mL{why}",
        f"{shown(said)} {'<' if said < least else '='} {least} mL",
    )
