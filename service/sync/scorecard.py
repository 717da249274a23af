"""What an endpoint can take, what we would send it, and what would be lost: `itb doctor ENDPOINT`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mappings import EVENT_TYPES, load_event
from mappings.event import Event
from mappings.exact_json import loads
from mappings.hl7v2 import SenderMap

from . import capability, ladder
from .capability import READ, WRITTEN, Matrix
from .ladder import NONE, RUNGS, Plan
from .tell import plan_of

Json = Any
SAMPLES = Path(__file__).with_name("samples.ndjson")
"""One event of each type, as full as can be: what a server is judged by before it was sent anything."""


@lru_cache(1)
def samples() -> tuple[Event, ...]:
    """The made-up events that stand for those to come."""
    return tuple(load_event(loads(line)) for line in SAMPLES.read_bytes().splitlines())


Held = Mapping[str, Iterable[Event]]
"""Events of the ledger by type, judged beside the made-up ones."""


def scorecard(matrix: Matrix, held: Held | None = None) -> Json:
    """The card of a FHIR server."""
    return {
        "software": matrix.software,
        "fhir_version": matrix.fhir_version,
        "problems": capability.problems(matrix),
        "by_option": list(matrix.by_option),
        "system": {
            "transaction": matrix.transactions,
            "batch": "batch" in matrix.interactions,
            "history": "history-system" in matrix.interactions,
            "export": "export" in matrix.operations,
        },
        "types": [_type(matrix, type) for type in READ],
        "events": _events(lambda event: ladder.choose(matrix, event), held or {}),
    }


def message_card(how: SenderMap, held: Held | None = None) -> Json:
    """The card of a receiver of HL7 v2: it tells nothing of itself, so only the events are judged."""
    return {
        "software": f"HL7 v{how.version}",
        "fhir_version": "",
        "problems": [],
        "by_option": [],
        "system": {},
        "types": [],
        "events": _events(lambda event: plan_of(event, how), held or {}),
    }


def _type(matrix: Matrix, type: str) -> Json:
    support = matrix.of(type)
    why = capability.cannot_write(matrix, type) if type in WRITTEN else "patients are the EHR's own"
    return {
        "type": type,
        "written": not why,
        "why": why,
        "interactions": sorted(support.interactions),
        "found_by": capability.finding(matrix, type),
        "last_updated": "_lastUpdated" in support.search_params,
        "conditional_create": support.conditional_create,
        "conditional_update": support.conditional_update,
        "client_ids": support.client_ids,
        "versioning": support.versioning,
    }


def _events(choose: Callable[[Event], Plan], held: Held) -> list[Json]:
    by_type = {type: [e for e in samples() if e["type"] == type] for type in EVENT_TYPES}
    return [
        _event(type, [choose(event) for event in (*own, *held.get(type, ()))])
        for type, own in by_type.items()
    ]


def _event(type: str, plans: list[Plan]) -> Json:
    """The lowest rung that events of a type get, and all that any of them loses."""
    order = (*RUNGS, NONE)
    lowest = max(plans, key=lambda plan: order.index(plan.rung))
    return {
        "type": type,
        "rung": lowest.rung,
        "sends": sorted({name for plan in plans for name in plan.types}),
        "left_out": _all(plan.left_out for plan in plans),
        "lost": _all(plan.lost for plan in plans),
        "why": list(lowest.why),
        "judged": len(plans),
    }


def _all(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(word for words in lists for word in words))


def is_good(card: Json) -> bool:
    """Whether every event type gets there in some form that loses nothing of it."""
    return not card["problems"] and not any(e["rung"] == NONE or e["lost"] for e in card["events"])
