"""How a fault shows: the answer that is given all the same, and what goes over the wire. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from mappings.exact_json import dumps

from . import bundles
from .faults import KINDS, Fault
from .interactions import apply
from .personality import overridden
from .state import State
from .wire import Refusal, Request, Response, outcome

Json = Any
FHIR_JSON = "application/fhir+json;charset=UTF-8"
PAGE = b"<html><head><title>Please log in</title></head><body><p>Session expired.</p></body></html>"
DROPS = 8


@dataclass(frozen=True, slots=True)
class Sending:
    """What goes over the wire: nothing before `wait_s`, then `chunks` with `pause_s` between them.

    `ends`: the connection is then closed; `resets`: it is broken off instead (RST).
    """

    chunks: tuple[bytes, ...] = ()
    wait_s: float = 0.0
    pause_s: float = 0.0
    ends: bool = False
    resets: bool = False


def answer(
    state: State, request: Request, now: datetime, fault: Fault | None, former: Response | None = None
) -> Response:
    """What the server answers under this fault, and does; `former` is its answer to an earlier request."""
    if fault is None:
        return apply(state, request, now)
    if not KINDS[fault.kind].applies:
        return status_of(fault, now)
    if fault.kind in BEFORE:
        return BEFORE[fault.kind](state, request, now, fault)
    made = apply(state, request, now)
    if fault.kind == "status-after":
        return status_of(fault, now)
    if fault.kind == "other" and former is not None:
        return former
    return AFTER[fault.kind](made) if fault.kind in AFTER else made


def status_of(fault: Fault, now: datetime) -> Response:
    """The answer of a fault that is a status."""
    status = int(fault.parameters.get("status", 503))
    after = fault.parameters.get("retry_after")
    headers: Mapping[str, str] = {}
    if after == "date":
        headers = {"retry-after": format_datetime(now + timedelta(seconds=1), usegmt=True)}
    elif after is not None:
        headers = {"retry-after": str(after)}
    body = outcome(status, "a fault of the plan") if fault.parameters.get("outcome") else None
    return Response(status, body, headers)


# --- what changes the effect ----------------------------------------------------------------------------


def _stale(state: State, request: Request, now: datetime, fault: Fault) -> Response:
    return apply(state, request, now, as_of=now - timedelta(seconds=float(fault.parameters["seconds"])))


def _race(state: State, request: Request, now: datetime, fault: Fault) -> Response:
    """Every record that the request names is saved by somebody else first, who changed nothing in it."""
    if request.path:
        named = [request.path]
    else:
        try:
            named = [e.url for e in bundles.entries_of(request.body) if e.method == "PUT"]
        except Refusal:
            named = []
    for url in named:
        type, _, id = url.partition("/")
        state.touch((type, id), now)
    return apply(state, request, now)


def _torn(state: State, request: Request, now: datetime, fault: Fault) -> Response:
    """A server whose transactions are none."""
    try:
        entries = bundles.entries_of(request.body)
        half = max(1, len(entries) // 2)
        for number, _ in enumerate(bundles.written(state, entries, now), start=1):
            if number == half:
                break
    except Refusal as refusal:
        return refusal.response()
    return Response(500, outcome(500, "the transaction was broken off"))


def _partial(state: State, request: Request, now: datetime, fault: Fault) -> Response:
    body = request.body
    kept = body["entry"][0::2]
    made = apply(state, replace(request, body=body | {"entry": kept}), now)
    if made.status != 200:
        return made
    refused = {"response": {"status": "503 Service Unavailable", "outcome": outcome(503, "busy")}}
    answers = iter(made.body["entry"])
    entries = [refused if n % 2 else next(answers) for n in range(len(body["entry"]))]
    return replace(made, body=made.body | {"entry": entries})


def _forgetful(state: State, request: Request, now: datetime, fault: Fault) -> Response:
    kept = state.personality
    state.personality = overridden(kept, {"loses": ("extensions", *kept.loses)})
    try:
        return apply(state, request, now)
    finally:
        state.personality = kept


BEFORE: dict[str, Callable[[State, Request, datetime, Fault], Response]] = {
    "stale": _stale,
    "race": _race,
    "torn": _torn,
    "partial": _partial,
    "drop-extensions": _forgetful,
}


def _reordered(change: Callable[[list[Json]], list[Json]]) -> Callable[[Response], Response]:
    def changed(made: Response) -> Response:
        if made.status != 200 or not made.body.get("entry"):
            return made
        return replace(made, body=made.body | {"entry": change(made.body["entry"])})

    return changed


AFTER: dict[str, Callable[[Response], Response]] = {
    "swapped": _reordered(lambda entries: entries[1:] + entries[:1]),
    "short": _reordered(lambda entries: entries[:-1]),
    "doubled": _reordered(lambda entries: [*entries[:-1], entries[0]]),
}


# --- what goes over the wire ----------------------------------------------------------------------------

REASON = {400: "Bad Request", 404: "Not Found", 409: "Conflict", 412: "Precondition Failed"}


def sending(made: Response, now: datetime, fault: Fault | None = None) -> Sending:
    """The bytes of an answer, or what a fault leaves of them."""
    body = dumps(made.body) if made.body is not None else b""
    if fault is None:
        return Sending((_head(made, now, len(body)) + body,))
    return WIRE[fault.kind](made, now, body, fault) if fault.kind in WIRE else sending(made, now)


def _head(
    made: Response, now: datetime, length: int, type: str = FHIR_JSON, status: int | None = None
) -> bytes:
    code = status or made.status
    lines = [f"HTTP/1.1 {code} {REASON.get(code, 'OK' if code < 300 else 'Error')}"]
    lines += [
        f"Date: {format_datetime(now, usegmt=True)}",
        f"Content-Type: {type}",
        f"Content-Length: {length}",
    ]
    lines += [f"{name.title()}: {value}" for name, value in made.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


Wire = Callable[[Response, datetime, bytes, Fault], Sending]


def _whole(made: Response, now: datetime, body: bytes) -> bytes:
    return _head(made, now, len(body)) + body


def _drops(made: Response, now: datetime, body: bytes, fault: Fault) -> Sending:
    whole = _whole(made, now, body)
    size = max(1, -(-len(whole) // DROPS))
    chunks = tuple(whole[at : at + size] for at in range(0, len(whole), size))
    return Sending(chunks, pause_s=float(fault.parameters["seconds"]) / DROPS)


def _later(made: Response, now: datetime, body: bytes, fault: Fault) -> Sending:
    return Sending((_whole(made, now, body),), wait_s=float(fault.parameters["seconds"]))


WIRE: dict[str, Wire] = {
    "reset-before": lambda made, now, body, fault: Sending(resets=True),
    "reset-after": lambda made, now, body, fault: Sending(resets=True),
    "lost": lambda made, now, body, fault: Sending(ends=True),
    "hang": lambda made, now, body, fault: Sending(wait_s=float(fault.parameters["seconds"]), ends=True),
    "delay": _later,
    "drip": _drops,
    "truncated": lambda made, now, body, fault: Sending(
        (_head(made, now, len(body)) + body[: len(body) // 2],), ends=True
    ),
    "invalid-json": lambda made, now, body, fault: Sending((_whole(made, now, body[: len(body) // 2]),)),
    "html": lambda made, now, body, fault: Sending(
        (_head(made, now, len(PAGE), "text/html;charset=UTF-8", 200) + PAGE,)
    ),
    "empty": lambda made, now, body, fault: Sending((_head(made, now, 0, status=200),)),
    "content-type": lambda made, now, body, fault: Sending(
        (_head(made, now, len(body), "text/plain;charset=UTF-8") + body,)
    ),
    "length-long": lambda made, now, body, fault: Sending(
        (_head(made, now, len(body) + 20) + body,), ends=True
    ),
    "length-short": lambda made, now, body, fault: Sending(
        (_head(made, now, max(0, len(body) - 20)) + body,), ends=True
    ),
    "duplicate": lambda made, now, body, fault: Sending((_whole(made, now, body) * 2,)),
}
