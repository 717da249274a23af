"""Read what changed in one EHR: keep each version raw, recognise our own writes, take the rest as events.

Polling by `_lastUpdated` with an overlap: servers stamp before they commit, so a late commit appears
behind the cursor. The cursor is the server's time, never ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mappings.event import EVENTS_TOLD_BY
from mappings.fields import instant
from service.store import endpoints
from service.store.endpoints import Endpoint
from service.store.engine import Store

from .arrival import take
from .ehr import Ehr
from .reading import Reader

TYPES = tuple(dict.fromkeys([*EVENTS_TOLD_BY, "DeviceUseStatement", "MedicationAdministration"]))
"""What is polled: whatever tells an event, and what is sent beside it."""
PER_PAGE = "200"


@dataclass(frozen=True, slots=True)
class Pulled:
    """How many versions were new here, by what became of them."""

    counts: dict[str, int]


def pull(store: Store, ehr: Ehr, endpoint: Endpoint, now: Callable[[], datetime]) -> Pulled:
    """Read every page of every type since the cursor; raises `EhrError` with the pages so far kept."""
    counts: dict[str, int] = {}
    since = _since(endpoint)
    newest: str | None = None
    reader = Reader(store, ehr, endpoint)
    for type in TYPES:
        params = {"_sort": "_lastUpdated", "_count": PER_PAGE}
        if since is not None:
            params["_lastUpdated"] = f"ge{since}"
        for page in ehr.search(type, params):
            newest = newest or page.server_time
            for name, number in take(store, ehr, reader, endpoint, page.resources, now).items():
                counts[name] = counts.get(name, 0) + number
    if newest is not None:
        with store.write() as c:
            endpoints.set_cursor(c, endpoint.id, newest)
    return Pulled(counts)


def _since(endpoint: Endpoint) -> str | None:
    if endpoint.cursor is None:
        return None
    overlap = timedelta(seconds=endpoint.options.get("overlap_seconds", 300))
    return (instant(endpoint.cursor) - overlap).isoformat(timespec="milliseconds")
