"""Where a record came from: one Provenance for each version of an event, under an id of our own.

R4 Provenance has no identifier, so it is PUT by a client-assigned id: POSTing it again would double it.
"""

from __future__ import annotations

import hashlib

from . import identity
from .codes import DATA_OPERATION, PROVENANCE_PARTICIPANT, definition, sid
from .envelope import Event, is_retracted, version
from .exact_json import dumps
from .paths import Json
from .values import PERSON

ASSEMBLER = "itb-fhir"


def provenance_id(event: Event) -> str:
    """The id of the Provenance of this version of the event."""
    value = f"{event['type']}.{identity.business_value(event['source'], event['id'])}.{version(event)}"
    return identity.client_id("Provenance", value)


def source_hash(event: Event) -> str:
    """sha256 of the event's canonical JSON."""
    return f"sha256:{hashlib.sha256(dumps(event)).hexdigest()}"


def encode(event: Event, resources: list[Json], recorded: str | None = None) -> Json:
    """The Provenance of the event's resources; `recorded` (instant) is when the ledger took it in.

    A converter without a ledger knows no such time: then the event's own time stands there.
    """
    activity = "UPDATE" if version(event) > 1 or is_retracted(event) else "CREATE"
    agents = []
    if "performer" in event:
        agents.append(_agent("author", PERSON.to_fhir(event["performer"])))
    agents.append(_agent("assembler", {"type": "Device", "display": ASSEMBLER}))
    return {
        "resourceType": "Provenance",
        "id": provenance_id(event),
        "meta": {"profile": [definition("itb-provenance")]},
        "target": [_target(resource) for resource in resources],
        "occurredDateTime": event["occurred_at"],
        "recorded": recorded or event["occurred_at"],
        "activity": {"coding": [{"system": DATA_OPERATION, "code": activity}]},
        "agent": agents,
        "entity": [
            {
                "role": "source",
                "what": {"identifier": {"system": sid("source-message"), "value": source_hash(event)}},
            }
        ],
    }


def _target(resource: Json) -> Json:
    system, value = identity.resource_identity(resource)
    return identity.own(resource["resourceType"], system.rpartition("/")[2], value)


def _agent(role: str, who: Json) -> Json:
    return {"type": {"coding": [{"system": PROVENANCE_PARTICIPANT, "code": role}]}, "who": who}
