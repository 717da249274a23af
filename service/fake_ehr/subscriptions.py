"""`$status` and `$events` of a Subscription (the R5 backport guide), worked out from the log. Pure.

An event is a version of the type that the criteria name, written since the Subscription; they count from 1.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .state import State, Version, searchset, stamp
from .wire import Refusal, Request, Response

Json = Any


def status(state: State, id: str, now: datetime) -> Response:
    """How many events there were."""
    told = _told(state, id, "query-status", [])
    return Response(200, searchset([{"resource": told}], "searchset", stamp(now), 1, []))


def events(state: State, id: str, request: Request, now: datetime) -> Response:
    """Which events there were, from one number to another."""
    asked = dict(request.query)
    first = int(asked.get("eventsSinceNumber", "1"))
    last = int(asked.get("eventsUntilNumber", str(len(_since(state, id)))))
    listed = [(n, v) for n, v in enumerate(_since(state, id), 1) if first <= n <= last]
    told = _told(state, id, "query-event", listed)
    return Response(200, searchset([{"resource": told}], "history", stamp(now), 1, []))


def _since(state: State, id: str) -> list[Version]:
    kept = state.versions.get(("Subscription", id), [])
    if not kept or kept[-1].resource is None:
        raise Refusal(404, f"Subscription/{id} is not known")
    type = kept[-1].resource["criteria"].partition("?")[0]
    versions = list(state.log)
    return [v for v in versions[versions.index(kept[0]) :] if v.key[0] == type]


def _told(state: State, id: str, kind: str, listed: list[tuple[int, Version]]) -> Json:
    number_of_all = str(len(_since(state, id)))
    parameter: list[Json] = [
        {"name": "subscription", "valueReference": {"reference": f"{state.url}/Subscription/{id}"}},
        {"name": "status", "valueCode": state.versions["Subscription", id][-1].resource["status"]},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": number_of_all},
    ]
    for number, version in listed:
        focus = {"name": "focus", "valueReference": {"reference": "/".join(version.key)}}
        part = [{"name": "event-number", "valueString": str(number)}, focus]
        parameter.append({"name": "notification-event", "part": part})
    return {"resourceType": "Parameters", "parameter": parameter}
