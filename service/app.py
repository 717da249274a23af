"""The application: its services built, its blueprints registered, what holds for every request."""

from __future__ import annotations

import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import flask_smorest  # type: ignore[import-untyped]  # it has no types
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from mappings import MappingError, exact_json
from mappings.hl7v2 import SenderMap

from . import api, docs, health, problems
from .api.described import COMPONENTS, FIELD_TYPES
from .fhir.bulk import blueprint as bulk_blueprint
from .fhir.routes import blueprint as fhir_blueprint
from .hooks import blueprint as hooks_blueprint
from .intake import OUTCOMES
from .senders import senders
from .settings import Settings, SettingsError
from .store import keys
from .store.engine import Store, migrate
from .store.tables import DEFAULT_TENANT
from .telemetry import Metrics, make_log, where
from .web import Clock, Services, services

OPEN = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/hooks")
"""What needs no key: probes, what is the same for everybody, and hooks, which have a secret of their own."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")

OPENAPI = {
    "API_TITLE": "itb-fhir",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.1.0",
    "OPENAPI_URL_PREFIX": "/",
    "OPENAPI_JSON_PATH": "openapi.json",
    "API_SPEC_OPTIONS": {
        "info": {
            "description": "Intrathecal baclofen pump records to and from FHIR R4. Not a medical device: it "
            "transfers, stores, converts and shows; it never programs a pump.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
    },
}


def utc_now() -> datetime:
    """The clock of the running service."""
    return datetime.now(UTC)


def create_app(settings: Settings, clock: Clock = utc_now) -> Flask:
    """The WSGI application; opens and migrates the database of `settings`."""
    store = Store(settings.database_url)
    migrate(store)
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # an event's id may hold `//`
    app.config.update(OPENAPI)
    app.extensions["itb"] = Services(
        settings, store, clock, Metrics(OUTCOMES), make_log(settings.log_level), _senders(settings)
    )
    app.before_request(_begin)
    app.after_request(_end)
    described = Api(app)
    _describe(described)
    for blueprint in api.BLUEPRINTS:
        described.register_blueprint(blueprint)
    for plain in (health.blueprint, docs.blueprint, fhir_blueprint, bulk_blueprint, hooks_blueprint):
        app.register_blueprint(plain)
    app.register_error_handler(HTTPException, _failed)  # after Api(), which registers its own
    app.register_error_handler(Exception, _failed)
    return app


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no types
    """Every operation names the failures it can have itself."""

    DEFAULT_ERROR_RESPONSE_NAME = None


def _senders(settings: Settings) -> dict[str, SenderMap]:
    try:
        return senders(settings.hl7_senders)
    except MappingError as error:
        raise SettingsError(f"ITB_HL7_SENDERS: {error}") from None


def _describe(api: Any) -> None:
    spec = api.spec
    for field, kind in FIELD_TYPES.items():
        api.register_field(field, kind, None)
    spec.components.security_scheme(
        "key", {"type": "http", "scheme": "bearer", "description": "itb keys add"}
    )
    for name, schema in COMPONENTS.items():
        spec.components.schema(name, schema)


def _begin() -> None:
    """Name the request, and find out whose it is."""
    g.started = time.perf_counter()
    named = request.headers.get("X-Request-ID", "")
    g.request_id = named if _REQUEST_ID.fullmatch(named) else uuid.uuid4().hex
    if request.path.split("/")[1] in {path[1:] for path in OPEN}:
        return
    g.caller = _caller()


def _caller() -> keys.Caller:
    made = services()
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        with made.store.read() as c:
            found = keys.caller(c, key.strip())
        if found is not None:
            return found
    elif not made.settings.require_key:
        return keys.Caller(DEFAULT_TENANT, "anonymous")
    why = "this key is not known, or was revoked" if key else "send Authorization: Bearer KEY"
    raise problems.Refused(401, why, rule="key", path="Authorization")


def _end(response: Response) -> Response:
    """Headers, a log line and a measurement for every answer."""
    made = services()
    route = request.url_rule.rule if request.url_rule else "none"
    took = time.perf_counter() - g.started
    response.headers["X-Request-ID"] = g.request_id
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    made.metrics.requests.labels(request.method, route, response.status_code).observe(took)
    made.log.info(
        "request",
        request_id=g.request_id,
        method=request.method,
        route=route,
        status=response.status_code,
        ms=round(took * 1000, 1),
        caller=g.caller.name if "caller" in g else None,
    )
    return response


def _failed(error: Exception) -> Response | HTTPException:
    """Any failure as a problem, or under /fhir as an OperationOutcome."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 400:
        return error  # a redirect
    refused = problems.of(error)
    if refused.status >= 500:
        services().log.error("failure", request_id=g.request_id, **where(error))
    if request.path.split("/")[1] == "fhir":
        body, mimetype = problems.refusal_outcome(refused), problems.FHIR_JSON
    else:
        body, mimetype = problems.problem(refused), problems.PROBLEM_JSON
    made = Response(exact_json.dumps(body), refused.status, mimetype=mimetype)
    if refused.status == 401:
        made.headers["WWW-Authenticate"] = 'Bearer realm="itb-fhir"'
    if refused.status == 503:
        made.headers["Retry-After"] = "2"
    if refused.status == 429:
        made.headers["Retry-After"] = "5"
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        made.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return made
