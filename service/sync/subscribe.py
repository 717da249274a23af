"""Ask an EHR's server to say when something changes: an R4 rest-hook Subscription for each type."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from service.store import endpoints, hints
from service.store.endpoints import Endpoint
from service.store.engine import Store

from .ehr import HttpEhr, Missing

Json = Any


def subscription(type: str, url: str, header: str) -> Json:
    """The Subscription to every change of a type, told to `url` with that header line."""
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "itb-fhir keeps records of intrathecal pumps in step",
        "criteria": f"{type}?",
        "channel": {
            "type": "rest-hook",
            "endpoint": url,
            "payload": "application/fhir+json",
            "header": [header],
        },
    }


def subscribe(
    store: Store, ehr: HttpEhr, endpoint: Endpoint, types: Sequence[str], url: str, header: str, now: datetime
) -> list[tuple[str, str]]:
    """(type, id) of the subscriptions, made or renewed; raises `EhrError` with those so far remembered."""
    with store.read() as c:
        known = {one.criteria: one.remote_id for one in hints.subscribed(c, endpoint.id)}
    made = []
    for type in types:
        wanted = subscription(type, url, header)
        id = known.get(wanted["criteria"])
        try:
            stored = ehr.save({**wanted, "id": id} if id else wanted)
        except Missing:
            stored = ehr.save(wanted)  # it was removed there
        with store.write() as c:
            hints.subscribe(c, endpoint, stored["id"], wanted["criteria"], now=now)
        made.append((type, str(stored["id"])))
    return made


def keep_secret(store: Store, endpoint: Endpoint, name: str, hashed: str) -> None:
    """Remember by what a notification of this EHR is known."""
    with store.write() as c:
        endpoints.set_options(c, endpoint.id, {**endpoint.options, name: hashed})
