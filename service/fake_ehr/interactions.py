"""What the server answers to one request: a function for each interaction of `wire.ROUTES`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from . import bundles, search, subscriptions
from .personality import capability_statement
from .state import State, Version, searchset, stamp
from .wire import Refusal, Request, Response, Route, outcome, route
from .writes import create, update

Json = Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, what it is, and the server's time; `as_of`: read what was there then (an old cache)."""

    request: Request
    at: Route
    now: datetime
    as_of: datetime | None = None


def apply(state: State, request: Request, now: datetime, *, as_of: datetime | None = None) -> Response:
    """The answer to a request; refusals are answers too."""
    try:
        at = route(request)
        return ANSWERS[at.name](state, Asked(request, at, now, as_of))
    except Refusal as refusal:
        return refusal.response()


def _metadata(state: State, asked: Asked) -> Response:
    return Response(200, capability_statement(state.personality, state.url, stamp(asked.now)))


def _read(state: State, asked: Asked) -> Response:
    type, id = str(asked.at.type), str(asked.at.id)
    state.check(type, "read")
    there = state.newest((type, id), asked.as_of)
    if there is None:
        raise Refusal(404, f"{type}/{id} is not known")
    return _shown(there)


def _vread(state: State, asked: Asked) -> Response:
    type, id = str(asked.at.type), str(asked.at.id)
    state.check(type, "vread")
    kept = state.versions.get((type, id), ())
    there = next((v for v in kept if str(v.number) == asked.at.version), None)
    if there is None:
        raise Refusal(404, f"{type}/{id} has no version {asked.at.version}")
    return _shown(there)


def _shown(version: Version) -> Response:
    if version.resource is None:
        raise Refusal(410, f"{'/'.join(version.key)} was deleted")
    return Response(200, version.resource, {"etag": f'W/"{version.number}"'})


def _search(state: State, asked: Asked) -> Response:
    type = str(asked.at.type)
    state.check(type, "search")
    pairs = [*asked.request.query]
    if isinstance(asked.request.body, str):
        pairs += parse_qsl(asked.request.body, keep_blank_values=True)
    given = dict(pairs)
    found = state.found(type, [p for p in pairs if p[0] not in search.CONTROLS], asked.as_of)
    if "_sort" in given:
        found = search.sort(found, given["_sort"])
    if given.get("_summary") == "count":
        return Response(200, {"resourceType": "Bundle", "type": "searchset", "total": len(found)})
    entries = [{"fullUrl": _url(state, r), "resource": r, "search": {"mode": "match"}} for r in found]
    size = state.size_of(given.get("_count", ""))
    return state.page(entries, size, "searchset", asked.now, f"{state.url}/{type}?{urlencode(pairs)}")


def _url(state: State, resource: Json) -> str:
    return f"{state.url}/{resource['resourceType']}/{resource['id']}"


def _page(state: State, asked: Asked) -> Response:
    return state.next_page(dict(asked.request.query), asked.now)


def _history(state: State, asked: Asked) -> Response:
    type, id = asked.at.type, asked.at.id
    state.check(type, "history")
    if type is None and not any("history" in listed for listed in state.personality.interactions.values()):
        raise Refusal(405, "the history of the server is not supported")
    if id is not None and (str(type), id) not in state.versions:
        raise Refusal(404, f"{type}/{id} is not known")
    given = dict(asked.request.query)
    since = search.instant(given["_since"]) if "_since" in given else None
    entries = [
        _told(state, v)
        for v in state.log.since(type, since)
        if id in (None, v.key[1]) and (since is None or search.instant(v.updated) >= since)
    ]
    where = "/".join(part for part in (type, id, "_history") if part)
    size = state.size_of(given.get("_count", ""))
    return state.page(entries, size, "history", asked.now, f"{state.url}/{where}")


def _told(state: State, version: Version) -> Json:
    """An entry of a history."""
    type, id = version.key
    url = type if version.method == "POST" else f"{type}/{id}"
    made = {
        "fullUrl": f"{state.url}/{type}/{id}",
        "request": {"method": version.method, "url": url},
        "response": bundles.told(version, 201 if version.number == 1 else 200),
    }
    return made if version.resource is None else made | {"resource": version.resource}


def _create(state: State, asked: Asked) -> Response:
    condition = asked.request.headers.get("if-none-exist")
    return _written(state, asked, *create(state, asked.at.type, asked.request.body, condition, asked.now))


def _update(state: State, asked: Asked) -> Response:
    sent, at = asked.request, asked.at
    condition = urlencode(sent.query, safe="|:/,") if at.id is None else None
    match = sent.headers.get("if-match")
    made = update(state, at.type, at.id, sent.body, match, asked.now, condition=condition)
    return _written(state, asked, *made)


def _written(state: State, asked: Asked, version: Version, status: int) -> Response:
    """A write's answer: the resource, or nothing where the client or the server wants it short."""
    wanted = asked.request.headers.get("prefer", "")
    short = "return=minimal" in wanted or (
        state.personality.returns == "minimal" and "return=representation" not in wanted
    )
    told = {"location": f"{state.url}/{version.location}", "etag": f'W/"{version.number}"'}
    return Response(status, None if short else version.resource, told)


def _delete(state: State, asked: Asked) -> Response:
    type, id = str(asked.at.type), str(asked.at.id)
    state.check(type, "delete")
    gone = state.remove((type, id), asked.now)
    return Response(200, outcome(200, "deleted" if gone else "was not there"))


def _match(state: State, asked: Asked) -> Response:
    """Patient/$match: certain where one patient has one of the identifiers."""
    state.check("Patient", "search")
    body = asked.request.body
    named = body.get("parameter", ()) if isinstance(body, dict) else ()
    sought = next((p.get("resource") for p in named if p.get("name") == "resource"), None)
    if not isinstance(sought, dict):
        raise Refusal(400, "a Parameters resource with the patient as `resource` is posted here")
    wanted = set(search.identifiers(sought))
    found = [r for r in state.current("Patient", asked.as_of) if wanted & set(search.identifiers(r))]
    grade = {"url": MATCH_GRADE, "valueCode": "certain" if len(found) == 1 else "possible"}
    how = {"mode": "match", "score": 1, "extension": [grade]}
    entries = [{"fullUrl": _url(state, r), "resource": r, "search": how} for r in found]
    return Response(200, searchset(entries, "searchset", stamp(asked.now), len(entries), []))


MATCH_GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"


def _subscription_status(state: State, asked: Asked) -> Response:
    state.check_bundle("subscription_operations")
    return subscriptions.status(state, str(asked.at.id), asked.now)


def _subscription_events(state: State, asked: Asked) -> Response:
    state.check_bundle("subscription_operations")
    return subscriptions.events(state, str(asked.at.id), asked.request, asked.now)


def _transaction(state: State, asked: Asked) -> Response:
    state.check_bundle("transaction")
    return bundles.transaction(state, asked.request, asked.now)


def _batch(state: State, asked: Asked) -> Response:
    state.check_bundle("batch")
    return bundles.batch(state, asked.request, asked.now, apply)


ANSWERS: dict[str, Callable[[State, Asked], Response]] = {
    "metadata": _metadata,
    "read": _read,
    "vread": _vread,
    "search": _search,
    "page": _page,
    "history": _history,
    "create": _create,
    "update": _update,
    "delete": _delete,
    "match": _match,
    "subscription-status": _subscription_status,
    "subscription-events": _subscription_events,
    "transaction": _transaction,
    "batch": _batch,
}
