"""What every HTTP handler shares: the services of this application, the caller, bodies and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import flask_smorest  # type: ignore[import-untyped]  # it has no types
from flask import Response, current_app, g, request
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge

from mappings import exact_json
from mappings.fields import issues_of
from mappings.hl7v2 import SenderMap
from mappings.rows import Issue, MappingError

from .problems import FHIR_JSON, Refused
from .settings import Settings
from .store import keys
from .store.engine import Store
from .telemetry import Log, Metrics

Json = Any
Clock = Callable[[], datetime]
NDJSON = "application/x-ndjson"
JSON_TYPES = ("application/json", FHIR_JSON)
CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Services:
    """What `create_app` builds once."""

    settings: Settings
    store: Store
    clock: Clock
    metrics: Metrics
    log: Log
    senders: Mapping[str, SenderMap]


def services() -> Services:
    """The services of the application that answers this request."""
    made: Services = current_app.extensions["itb"]
    return made


def caller() -> keys.Caller:
    """Whose key this request came with."""
    found: keys.Caller = g.caller
    return found


def answer(value: Json, status: int = 200, mimetype: str = "application/json") -> Response:
    """JSON with every digit as it is."""
    return Response(exact_json.dumps(value), status, mimetype=mimetype)


def check_content_type(*accepted: str) -> str:
    """The body's content type, one of `accepted`; 415 for another, or for a compressed body."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(415, "compressed bodies are not accepted")
    if request.mimetype not in accepted:
        found = request.mimetype or "none"
        raise Refused(415, f"the content type is {found}; accepted: {', '.join(accepted)}")
    return request.mimetype


def read_body(most: int) -> bytes:
    """The body; 413 when it is longer than `most` bytes."""
    _check_sized()
    request.max_content_length = most
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise Refused(413, f"a body of at most {most} bytes is accepted") from None


def read_json(most: int) -> Json:
    """The body as exact JSON; raises `MappingError` when it is not JSON."""
    return exact_json.loads(read_body(most))


def read_chunks() -> Iterator[bytes]:
    """The body piece by piece, of any length."""
    _check_sized()
    request.max_content_length = None
    while chunk := request.stream.read(CHUNK):
        yield chunk


def _check_sized() -> None:
    """A server that cannot tell where the body ends would give us none: refuse rather than lose it."""
    chunked = "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    if chunked and not request.environ.get("wsgi.input_terminated"):
        raise Refused(400, "this server needs a Content-Length", rule="length-required")


class _Parser(FlaskParser):
    """webargs that reads JSON exactly, refuses unknown parameters, and fails as everything here fails."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE, "json": RAISE}

    def load_json(self, req: Any, schema: Any) -> Any:
        check_content_type("application/json")
        found = read_json(services().settings.max_body_bytes)
        if not isinstance(found, dict):
            raise MappingError([Issue("$", "type", "must be a JSON object")])
        return found

    def handle_error(self, error: Any, *args: Any, **kwargs: Any) -> NoReturn:
        found: Json = {}
        for location, messages in error.messages.items():
            found |= messages if location == "json" and isinstance(messages, dict) else {location: messages}
        raise MappingError([_ruled(issue) for issue in issues_of(found)])


def _ruled(issue: Issue) -> Issue:
    """marshmallow's own words with the rule and the wording that our fields give."""
    rule, message = {
        "Unknown field.": ("unknown-field", "is not known here"),
        "Missing data for required field.": ("required", "is required"),
        "Field may not be null.": ("null", "must not be null"),
    }.get(issue.message, (issue.rule, issue.message))
    return Issue(issue.path, rule, message)


F = TypeVar("F", bound=Callable[..., Any])


class Decorate(Protocol):
    """A decorator that leaves the type of the handler as it is."""

    def __call__(self, handler: F, /) -> F: ...


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest with our parser; schemas are given as instances: a class is rebuilt on each request."""

    ARGUMENTS_PARSER = _Parser()

    if TYPE_CHECKING:

        def route(self, rule: str, **options: Any) -> Decorate: ...

        def arguments(self, schema: Any, **options: Any) -> Decorate: ...

        def response(self, status: int, schema: Any = None, **options: Any) -> Decorate: ...

        def doc(self, **documentation: Any) -> Decorate: ...
