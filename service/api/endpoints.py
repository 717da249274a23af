"""/api/v1/endpoints: the EHRs that events are sent to and read from, and receivers of HL7 v2."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from flask import Response
from sqlalchemy import Connection

from mappings import MappingError
from mappings.envelope import Strictly
from mappings.fields import Flag, Line, Part, Strict, Whole, Words, refuse
from mappings.hl7v2 import sender_map
from service.problems import Refused
from service.steering import CannotChange, alter_endpoint, change_endpoint
from service.store import audit, deliveries, drift, endpoints, gates
from service.store.drift import Run
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.keys import Caller
from service.store.times import stamp
from service.sync import capability, survey
from service.sync.capability import Matrix
from service.sync.gate import Gate
from service.sync.messages import map_of
from service.sync.moved import why_not_the_same
from service.sync.scorecard import message_card, scorecard
from service.sync.worker import connect
from service.web import Blueprint, answer, caller, services

from . import described
from .deliveries import Reason
from .drift import summary

Json = Any
blueprint = Blueprint(
    "endpoints", __name__, url_prefix="/api/v1/endpoints", description="The EHRs of this service"
)

_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4000}")


class Headers(Strict):
    """HTTP headers sent with each request to the EHR, e.g. Authorization; never shown again."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise refuse("type", "must be an object of header names and values")
        for name, text in value.items():
            if not _HEADER.fullmatch(name) or not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text):
                raise refuse("format", "needs header names, each with one line of printable ASCII")
        return value


class EndpointUrl(Line):
    """The address of a FHIR server, to which types and ids are appended, or of a receiver of HL7 v2."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        url = super()._deserialize(value, attr, data, **kwargs)
        try:
            parts = urlsplit(url)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if usable and url.startswith(endpoints.HL7V2_SCHEMES):
            usable = parts.port is not None and parts.path in ("", "/")
        elif usable:
            usable = parts.scheme in ("http", "https")
        if not usable or parts.username or parts.password or parts.query or parts.fragment:
            words = "must be the http(s) base URL of a FHIR server, without user, query or #"
            raise refuse("format", f"{words}, or mllp(s)://HOST:PORT")
        return url


class Receiver(Strict):
    """How messages for a receiver are written: what a sender's file may say (docs/hl7.md), as an object."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Json:
        try:
            how = sender_map(value)
        except MappingError as error:
            raise refuse("hl7v2", "; ".join(f"{i.path}: {i.message}" for i in error.issues)) from None
        if (how.accept_ack, how.application_ack) not in ANSWERED:
            words = "what was not answered would be sent again and again"
            raise refuse("hl7v2", f"application_ack must be AL, or NE with accept_ack AL: {words}")
        return value


ANSWERED = {("AL", "NE")} | {(accept, "AL") for accept in ("AL", "NE", "ER", "SU")}
"""MSH-15 and MSH-16 with which each message gets the answer that counts, whatever comes of it."""
FILES = ("ca_file", "cert_file", "key_file")


class Options(Strictly):
    """How an EHR is treated."""

    create_missing_patients = Flag(metadata={"description": "for test servers only"})
    claim_profiles = Flag(
        metadata={"description": "false for an EHR that refuses a claim of a profile it does not know"}
    )
    poll_seconds = Whole(1, 86_400)
    overlap_seconds = Whole(1, 86_400)
    batch_size = Whole(
        1,
        500,
        metadata={"description": "about how many resources go in one transaction; 1: each event alone"},
    )
    requests_per_second = Whole(
        0, 1000, metadata={"description": "at most so many, from all workers together; 0: no limit"}
    )
    parallel = Whole(1, 16, metadata={"description": "requests at a time, from one process"})
    allow_types = Words(
        *capability.WRITTEN,
        metadata={"description": "types that are written although its CapabilityStatement does not offer it"},
    )
    refuse_types = Words(*capability.WRITTEN, metadata={"description": "types that are never written"})
    reconcile_hours = Whole(
        0, 8760, metadata={"description": "how often to compare it with the ledger; 0: never by itself"}
    )
    reconcile_fix = Flag(metadata={"description": "whether such a comparison mends what it may"})
    transactions = Flag(metadata={"description": "whether transactions are sent, whatever it says itself"})
    headers = Headers()
    hl7v2 = Receiver(metadata={"description": "of a receiver of HL7 v2: how messages for it are written"})
    sender = Line(
        pattern=r"[a-z0-9-]{1,40}",
        words="must be the name of a sender in the file of ITB_MLLP_SENDERS",
        metadata={"description": "what this sender tells us by HL7 v2 is not sent back to it"},
    )
    answer_seconds = Whole(1, 600, metadata={"description": "how long to wait for an acknowledgement"})
    ca_file = Line(most=1000, metadata={"description": "authorities (PEM) of an mllps:// receiver"})
    cert_file = Line(most=1000, metadata={"description": "our certificate (PEM) for it"})
    key_file = Line(most=1000, metadata={"description": "its key, where it is not in cert_file"})


class NewEndpoint(Strictly):
    """An EHR to add."""

    name = Line(
        required=True,
        pattern=r"[a-z0-9-]{1,40}",
        words="must match [a-z0-9-]{1,40}: it names the source of what this EHR writes",
    )
    url = EndpointUrl(required=True, most=2000)
    options = Part(Options())
    backfill = Flag()

    def whole(self, data: Any) -> None:
        if why := misfit(data["url"], data.get("options", {})):
            raise refuse("url", why)


class EndpointChange(Strictly):
    """What to change of an endpoint; what is not named stays. `headers` and lists are replaced whole."""

    url = EndpointUrl(most=2000, metadata={"description": "where the same EHR is found now"})
    options = Part(Options())
    defaults = Words(
        *Options().fields, metadata={"description": "options that are to be as if they had never been given"}
    )


def misfit(url: str, options: Json) -> str | None:
    """Why these options do not go with this kind of URL: they would do nothing, without a word."""
    scheme = urlsplit(url).scheme
    if any(name in options for name in FILES) and scheme != "mllps":
        return f"{', '.join(FILES)} are for an mllps:// receiver"
    if scheme not in ("mllp", "mllps") and options.keys() & {"hl7v2", "sender", "answer_seconds"}:
        return "hl7v2, sender and answer_seconds are for an mllp:// receiver"
    return None


def apply_change(
    store: Store, who: Caller, found: Endpoint, change: Json, clock: Callable[[], datetime]
) -> Endpoint:
    """The endpoint, changed; raises `CannotChange`. Another URL is asked whether it is the same EHR's."""
    url = change.get("url", found.url).rstrip("/")
    kept = {name: v for name, v in found.options.items() if name not in change.get("defaults", ())}
    options = endpoints.DEFAULT_OPTIONS | kept | change.get("options", {})
    wanted = replace(found, url=url, options=options)
    if wanted.is_hl7v2 is not found.is_hl7v2:
        raise CannotChange("a FHIR server and a receiver of HL7 v2 are two endpoints: add the other", "kind")
    if why := misfit(url, options):
        raise CannotChange(why, "url")
    if url != found.url and not wanted.is_hl7v2 and (why := why_not_the_same(store, connect(wanted), found)):
        raise CannotChange(f"{url} is not known to be the same EHR: {why}", "another-server")
    with store.write() as c:
        now_there = endpoints.by_id(c, found.id)
        if now_there is None or not now_there.is_as(found):
            raise CannotChange("somebody else has changed it meanwhile: look at it again", "changed")
        others = [one for one in endpoints.every(c, who.tenant_id) if one.id != found.id]
        if endpoints.of_sender(others, options.get("sender", "")) is not None:
            raise CannotChange("another endpoint is this sender's", "sender-taken")
        return alter_endpoint(c, who, now_there, replace(now_there, url=url, options=options), now=clock())


def shown(endpoint: Endpoint, matrix: Matrix | None = None, run: Run | None = None) -> Json:
    """An endpoint as JSON; of its headers only the names, of what it can do and holds the summary."""
    return {
        "name": endpoint.name,
        "url": endpoint.url,
        "enabled": endpoint.enabled,
        "options": endpoint.options
        | {"headers": dict.fromkeys(endpoint.options["headers"], "(set)")}
        | ({"hook_secret_hash": "(set)"} if "hook_secret_hash" in endpoint.options else {}),
        "created_at": endpoint.created_at,
        "read_until": endpoint.cursor,
        "server": matrix and _server(matrix),
        "drift": run and summary(run),
    }


def _server(matrix: Matrix) -> Json:
    return {
        "software": matrix.software,
        "fhir_version": matrix.fhir_version,
        "transactions": matrix.transactions,
        "problems": capability.problems(matrix),
        "by_option": list(matrix.by_option),
    }


def _one(endpoint: Endpoint) -> Json:
    made = services()
    with made.store.read() as c:
        run = drift.latest(c, endpoint.id, finished=True)
        gate = Gate(**gates.find(c, endpoint.id))
    until = stamp(gate.until) if gate.until is not None else None
    breaker = {"state": gate.state(made.clock()), "failures": gate.failures, "until": until}
    return shown(endpoint, survey.known(made.store, endpoint), run) | {"breaker": breaker}


@blueprint.route("", methods=["GET"])
@blueprint.doc(responses=described.answers(ok="EndpointList"))
def list_endpoints() -> Response:
    """Every EHR, by name."""
    with services().store.read() as c:
        found = endpoints.every(c, caller().tenant_id)
    return answer({"endpoints": [_one(endpoint) for endpoint in found]})


@blueprint.route("", methods=["POST"])
@blueprint.arguments(NewEndpoint())
@blueprint.doc(responses=described.answers(400, 409, 413, 415, 422, ok="Endpoint", status=201))
def add_endpoint(new: Json) -> Response:
    """Add an EHR; events accepted from now on are sent to it, with `backfill` also what was before."""
    made, who = services(), caller()
    now = made.clock()
    with made.store.write() as c:
        if endpoints.find(c, who.tenant_id, new["name"]) is not None:
            raise Refused(409, "an endpoint has this name already", rule="name-taken", path="name")
        known = endpoints.every(c, who.tenant_id)
        if endpoints.of_sender(known, new.get("options", {}).get("sender", "")) is not None:
            raise Refused(
                409, "another endpoint is this sender's", rule="sender-taken", path="options.sender"
            )
        added = endpoints.add(c, who.tenant_id, new["name"], new["url"], new.get("options", {}), now=now)
        if new.get("backfill"):
            deliveries.catch_up(c, added, now=now, from_the_start=True)
        audit.write(
            c, who.tenant_id, at=stamp(now), actor=who.name, action="add", subject=f"endpoint/{added.name}"
        )
    return answer(_one(added), 201)


@blueprint.route("/<name>", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="Endpoint"))
def get_endpoint(name: str) -> Response:
    """One EHR."""
    with services().store.read() as c:
        found = _named(c, name)
    return answer(_one(found))


@blueprint.route("/<name>", methods=["PATCH"])
@blueprint.arguments(EndpointChange())
@blueprint.doc(responses=described.answers(400, 404, 409, 413, 415, 422, ok="Endpoint"))
def change_options(change: Json, name: str) -> Response:
    """Change where an EHR is found and how it is treated; what was delivered and read stays known."""
    made = services()
    with made.store.read() as c:
        found = _named(c, name)
    try:
        return answer(_one(apply_change(made.store, caller(), found, change, made.clock)))
    except CannotChange as error:
        raise Refused(409, str(error), rule=error.rule, path="$") from None


@blueprint.route("/<name>/scorecard", methods=["GET"])
@blueprint.doc(responses=described.answers(404, 409, ok="Scorecard"))
def get_scorecard(name: str) -> Response:
    """What its server can take, which form each type of event gets there, and what would be lost."""
    with services().store.read() as c:
        found = endpoints.find(c, caller().tenant_id, name)
    if found is None:
        raise Refused(404, "no endpoint has this name")
    if found.is_hl7v2:
        return answer({"endpoint": name, "url": found.url, **message_card(map_of(found))})
    matrix = survey.known(services().store, found)
    if matrix is None:
        raise Refused(409, "its CapabilityStatement was not read yet", rule="not-read", path="name")
    return answer({"endpoint": name, "url": found.url, **scorecard(matrix)})


@blueprint.route("/<name>/pause", methods=["POST"])
@blueprint.doc(responses=described.answers(404, ok="Endpoint"))
def pause_endpoint(name: str) -> Response:
    """Stop sending to and reading from an EHR; what is accepted meanwhile is sent after `resume`."""
    return _switch(name, enabled=False)


@blueprint.route("/<name>/resume", methods=["POST"])
@blueprint.doc(responses=described.answers(404, ok="Endpoint"))
def resume_endpoint(name: str) -> Response:
    """Send to and read from an EHR again, beginning with what it missed."""
    return _switch(name, enabled=True)


@blueprint.route("/<name>/retry", methods=["POST"])
@blueprint.doc(responses=described.answers(404, ok="Changed"))
def retry_endpoint(name: str) -> Response:
    """Try everything that failed or was parked on the way to an EHR again now."""
    return _changed(name, "retry")


@blueprint.route("/<name>/cancel", methods=["POST"])
@blueprint.arguments(Reason())
@blueprint.doc(responses=described.answers(400, 404, 413, 415, 422, ok="Changed"))
def cancel_endpoint(body: Json, name: str) -> Response:
    """Leave out everything that is on its way to an EHR."""
    return _changed(name, "cancel", body["reason"])


@blueprint.route("/<name>/skip", methods=["POST"])
@blueprint.arguments(Reason())
@blueprint.doc(responses=described.answers(400, 404, 413, 415, 422, ok="Changed"))
def skip_endpoint(body: Json, name: str) -> Response:
    """Go on without everything that failed or was parked on the way to an EHR."""
    return _changed(name, "skip", body["reason"])


def _switch(name: str, *, enabled: bool) -> Response:
    made = services()
    with made.store.write() as c:
        found = _named(c, name)
        change_endpoint(c, caller(), found, "resume" if enabled else "pause", None, now=made.clock())
        found = _named(c, name)
    return answer(_one(found))


def _changed(name: str, action: str, reason: str | None = None) -> Response:
    made = services()
    with made.store.write() as c:
        number = change_endpoint(c, caller(), _named(c, name), action, reason, now=made.clock())
    return answer({"endpoint": name, "changed": number})


def _named(c: Connection, name: str) -> Endpoint:
    found = endpoints.find(c, caller().tenant_id, name)
    if found is None:
        raise Refused(404, "no endpoint has this name")
    return found
