"""Rows and texts that several messages share: who the record is, whose it is, when it was."""

from __future__ import annotations

from mappings.codes import DISPLAY
from mappings.envelope import Event, is_retracted

from .rows import Always, Derived, Row
from .values import KEY, LOCAL_SYSTEM, MOMENT, PATIENT, PERSON, Context, moment_out

PERSON_LEAVES = ("performer.system", "performer.value", "performer.name")
PID = (Row(("patient.system", "patient.value"), "PID-3", PATIENT, required=True),)
NAMELESS = Always("PID-5", "^^^^^^U")
"""PID-5 is required, and an event knows no name: `U`, unspecified (HL7 table 0200)."""
BACLOFEN_SCT = "387342009^Baclofen^SCT"


def local(code: str) -> str:
    """A CWE of the local code system with its display."""
    return f"{code}^{DISPLAY[code]}^{LOCAL_SYSTEM}"


def key(at: str) -> Row:
    """(source, id) ⇄ the filler's number, or the placer's."""
    return Row(("source", "id"), at, KEY, required=True)


def performer(at: str) -> Row:
    return Row(PERSON_LEAVES, at, PERSON)


def moment(name: str, at: str, *, required: bool = False) -> Row:
    return Row(name, at, MOMENT, required=required)


def written_moment(at: str, name: str = "occurred_at") -> Derived:
    """A time that is written once more where the standard wants it."""
    return Derived(at, lambda event, c: moment_out(event[name], c) if name in event else None)


def result_status(event: Event, c: Context) -> str:
    """OBR-25 (HL7 table 0123): final, a correction, or cancelled."""
    return "X" if is_retracted(event) else "C" if event.get("version", 1) > 1 else "F"
