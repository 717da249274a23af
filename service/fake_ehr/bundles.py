"""A transaction, whole or not at all, and a batch, each entry by itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from .state import Key, State, Version
from .wire import REASONS, Refusal, Request, Response, outcome
from .writes import create, update

Json = Any
Apply = Callable[[State, Request, datetime], Response]
ORDER = ("DELETE", "POST", "PUT", "GET")
"""R4 "Transaction Processing Rules": an entry may refer to any other, whatever their order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its place in the bundle, its request, and what it writes."""

    place: int
    method: str
    url: str
    full_url: str | None
    resource: Json
    if_match: str | None
    if_none_exist: str | None

    @property
    def type(self) -> str:
        return self.url.partition("?")[0].partition("/")[0]

    @property
    def id(self) -> str | None:
        return self.url.partition("?")[0].partition("/")[2] or None

    @property
    def condition(self) -> str:
        return self.url.partition("?")[2]


def entries_of(bundle: Json) -> list[Entry]:
    """The entries of a bundle; Refusal 400 for one without a request."""
    made = []
    for place, one in enumerate(bundle.get("entry", ())):
        asked = one.get("request")
        if not isinstance(asked, dict) or asked.get("method") not in ORDER or not asked.get("url"):
            raise Refusal(400, f"entry {place} has no request that is understood")
        made.append(
            Entry(
                place,
                asked["method"],
                str(asked["url"]).lstrip("/"),
                one.get("fullUrl"),
                one.get("resource"),
                asked.get("ifMatch"),
                asked.get("ifNoneExist"),
            )
        )
    return made


def transaction(state: State, request: Request, now: datetime) -> Response:
    """Every entry's answer, in the order of the bundle; a Refusal undoes all of them."""
    entries = entries_of(request.body)
    before = len(state.log)
    answers: dict[int, Json] = {}
    try:
        for entry, made in written(state, entries, now):
            answers[entry.place] = _answer(made, "return=representation" in request.headers.get("prefer", ""))
    except Refusal:
        state.undo(before)
        raise
    ordered = [answers[entry.place] for entry in entries]
    return Response(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": ordered})


Made = tuple[Version | None, int]


def written(state: State, entries: list[Entry], now: datetime) -> Iterable[tuple[Entry, Made]]:
    """Do the entries one after the other, as R4 orders them; what each made."""
    ids = _ids(state, entries)
    targets = {e.full_url: "/".join(ids[e.place]) for e in entries if e.full_url and e.place in ids}
    for entry in sorted(entries, key=lambda e: ORDER.index(e.method)):
        id = ids[entry.place][1] if entry.place in ids else None
        yield entry, _do(state, entry, id, targets, now)


def _ids(state: State, entries: list[Entry]) -> dict[int, Key]:
    """What each writing entry will write to: known before, so that others may refer to it."""
    found: dict[int, Key] = {}
    by_condition: dict[tuple[str, str], Key] = {}
    for entry in entries:
        if entry.method not in ("POST", "PUT"):
            continue
        condition = entry.if_none_exist if entry.method == "POST" else entry.condition
        if entry.id is not None:
            taken = state.personality.client_ids != "rewritten" or (entry.type, entry.id) in state.versions
            found[entry.place] = (entry.type, entry.id if taken else state.new_id())
        elif condition and (entry.method == "PUT" or state.personality.if_none_exist == "kept"):
            there = state.matching(entry.type, condition)
            if len(there) > 1:
                raise Refusal(412, f"{len(there)} resources match the condition of entry {entry.place}")
            new = by_condition.get((entry.type, condition)) or (entry.type, state.new_id())
            found[entry.place] = by_condition[entry.type, condition] = there[0] if there else new
        else:
            found[entry.place] = (entry.type, state.new_id())
    return found


def _do(state: State, entry: Entry, id: str | None, targets: dict[str, str], now: datetime) -> Made:
    if entry.method == "POST":
        return create(state, entry.type, entry.resource, entry.if_none_exist, now, id=id, targets=targets)
    if entry.method == "PUT":
        match = entry.if_match if entry.id is not None else None
        return update(
            state, entry.type, id, entry.resource, match, now, targets=targets, made_id=id != entry.id
        )
    if entry.method == "DELETE":
        state.check(entry.type, "delete")
        return state.remove((entry.type, str(entry.id)), now), 204
    there = state.newest((entry.type, str(entry.id)))
    if there is None or there.resource is None:
        raise Refusal(404 if there is None else 410, f"{entry.url} is not here")
    return there, 200


def told(version: Version, status: int) -> Json:
    """`response` of an entry."""
    return {
        "status": f"{status} {REASONS[status]}",
        "location": version.location,
        "etag": f'W/"{version.number}"',
        "lastModified": version.updated,
    }


def _answer(made: Made, whole: bool) -> Json:
    version, status = made
    if version is None or version.resource is None:
        return {"response": {"status": f"{status} {REASONS[status]}"}}
    answer = {"response": told(version, status)}
    return answer | {"resource": version.resource} if whole else answer


def batch(state: State, request: Request, now: datetime, apply: Apply) -> Response:
    """Every entry's answer; one that is refused stops no other."""
    answers = []
    for entry in entries_of(request.body):
        answer = apply(state, as_request(entry, request), now)
        response: Json = {"status": f"{answer.status} {REASONS.get(answer.status, '')}".strip()}
        if "location" in answer.headers:
            response["location"] = answer.headers["location"].removeprefix(f"{state.url}/")
        if "etag" in answer.headers:
            response["etag"] = answer.headers["etag"]
        if answer.status >= 400:
            response["outcome"] = answer.body or outcome(answer.status, "refused")
        made = {"response": response}
        if answer.status < 400 and answer.body is not None:
            made["resource"] = answer.body
        answers.append(made)
    return Response(200, {"resourceType": "Bundle", "type": "batch-response", "entry": answers})


def as_request(entry: Entry, whole: Request) -> Request:
    """An entry of a batch as a request by itself."""
    path, _, query = entry.url.partition("?")
    headers = {"prefer": whole.headers.get("prefer", "")}
    if entry.if_match:
        headers["if-match"] = entry.if_match
    if entry.if_none_exist:
        headers["if-none-exist"] = entry.if_none_exist
    pairs = tuple(parse_qsl(query, keep_blank_values=True))
    return Request(entry.method, path, pairs, headers, entry.resource)
