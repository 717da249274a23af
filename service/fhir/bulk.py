"""/fhir/$export: bulk data, asked for, polled and fetched (FHIR Bulk Data Access; docs/bulk.md)."""

from __future__ import annotations

import threading
import uuid
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from wsgiref.handlers import format_date_time

from flask import Blueprint, Response, request
from marshmallow import ValidationError

from mappings.fields import Moment, instant
from mappings.identity import SOURCE
from service.problems import FHIR_JSON, Refused
from service.store import bulk, cohort
from service.store.bulk import BulkJob
from service.store.times import moment, stamp
from service.telemetry import where
from service.web import Services, answer, caller, check_content_type, read_json, services

from . import bulk_export
from .bulk_export import DELETED, Asked
from .record import EVENTS_OF
from .search import JSON_RANGES

Json = Any
blueprint = Blueprint("bulk", __name__, url_prefix="/fhir")
NDJSON = "application/fhir+ndjson"
KNOWN = frozenset({"_type", "_since", "_outputFormat"})
FORMATS = (NDJSON, "application/ndjson", "ndjson")
ASKED_BY = ("GET", "POST")
"""A POST has its parameters in a Parameters resource (Bulk Data Access 2.0)."""
KEPT = timedelta(hours=24)
SILENT = timedelta(seconds=5)
"""A job whose worker gave no sign for so long is begun again: its process is gone."""
POLL_S = 1
STATUS = "$export-poll-status"
EVERYONE, OF_SOURCE = "all", "source."
WORKER = uuid.uuid4().hex
"""This process."""


@blueprint.route("/$export", methods=ASKED_BY)
@blueprint.route("/Patient/$export", methods=ASKED_BY)
def system_export() -> Response:
    """Everything: all that is here is about patients, so both levels give the same."""
    return _begin(None)


@blueprint.route("/Group/<id>/$export", methods=ASKED_BY)
def group_export(id: str) -> Response:
    """The patients of a group: `all`, or `source.NAME` of whom NAME has told something."""
    if id == EVERYONE:
        return _begin(None)
    source = id.removeprefix(OF_SOURCE)
    named = source != id and SOURCE.fullmatch(source)
    with services().store.read() as c:
        if not named or not cohort.has_source(c, caller().tenant_id, source):
            raise Refused(404, f"no such Group: there is {EVERYONE}, and {OF_SOURCE}NAME for each source")
    return _begin(source)


@blueprint.get(f"/{STATUS}/<id>")
def status(id: str) -> Response:
    """202 with X-Progress while it runs, then the manifest."""
    job = _job(id)
    if job.status == "failed":
        raise Refused(500, "this export failed; ask for it again")
    if job.status == "running":
        ensure_running(services(), job)
        made = Response(status=202)
        made.headers["X-Progress"] = job.progress or "begun"
        made.headers["Retry-After"] = str(POLL_S)
        return made
    made = answer(_manifest(job))
    made.headers["Expires"] = format_date_time(moment(job.expires_at).timestamp())
    return made


@blueprint.delete(f"/{STATUS}/<id>")
def cancel(id: str) -> Response:
    """Stop a job, or forget its files."""
    _job(id)
    with services().store.write() as c:
        bulk.remove(c, caller(), id)
    return Response(status=202)


@blueprint.get(f"/{STATUS}/<id>/<name>")
def file(id: str, name: str) -> Response:
    """One file of the manifest, line by line."""
    lines = bulk_export.lines(services().store, _job(id), name)
    if lines is None:
        raise Refused(404, "this export has no such file")
    return Response(lines, mimetype=NDJSON)


# --- helpers of the handlers ------------------------------------------------------------------------------


def _begin(source: str | None) -> Response:
    accepted = request.accept_mimetypes
    if accepted and not any(w and r.partition(";")[0] in JSON_RANGES for r, w in accepted):
        raise Refused(406, f"Accept must be {FHIR_JSON}")
    preferred = {part.strip() for part in request.headers.get("Prefer", "").split(",")}
    if "respond-async" not in preferred:
        raise Refused(400, "an export needs Prefer: respond-async", path="Prefer", rule="bulk")
    asked = _asked(source, lenient="handling=lenient" in preferred)
    made, id = services(), uuid.uuid4().hex
    with made.store.write() as c:
        # Under the lock of every writer: nothing that is numbered later says an earlier time.
        now = made.clock()
        bulk.purge(c, now=now)
        other = bulk.running(c, caller(), now=now)
        if other is None:
            up_to = cohort.newest_seq(c, caller().tenant_id)
            bulk.add(
                c,
                id,
                caller(),
                request=request.url,
                asked=asdict(asked),
                up_to=up_to,
                now=now,
                expires_at=now + KEPT,
            )
            other = bulk.find(c, caller(), id, now=now)
    assert other is not None
    ensure_running(made, other)
    if other.id != id:
        raise Refused(429, "an export of this key is running; let it end, or DELETE it", rule="bulk")
    answered = Response(status=202)
    answered.headers["Content-Location"] = f"{_base()}/{STATUS}/{id}"
    return answered


def _asked(source: str | None, *, lenient: bool) -> Asked:
    """The parameters; what is not known is refused, or left out where the client is lenient."""
    types: list[str] = []
    since = None
    for name, value in _given():
        if name in KNOWN and not isinstance(value, str):
            raise Refused(400, "must have one value, a text or an instant", path=name, rule="bulk")
        if name == "_type":
            types += [type for type in value.split(",") if type]
        elif name == "_since":
            since = _instant(value)
        elif name == "_outputFormat":
            if value.replace(" ", "+") not in FORMATS:
                raise Refused(400, f"known: {', '.join(FORMATS)}", path=name, rule="bulk")
        elif not lenient:
            why = "is not supported; Prefer: handling=lenient leaves it out"
            raise Refused(400, why, path=name, rule="bulk")
    unknown = [type for type in types if type not in EVENTS_OF]
    if unknown and not lenient:
        raise Refused(400, f"this server has {', '.join(EVENTS_OF)}", path="_type", rule="bulk")
    if types and len(unknown) == len(types):
        raise Refused(400, "none of these types is here", path="_type", rule="bulk")
    kept = tuple(type for type in EVENTS_OF if type in types)
    return Asked(kept, since, source)


def _given() -> list[tuple[str, Any]]:
    """(name, value) of each parameter, from the address and from what is posted; None for other values."""
    given: list[tuple[str, Any]] = list(request.args.items(multi=True))
    if request.method != "POST":
        return given
    check_content_type(FHIR_JSON, "application/json")
    posted = read_json(services().settings.max_body_bytes)
    whole = isinstance(posted, dict) and posted.get("resourceType") == "Parameters"
    listed = posted.get("parameter", []) if whole else None
    if not isinstance(listed, list) or not all(_is_named(one) for one in listed):
        raise Refused(400, "a Parameters resource is posted here", path="resourceType", rule="bulk")
    return given + [(one["name"], _text(one)) for one in listed]


def _is_named(parameter: Json) -> bool:
    return isinstance(parameter, dict) and isinstance(parameter.get("name"), str)


def _text(parameter: Json) -> str | None:
    values = [value for name, value in parameter.items() if name.startswith("value")]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _instant(text: str) -> str:
    try:
        # A + that was not written as %2B arrives as a space.
        return stamp(instant(Moment().deserialize(text.replace(" ", "+"))) - bulk_export.OVERLAP)
    except (ValidationError, OverflowError):
        why = "must be an instant such as 2026-01-01T00:00:00Z"
        raise Refused(400, why, path="_since", rule="bulk") from None


def _job(id: str) -> BulkJob:
    with services().store.read() as c:
        found = bulk.find(c, caller(), id, now=services().clock())
    if found is None:
        raise Refused(404, "there is no such export of this key; it may have expired")
    return found


def _manifest(job: BulkJob) -> Json:
    listed: dict[bool, list[Json]] = {True: [], False: []}
    for kept in job.files:
        url = f"{_base()}/{STATUS}/{job.id}/{kept['name']}"
        gone = kept["type"] == DELETED
        entry = {"type": "Bundle" if gone else kept["type"], "url": url, "count": kept["count"]}
        listed[gone].append(entry)
    return {
        "transactionTime": job.transaction_time,
        "request": job.request,
        "requiresAccessToken": services().settings.require_key,
        "output": listed[False],
        "deleted": listed[True],
        "error": [],
    }


def _base() -> str:
    return f"{request.url_root.rstrip('/')}/fhir"


# --- working on it ----------------------------------------------------------------------------------------


def ensure_running(made: Services, job: BulkJob) -> None:
    """Begin a job that nobody works on, in a thread of this process."""
    now = made.clock()
    with made.store.write() as c:
        if not bulk.claim(c, job, WORKER, now=now, silent_since=now - SILENT):
            return
    threading.Thread(target=_work, args=(made, job), name="itb-bulk", daemon=True).start()


def _work(made: Services, job: BulkJob) -> None:
    try:
        bulk_export.run(made.store, job, WORKER, made.clock)
    except Exception as error:
        made.log.error("bulk export failed", job=job.id, **where(error))
        with made.store.write() as c:
            bulk.beat(c, job.id, WORKER, now=made.clock(), status="failed")
