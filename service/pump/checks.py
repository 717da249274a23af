"""Advisory findings about a pump: each with its rule, and the sum it rests on. One function a rule."""

from __future__ import annotations

from collections.abc import Callable

from .reservoir import Thresholds
from .run import Run
from .state import OpenIssue, PumpState

Check = Callable[[PumpState, Run, Run, Thresholds], OpenIssue | None]


def residual_differs(state: PumpState, run: Run, worst: Run, thresholds: Thresholds) -> OpenIssue | None:
    """R2: the last refill found another volume than the programs had left."""
    found = state.last_refill
    if found is None or found.discrepancy is None or abs(found.discrepancy) <= thresholds.discrepancy_volume:
        return None
    side = (
        "under-delivery" if found.discrepancy > 0 else "over-delivery, or loss at aspiration or in the pocket"
    )
    return OpenIssue(
        "R2",
        "warning",
        f"the residual differs from the expected by more than {thresholds.discrepancy_volume} mL: {side}?",
        f"{found.actual_residual} - {found.expected_residual} = {found.discrepancy} mL; "
        f"delivered to programmed {found.delivery_ratio}",
    )


def concentration_without_bridge(
    state: PumpState, run: Run, worst: Run, thresholds: Thresholds
) -> OpenIssue | None:
    """C3: the concentration changed, and no bridge is recorded, nor why none was needed."""
    if run.unbridged is None:
        return None
    old, new = run.unbridged
    return OpenIssue(
        "C3",
        "critical",
        "the concentration changed without a bridge bolus or a reason why none was needed",
        f"{old} ug/mL -> {new} ug/mL",
    )


def program_and_reservoir_differ(
    state: PumpState, run: Run, worst: Run, thresholds: Thresholds
) -> OpenIssue | None:
    """C2: the pump is programmed for another concentration than it was filled with."""
    programmed = (state.program or {}).get("concentration")
    if programmed is None or state.concentration is None or programmed["value"] == state.concentration:
        return None
    share = state.concentration / programmed["value"]
    return OpenIssue(
        "C2",
        "critical",
        "the program's concentration is not the one in the reservoir",
        f"{state.concentration} / {programmed['value']} ug/mL = {share.normalize():f} times the dose",
    )


def before_is_not_what_ran(
    state: PumpState, run: Run, worst: Run, thresholds: Thresholds
) -> OpenIssue | None:
    """P5: a programming found another program than the record before it had left: one is missing."""
    if run.missing_before is None:
        return None
    earlier, later = run.missing_before
    return OpenIssue(
        "P5",
        "warning",
        "the program found at a visit is not the one recorded before it: a record is missing or wrong",
        f"{earlier['source']}/{earlier['id']} after is not {later['source']}/{later['id']} before",
    )


CHECKS: tuple[Check, ...] = (
    residual_differs,
    concentration_without_bridge,
    program_and_reservoir_differ,
    before_is_not_what_ran,
)
"""Every advisory check."""


def open_issues(state: PumpState, run: Run, worst: Run, thresholds: Thresholds) -> tuple[OpenIssue, ...]:
    """What the checks find."""
    found = (check(state, run, worst, thresholds) for check in CHECKS)
    return tuple(issue for issue in found if issue is not None)
