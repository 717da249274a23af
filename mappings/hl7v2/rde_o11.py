"""A dose change as RDE^O11: the program the pump was set to, flex steps in repeating TQ1.

The message is that of an encoded order. An event is a programming that was done: only an order whose status
(ORC-5) is `CM`, completed, is read as one. docs/hl7.md, "Dose change".
"""

from __future__ import annotations

import re

from mappings.envelope import Event, is_retracted
from mappings.program import DAYS
from mappings.rows import Issue, Refused

from .leaves import Flat
from .rows import Always, Derived, Group, MessageMap, Row
from .shared import BACLOFEN_SCT, NAMELESS, PID, key, moment, performer, written_moment
from .values import CLOCK, IN_WORDS, Context, amount, composite, nth, parts, single, unit_out

CANCELLED = frozenset({"CA", "OC", "OE"})
PLACED = frozenset({"NW", "XO", "XX", "RE", "RO", "SC"})
INTRATHECAL = "72607000^Intrathecal route^SCT^IT^Intrathecal^HL70162"


def _days_out(days: list[str], c: Context) -> str:
    """Repeat patterns (HL7 table 0335): `Q1J6` is every Saturday, days counted from Monday."""
    return c.separators.repetition.join(f"Q1J{DAYS.index(day) + 1}" for day in days)


def _days_in(text: str, c: Context) -> list[str]:
    codes = [nth(parts(one, c), 1, c) for one in text.split(c.separators.repetition)]
    if not all(re.fullmatch(r"Q1?J[1-7]", code) for code in codes):
        raise Refused("code", "a step repeats on days of the week, Q1J1 (Monday) to Q1J7, or every day")
    return [DAYS[int(code[-1]) - 1] for code in codes]


def control(event: Event, c: Context) -> str:
    """ORC-1 (HL7 table 0119): a new program, a change of one, or a record that was withdrawn."""
    return "OC" if is_retracted(event) else "XO" if "before" in event else "NW"


def daily(event: Event, c: Context) -> str:
    """RXE-3: what is given in 24 h."""
    return format(event["after"].get("daily_dose", {"value": 0})["value"], "f")


def check(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    """Done, not only ordered; into the spinal fluid; and a mode that is said or cannot be another."""
    control_, status = group.text("ORC", 1), group.text("ORC", 5)
    if control_ in CANCELLED:
        leaves["status", 0] = "entered-in-error"
    elif control_ not in PLACED:
        return [Issue("ORC[1]-1", "order-control", f"{control_[:10]!r} is no programming that was done")]
    if status != "CM":
        return [Issue("ORC[1]-5", "not-done", "only a completed order (CM) is a programming that was done")]
    route = parts(group.text("RXR", 1), c)
    codes = {nth(route, 1, c), nth(route, 4, c)} - {""}
    if codes and not codes & {"IT", "72607000"}:
        return [Issue("RXR[1]-1", "route", "is not intrathecal")]
    if ("after.mode", 0) not in leaves:
        stepped = any(pattern == "after.steps[].start" for pattern, _ in leaves)
        if not stepped and ("after.daily_dose", 0) not in leaves:
            return [Issue("RXE[1]-23", "required", "neither a rate nor steps")]
        leaves["after.mode", 0] = "flex" if stepped else "simple"
        c.note("RXE[1]-23", "mode", f"no mode is said; it was read as {leaves['after.mode', 0]}")
    return []


RDE_O11 = MessageMap(
    name="RDE^O11",
    type="dose-change",
    trigger=lambda event: "RDE^O11^RDE_O11",
    segments=("PID", "ORC", "RXE", "TQ1", "RXR", "OBX"),
    rows=(
        *PID,
        key("ORC-3,2"),
        Row("reason", "ORC-16", IN_WORDS),
        performer("ORC-19~0"),
        Row("after.daily_dose", "RXE-23,24", amount("ug/d")),
        Row("after.concentration", "RXE-25,26", amount("ug/mL")),
        Row("after.steps[].dose", "TQ1-2", composite("ug")),
        Row("after.steps[].days", "TQ1-3", single(_days_out, _days_in)),
        Row("after.steps[].start", "TQ1-4", CLOCK),
        Row("after.steps[].duration", "TQ1-6", composite("h", "min", "d")),
        moment("occurred_at", "TQ1-7", required=True),
    ),
    always=(
        NAMELESS,
        Always("ORC-5", "CM"),
        Always("RXE-2", BACLOFEN_SCT),
        Always("RXR-1", INTRATHECAL),
    ),
    derived=(
        Derived("ORC-1", control),
        Derived("RXE-3", daily),
        Derived("RXE-5", lambda event, c: unit_out("ug", c)),
        Derived("RXE-22", lambda event, c: "D1"),
        written_moment("ORC-9"),
    ),
    check=check,
)
