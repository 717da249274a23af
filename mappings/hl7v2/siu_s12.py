"""A visit as SIU^S12, S14, S15 or S26: booked, changed, cancelled, missed. docs/hl7.md, "Visits"."""

from __future__ import annotations

from mappings.envelope import Event
from mappings.rows import Issue, Refused

from .leaves import Flat
from .rows import Always, Derived, Group, MessageMap, Row
from .shared import NAMELESS, PERSON_LEAVES, PID, key, local, moment
from .values import IN_WORDS, PERSON, TEXT, WORD, Codec, Context, Leaves, Texts, nth, parts

STATES = {
    "proposed": "Pending",
    "booked": "Booked",
    "done": "Complete",
    "cancelled": "Cancelled",
    "missed": "Noshow",
}
"""SCH-25 (HL7 table 0278)."""
BACK = {code.upper(): state for state, code in STATES.items()}


def trigger(event: Event) -> str:
    """What happened to the appointment."""
    code = {"cancelled": "S15", "missed": "S26"}.get(event["state"], "S14" if "version" in event else "S12")
    return f"SIU^{code}^SIU_S12"


def _state_out(leaves: Leaves, c: Context) -> Texts:
    return (f"{STATES[leaves[0]]}^^HL70278".replace("^", c.separators.component),)


def _state_in(texts: Texts, c: Context) -> Leaves:
    code = nth(parts(texts[0], c), 1, c).upper()
    if code not in BACK:
        raise Refused("code", f"unknown status; known: {', '.join(STATES.values())}")
    return (BACK[code],)


NOBODY = (None, None, "unknown")


def _named(event: Event, c: Context) -> str:
    """SCH-16 and SCH-20 are required: who decided, or that nobody is named."""
    who = event.get("performer", {"name": "unknown"})
    return PERSON.to_hl7((who.get("system"), who.get("value"), who.get("name")), c)[0]


def _somebody(texts: Texts, c: Context) -> Leaves:
    found = PERSON.from_hl7(texts, c)
    return (None, None, None) if found == NOBODY else found


def check(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    """A visit is what an SIU tells; what happened must fit its state."""
    leaves["kind", 0] = "visit"
    code = nth(parts(group.text("MSH", 9), c), 2, c)
    state = leaves.get(("state", 0))
    wanted = {"S15": "cancelled", "S26": "missed"}.get(code)
    if state is None and wanted is not None:
        leaves["state", 0] = wanted
    elif (wanted or state) != state or (code not in ("S15", "S26") and state in ("cancelled", "missed")):
        return [Issue("SCH[1]-25", "contradiction", f"the status is {state}, and the message SIU^{code}")]
    return []


SIU_S12 = MessageMap(
    name="SIU^S12",
    type="follow-up",
    trigger=trigger,
    segments=("SCH", "TQ1", "NTE", "PID", "OBX", "RGS"),
    rows=(
        key("SCH-2,1"),
        Row("reason", "SCH-7", IN_WORDS),
        Row("purpose", "SCH-8", WORD),
        Row(PERSON_LEAVES, "SCH-16~0", Codec(PERSON.to_hl7, _somebody)),
        Row("state", "SCH-25", Codec(_state_out, _state_in)),
        moment("starts_at", "TQ1-7"),
        moment("ends_at", "TQ1-8"),
        Row("note", "NTE-3", TEXT),
        *PID,
    ),
    always=(NAMELESS, Always("SCH-6", local("pump-visit")), Always("RGS-1", "1")),
    derived=(
        Derived("SCH-16~0", _named),
        Derived("SCH-20", _named),
        Derived("NTE-1", lambda event, c: "1" if "note" in event else None),
    ),
    check=check,
)
