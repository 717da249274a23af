"""In which form an event goes to a server: the highest rung of the ladder that the server can take. Pure.

What a rung loses is worked out by reading back what it writes: a rung that gives the whole event back loses
nothing of it, whatever types are left out beside it (docs/servers.md, "The ladder").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mappings import MappingError, bundle, chart, provenance, read_fhir
from mappings.event import Event
from mappings.exact_json import dumps
from mappings.identity import resource_identity

from .capability import Matrix, cannot_write, problems

Json = Any
RUNGS = {
    "transaction": "all resources of the event in one transaction",
    "single": "the resources one by one",
    "chart": "a procedure, observations and a document",
    "hl7v2": "an HL7 v2 message",
}
"""Highest first; `hl7v2` is the only one of a receiver of HL7 v2 (messages.py), and of nobody else."""
CHARTED = ("Procedure", "Observation", "DocumentReference")
NONE = "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """The rung of one event at one server, and what it means; `rung` is `none` where no form can be sent.

    `types` are written, `left_out` are resource types of the event that are not; `lost` are the fields of the
    event that cannot be read back from what is written; `why` says what stands against the rungs above.
    """

    rung: str
    types: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


def choose(matrix: Matrix, event: Event, encoded: Sequence[Json] | None = None) -> Plan:
    """The plan of an event at the server of this matrix; `encoded`: its resources, where they are made."""
    found = problems(matrix)
    if found:
        return Plan(NONE, lost=lost(event, {}), why=tuple(found))
    own = bundle.encode(event) if encoded is None else encoded
    types = dict.fromkeys([*(resource["resourceType"] for resource in own), "Provenance"])
    refused = {type: text for type in types if (text := cannot_write(matrix, type))}
    kept = [resource for resource in own if resource["resourceType"] not in refused]
    why = [] if matrix.transactions else ["the server takes no transactions"]
    if not refused or not lost(event, read_back(event["type"], kept)):
        rung = "transaction" if matrix.transactions else "single"
        return Plan(rung, frozenset(types) - refused.keys(), tuple(refused), (), tuple(why))
    why += [f"{type}: {reason}" for type, reason in refused.items()]
    return _charted(matrix, event, tuple(types), tuple(why))


def _charted(matrix: Matrix, event: Event, types: Sequence[str], why: tuple[str, ...]) -> Plan:
    refused = {type: text for type in CHARTED if (text := cannot_write(matrix, type))}
    made = chart.encode(event, [type for type in CHARTED if type not in refused])
    written = frozenset(resource["resourceType"] for resource in made)
    why += tuple(f"{type}: {text}" for type, text in refused.items() if f"{type}: {text}" not in why)
    if not made:
        return Plan(NONE, left_out=tuple(types), lost=lost(event, {}), why=why)
    gone = lost(event, read_back(event["type"], made))
    return Plan("chart", written, tuple(type for type in types if type not in written), gone, why)


def shape(
    plan: Plan, event: Event, encoded: list[Json] | None = None, *, recorded: str | None = None
) -> list[Json]:
    """The event's resources in the form of its plan; `encoded` as in `choose`, at its place."""
    if plan.rung == "chart":
        return chart.encode(event, plan.types)
    own = bundle.encode(event) if encoded is None else encoded
    made = [*own, provenance.encode(event, own, recorded)]
    return [resource for resource in made if resource["resourceType"] in plan.types]


def superseded(plan: Plan, event: Event, earlier: Iterable[Event]) -> list[Json]:
    """What versions of the event told, in whatever form, and its plan does not, as entered in error.

    A goal that a correction leaves out; the chart of an event whose server takes the whole of it now.
    """
    kept = {resource_identity(resource) for resource in shape(plan, event)}
    gone: dict[tuple[str, str], Json] = {}
    for version in [*earlier, event]:
        wrong = {**version, "status": "entered-in-error"}
        for resource in (*bundle.encode(wrong), *chart.encode(wrong)):
            name = resource_identity(resource)
            if name not in kept:
                gone[name] = resource
    return list(gone.values())


def read_back(type: str, resources: Iterable[Json]) -> Json:
    """What resources say of their event: all of it, or the fields that charted ones tell."""
    listed = list(resources)
    try:
        found = read_fhir({"resourceType": "Bundle", "entry": [{"resource": r} for r in listed]}).events
    except MappingError:
        found = []
    return found[0] if found else chart.told(type, listed)


def lost(event: Event, back: Json) -> tuple[str, ...]:
    """The fields of an event that `back` does not say as the event does."""
    return tuple(_lost(event, {"type": event["type"], **back}, ""))


def _lost(node: Json, back: Json, path: str) -> Iterator[str]:
    for name, value in node.items():
        said = back.get(name) if isinstance(back, dict) else None
        at = f"{path}{name}"
        if isinstance(value, dict) and value.keys() != {"value", "unit"}:
            yield from _lost(value, said, f"{at}.")
        elif said is None or dumps(said) != dumps(value):
            yield at
