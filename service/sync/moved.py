"""Whether what answers at another URL is the same EHR: it holds what ours was linked to there."""

from __future__ import annotations

from typing import Any

from mappings import identity
from service.store import links
from service.store.endpoints import Endpoint
from service.store.engine import Store

from .ehr import Ehr, EhrError, Gone, Missing

Json = Any
ASKED = 5


def why_not_the_same(store: Store, ehr: Ehr, endpoint: Endpoint) -> str | None:
    """None where the server of `ehr` is the endpoint's, as far as some of its newest linked resources tell.

    A resource is written by its id there: another server may have another patient's under that id.
    """
    with store.read() as c:
        asked = links.newest(c, endpoint.id, limit=ASKED)
    there = 0
    for link in asked:
        try:
            found = ehr.read(link.resource_type, link.remote_id)
        except (Missing, Gone):
            continue  # deleted since, or a copy that is older
        except EhrError as error:
            return f"it could not be asked: {type(error).__name__}"
        if not _is_of(found, link.system, link.value):
            return f"its {link.resource_type}/{link.remote_id} is not the one that was written"
        there += 1
    return "it holds nothing of what was written" if asked and not there else None


def _is_of(resource: Json, system: str, value: str) -> bool:
    try:
        return identity.resource_identity(resource) == (system, value)
    except (KeyError, TypeError, ValueError):
        return False
