"""An alarm as ORU^R40, in the style of IHE PCD-04: OBX facets of one alert, its phase start or end.

The end of an alarm is the same record again, with its end and a later version; a sender whose end has a
number of its own refers to the start by OBR-29. docs/hl7.md, "Alarms".
"""

from __future__ import annotations

from mappings.envelope import Event
from mappings.rows import Issue, Refused

from .leaves import Flat
from .observed import Facet, Observed
from .rows import Always, Derived, Group, MessageMap
from .shared import NAMELESS, PID, key, local, moment, result_status
from .values import KEY, Context, nth, parts

ALERT = "1.1.1.1."
EVENT_CODE = "196616^MDC_EVT_ALARM^MDC"
SOURCE_CODE = "68480^MDC_ATTR_ALERT_SOURCE^MDC"
PHASE_CODE = "68481^MDC_ATTR_EVENT_PHASE^MDC"
STATE_CODE = "68482^MDC_ATTR_ALARM_STATE^MDC"
INACTIVATION_CODE = "68483^MDC_ATTR_ALARM_INACTIVATION_STATE^MDC"
"""The facets of an alert (IHE PCD ACM, OBX-3)."""
PHASES = frozenset({"", "tpoint", "start", "continue", "update", "end"})


def facets(event: Event, c: Context) -> list[Facet]:
    """Source, phase, state and inactivation state of the alert."""
    over = "ended_at" in event
    return [
        ("CWE", SOURCE_CODE, f"{ALERT}2", local("itb-pump")),
        ("ST", PHASE_CODE, f"{ALERT}3", "end" if over else "start"),
        ("ST", STATE_CODE, f"{ALERT}4", "inactive" if over else "active"),
        ("ST", INACTIVATION_CODE, f"{ALERT}5", "enabled"),
    ]


def check(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    """The phase must fit the times; an end that has its own number is the record of its start."""
    phases = {s[5] for s in group.all("OBX") if len(s) > 5 and nth(parts(s[3], c), 1, c) == "68481"}
    phase = phases.pop() if len(phases) == 1 else ""
    if phases or phase not in PHASES:
        return [Issue("OBX-5", "phase", f"an alarm has one phase out of {', '.join(sorted(PHASES - {''}))}")]
    over = ("ended_at", 0) in leaves
    if over != (phase == "end") and phase:
        return [
            Issue("OBR[1]-8", "phase", "an alarm is over when its phase is end, and then says since when")
        ]
    parent = group.text("OBR", 29)
    if parent:
        filler = parent.split(c.separators.component)[1:2] or [""]
        pieces = filler[0].split(c.separators.subcomponent)
        try:
            source, id = KEY.from_hl7((c.separators.component.join(pieces), ""), c)
        except Refused as error:
            return [Issue("OBR[1]-29", error.rule, str(error))]
        if id is not None and (source, id) != (leaves.get(("source", 0)), leaves.get(("id", 0))):
            leaves["source", 0], leaves["id", 0] = source, id
            leaves.setdefault(("version", 0), 2)
            c.note("OBR[1]-29", "alert-end", "read as version 2 of the alert that it refers to")
    return []


ORU_R40 = MessageMap(
    name="ORU^R40",
    type="alarm",
    trigger=lambda event: "ORU^R40^ORU_R40",
    segments=("PID", "OBR", "OBX"),
    rows=(
        *PID,
        key("OBR-3,2"),
        moment("occurred_at", "OBR-7", required=True),
        moment("ended_at", "OBR-8"),
    ),
    always=(NAMELESS, Always("OBR-1", "1"), Always("OBR-4", EVENT_CODE)),
    derived=(Derived("OBR-25", result_status),),
    check=check,
    observed=Observed({"alarm": EVENT_CODE}, ALERT, facets),
)
