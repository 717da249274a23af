"""An infusion segment as ORU^R42, in the style of IHE PCD-10: delivery starts or stops, one event a message.

A programming of the pump starts a delivery (or stops it) under a new program: the message is the whole dose
change again, told to those who listen for deliveries. docs/hl7.md, "Infusion segments".
"""

from __future__ import annotations

from mappings.envelope import Event
from mappings.rows import Issue

from .leaves import Flat
from .observed import Facet, Observed
from .rows import Always, Derived, Group, MessageMap
from .shared import NAMELESS, PID, key, moment, performer, result_status
from .values import LOCAL_SYSTEM, Context, nth, parts

CONDITION_CODE = "68487^MDC_ATTR_EVT_COND^MDC"
START, STOP = "MDC_EVT_PUMP_DELIV_START", "MDC_EVT_PUMP_DELIV_STOP"
WRITTEN = {START: "197288^MDC_EVT_PUMP_DELIV_START^MDC", STOP: "^MDC_EVT_PUMP_DELIV_STOP^MDC"}


def condition(event: Event) -> str:
    """What the programming does to the delivery."""
    return STOP if event["after"]["mode"] == "stopped" else START


def facets(event: Event, c: Context) -> list[Facet]:
    return [("CWE", CONDITION_CODE, "1.0.0.1", WRITTEN[condition(event)])]


def check(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    """The condition must be that of the program: a stop stops, a start does not."""
    said = {
        nth(parts(s[5], c), 2, c)
        for s in group.all("OBX")
        if len(s) > 5 and nth(parts(s[3], c), 1, c) == "68487"
    }
    mode = leaves.get(("after.mode", 0))
    if mode is None:
        why = "no program of ours is told (after.mode): a rate alone is not guessed from"
        return [Issue("OBX-3", "program", why)]
    wanted = STOP if mode == "stopped" else START
    if said != {wanted}:
        return [Issue("OBX-5", "condition", f"a program of mode {mode} needs {wanted}")]
    return []


ORU_R42 = MessageMap(
    name="ORU^R42",
    type="dose-change",
    trigger=lambda event: "ORU^R42^ORU_R01",
    segments=("PID", "OBR", "OBX"),
    rows=(
        *PID,
        key("OBR-3,2"),
        moment("occurred_at", "OBR-7", required=True),
        performer("OBR-10~0"),
    ),
    always=(
        NAMELESS,
        Always("OBR-1", "1"),
        Always("OBR-4", f"dose-change^ITB dose change^{LOCAL_SYSTEM}"),
    ),
    derived=(Derived("OBR-25", result_status),),
    check=check,
    observed=Observed(facets=facets),
    profile="IHE_PCD_010^IHE PCD^1.3.6.1.4.1.19376.1.6.4.10^ISO",
)
