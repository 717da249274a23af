"""POST and GET /api/v1/events: the ledger over HTTP.

One event: 201 accepted or corrected, 200 replayed, 409 conflict, 422 rejected. Many (array or NDJSON):
200 and a result for each, in order. A result is given only when it is on the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, request
from marshmallow import ValidationError, fields, validates_schema

from mappings import exact_json, explain
from mappings.bundle import neighbours
from mappings.dose_change import ALONE
from mappings.event import EVENT_TYPES, instant
from mappings.fields import Code, Moment
from mappings.rows import Issue
from service import intake
from service.intake import Loaded, Result
from service.problems import Refused, listed
from service.store import deliveries, endpoints
from service.store import events as ledger
from service.web import (
    NDJSON,
    Blueprint,
    answer,
    caller,
    check_content_type,
    read_body,
    read_chunks,
    services,
)

from . import described
from .deliveries import shown
from .paging import Page, cut, page

Json = Any
blueprint = Blueprint("events", __name__, url_prefix="/api/v1/events", description="The event ledger")

STATUS = {"accepted": 201, "corrected": 201, "replayed": 200, "conflict": 409, "rejected": 422}
SPOOL_BYTES = 1_000_000


@blueprint.route("", methods=["POST"])
@blueprint.doc(
    requestBody=described.events_body(),
    responses=described.answers(400, 409, 413, 415, 422, ok="Result", types=(described.JSON, NDJSON))
    | described.answers(ok="Result", status=201),
)
def add_events() -> Response:
    """Add one event, an array of events, or a stream of NDJSON.

    One bad event never stops the others. NDJSON is answered with NDJSON, a result a line; with
    `Accept: application/json` with an array.
    """
    if check_content_type("application/json", NDJSON) == NDJSON:
        return _many_lines(_load_lines(), _wants_array())
    settings = services().settings
    body = read_body(settings.max_body_bytes)
    sent = exact_json.loads(body)
    if isinstance(sent, list):
        return answer([_shown(result) for result in _take(intake.load(raw) for raw in sent)])
    if len(body) > settings.max_event_bytes:
        raise Refused(413, f"an event of at most {settings.max_event_bytes} bytes is accepted")
    return _one(next(_take([intake.load(sent)])))


def _one(result: Result) -> Response:
    status = STATUS[result.outcome]
    if status < 400:
        return answer(_shown(result), status)
    raise Refused(status, _summary(result), issues=result.issues, extra=_shown(result))


def _summary(result: Result) -> str:
    return f"{result.issues[0].path}: {result.issues[0].message}"


def _wants_array() -> bool:
    return request.accept_mimetypes.best_match([NDJSON, "application/json"]) == "application/json"


def _take(sent: Iterable[Loaded]) -> Iterator[Result]:
    made = services()
    for result in intake.take(made.store, caller(), sent, clock=made.clock):
        made.metrics.events.labels(result.outcome).inc()
        yield result


def _shown(result: Result) -> Json:
    return {
        "id": result.id,
        "source": result.source,
        "outcome": result.outcome,
        "issues": listed(result.issues),
        "deliveries": list(result.deliveries),
    }


def _load_lines() -> Iterator[Loaded]:
    """Every non-blank line of the body; a line that is too long is skipped in constant memory."""
    most = services().settings.max_event_bytes
    for line in split_lines(read_chunks(), most):
        if line is None:
            issue = Issue("$", "too-large", f"a line of at most {most} bytes is accepted")
            yield Loaded(None, None, None, (issue,))
        elif line.strip():
            yield intake.load_line(line.strip())


def split_lines(chunks: Iterable[bytes], most: int) -> Iterator[bytes | None]:
    """The lines of a stream of bytes; None for one longer than `most`."""
    held, skipping = b"", False
    for chunk in chunks:
        *whole, rest = (held + chunk).split(b"\n")
        for line in whole:
            yield None if skipping or len(line) > most else line
            skipping = False
        held, skipping = (b"", True) if len(rest) > most or skipping else (rest, False)
    if held or skipping:
        yield None if skipping else held


def _many_lines(sent: Iterator[Loaded], as_array: bool) -> Response:
    """The results, kept on disk until the last line was read: a client reads only after it has sent all."""
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  # closed with the answer
    for number, result in enumerate(_take(sent)):
        if as_array:
            spool.write(b"," if number else b"[")
        spool.write(exact_json.dumps(_shown(result)) + (b"" if as_array else b"\n"))
    if as_array:
        spool.write(b"]" if spool.tell() else b"[]")
    spool.seek(0)
    made = Response(
        iter(lambda: spool.read(65_536), b""), mimetype="application/json" if as_array else NDJSON
    )
    made.call_on_close(spool.close)
    return made


class EventQuery(Page):
    """Filters of the list."""

    pump = fields.String()
    patient = fields.String(metadata={"description": "system|value"})
    type = Code(*EVENT_TYPES)
    since = Moment(metadata={"description": "earliest occurred_at, with offset"})

    @validates_schema
    def _patient_is_a_token(self, data: Any, **kwargs: Any) -> None:
        if "patient" in data and "|" not in data["patient"]:
            raise ValidationError("must be system|value", "patient")


@blueprint.route("", methods=["GET"])
@blueprint.arguments(EventQuery(), location="query")
@blueprint.doc(responses=described.answers(422, ok="EventPage"))
def list_events(query: Json) -> Response:
    """The current version of each record, in the order in which they came."""
    patient = query.get("patient")
    with services().store.read() as c:
        found = ledger.search(
            c,
            caller().tenant_id,
            limit=query["limit"] + 1,
            after_seq=query["cursor"],
            pump=query.get("pump"),
            patient=tuple(patient.split("|", 1)) if patient else None,
            type=query.get("type"),
            since=instant(query["since"]) if "since" in query else None,
        )
    events, last = cut(found, query["limit"])
    return answer(page("events", [e.event for e in events], last and last.seq))


@blueprint.route("/<source>/<path:event_id>", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="Record"))
def get_event(source: str, event_id: str) -> Response:
    """One record: its current version, and every version with its deliveries."""
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        versions = ledger.find(c, tenant_id, source, event_id)
        if not versions:
            raise Refused(404, "no event has this source and id")
        names = {endpoint.id: endpoint.name for endpoint in endpoints.every(c, tenant_id)}
        sent = {v.seq: deliveries.of_event(c, v.seq) for v in versions}
    return answer(
        {
            "event": versions[-1].event,
            "versions": [
                {
                    "version": v.version,
                    "status": v.event.get("status", "final"),
                    "received_at": v.received_at,
                    "origin": v.origin,
                    "event": v.event,
                    "deliveries": [shown(d, names[d.endpoint_id], v) for d in sent[v.seq]],
                }
                for v in versions
            ],
        }
    )


@blueprint.route("/<source>/<path:event_id>/explain", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="Explanation"))
def explain_event(source: str, event_id: str) -> Response:
    """Where each element of the record's FHIR comes from, at its place in the pump's history."""
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        versions = ledger.find(c, tenant_id, source, event_id)
        if not versions:
            raise Refused(404, "no event has this source and id")
        event = versions[-1].event
        changes = ledger.timeline(c, tenant_id, event["pump"]) if event["type"] == "dose-change" else []
    others = [s.event for s in changes if s.event["type"] == "dose-change"]
    return answer(explain.shown(event, neighbours(event, others).place if others else ALONE))
