"""A refill as RAS^O17: what went into the reservoir, never a dose to the patient.

HL7 v2 has no message for the refill of an implanted pump; this is that of an administered drug, with a route
of our own. A sender who says IT (intrathecal) about a reservoir's volume is remapped or parked, as its file
says: 20 mL of 2000 ug/mL are 40 mg, and would be a lethal dose. docs/hl7.md, "Refill".
"""

from __future__ import annotations

from mappings.envelope import Event, is_retracted
from mappings.rows import Issue

from .leaves import Flat
from .rows import Always, Derived, Group, MessageMap, Row
from .shared import BACLOFEN_SCT, NAMELESS, PID, key, local, performer
from .values import (
    DAY,
    IN_WORDS,
    STRENGTH,
    TEXT,
    Codec,
    Context,
    Leaves,
    Texts,
    amount,
    joined,
    moment_in,
    moment_out,
    nth,
    parts,
)

NDC_SYSTEM = "NDC"
DONE = {"CP": "", "": "", "PA": "partly"}
INTRATHECAL_CODES = frozenset({("IT", "HL70162"), ("IT", ""), ("72607000", "SCT")})


def drug_out(leaves: Leaves, c: Context) -> Texts:
    ndc, name = leaves
    first = joined(c, ndc or "", name or "", NDC_SYSTEM if ndc else "")
    mark = c.separators.component
    return (first + mark * (3 - first.count(mark)) + BACLOFEN_SCT.replace("^", mark),)


def drug_in(texts: Texts, c: Context) -> Leaves:
    found = parts(texts[0], c)
    ndc = nth(found, 1, c) if nth(found, 3, c) == NDC_SYSTEM else None
    return ndc or None, nth(found, 2, c) or None


DRUG = Codec(drug_out, drug_in)
"""(NDC, name) ⇄ a CWE whose second triplet is the substance."""


def _status(event: Event, c: Context) -> str:
    return "D" if is_retracted(event) else "U" if event.get("version", 1) > 1 else "A"


def _started_out(leaves: Leaves, c: Context) -> Texts:
    started, ended = leaves
    return moment_out(started or ended, c), moment_out(ended, c)


def _started_in(texts: Texts, c: Context) -> Leaves:
    start = moment_in(texts[0], c) if texts[0] else None
    end = moment_in(texts[1], c) if texts[1] else start
    return (None if texts[0] == texts[1] or not texts[1] else start), end


def check(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    """The route, and whether it was done at all."""
    completion, action = group.text("RXA", 20), group.text("RXA", 21)
    if completion not in DONE:
        return [Issue("RXA[1]-20", "not-done", f"completion {completion[:20]!r}: nothing was filled in")]
    if completion == "PA" and ("stopped_because", 0) not in leaves:
        return [Issue("RXA[1]-20", "required", "a refill that was broken off says why (stopped_because)")]
    if action == "D":
        leaves["status", 0] = "entered-in-error"
    elif action == "U" and ("version", 0) not in leaves:
        c.note("RXA[1]-21", "correction", "says that it corrects a record, and not which version it is")
    return _route(group, leaves, c)


def _route(group: Group, leaves: Flat, c: Context) -> list[Issue]:
    found = parts(group.text("RXR", 1), c)
    for at in (1, 4):
        code, system = nth(found, at, c), nth(found, at + 2, c)
        if (code, system) == ("pump-reservoir", "99ITB") or c.sender.codes.get(
            f"{code}^{system}"
        ) == "pump-reservoir":
            return []
    if (nth(found, 1, c), nth(found, 3, c)) not in INTRATHECAL_CODES:
        why = "is not pump-reservoir (99ITB)"
        return [Issue("RXR[1]-1", "route", why)]
    volume = leaves.get(("volume_instilled", 0))
    if volume is None or volume["value"] < c.sender.reservoir_from:
        why = f"intrathecal, and less than {c.sender.reservoir_from} mL: a dose to the patient, not a refill"
        return [Issue("RXR[1]-1", "route", why)]
    if c.sender.intrathecal_refill != "remap":
        why = (
            "a reservoir's volume with an intrathecal route: parked, as the sender's file does not say remap"
        )
        return [Issue("RXR[1]-1", "intrathecal-refill", why)]
    c.note("RXR[1]-1", "intrathecal-refill", "a reservoir's volume: the route was read as pump-reservoir")
    return []


RAS_O17 = MessageMap(
    name="RAS^O17",
    type="refill",
    trigger=lambda event: "RAS^O17^RAS_O17",
    segments=("PID", "ORC", "RXA", "RXR", "OBX"),
    rows=(
        *PID,
        key("ORC-3,2"),
        Row(("started_at", "occurred_at"), "RXA-3,4", Codec(_started_out, _started_in), required=True),
        Row(("drug.ndc", "drug.name"), "RXA-5", DRUG),
        Row("volume_instilled", "RXA-6,7", amount("mL"), required=True),
        Row("note", "RXA-9", IN_WORDS),
        performer("RXA-10~0"),
        Row("drug.concentration", "RXA-13,14,23,24", STRENGTH, required=True),
        Row("drug.lot", "RXA-15~0", TEXT),
        Row("drug.other_lots[].lot", "RXA-15~1", TEXT),
        Row("drug.expires_on", "RXA-16~0", DAY),
        Row("drug.other_lots[].expires_on", "RXA-16~1", DAY),
    ),
    always=(
        NAMELESS,
        Always("ORC-1", "RE"),
        Always("RXA-1", "0"),
        Always("RXA-2", "1"),
        Always("RXR-1", local("pump-reservoir")),
        Always("RXR-4", local("reservoir-fill")),
    ),
    derived=(
        Derived("RXA-5", lambda event, c: drug_out((None, None), c)[0]),
        Derived("RXA-20", lambda event, c: "PA" if "stopped_because" in event else "CP"),
        Derived("RXA-21", _status),
    ),
    check=check,
)
"""RXA-5 is also written where the event names no product: its second triplet is the substance."""
