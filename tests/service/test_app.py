"""What holds for every request: keys, headers, request ids, problems, probes, docs, logs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from samples import EVERY, PATIENT, REFILL
from service import docs, problems
from service.store import keys

Json = Any
OPEN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/start.js"]


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_docs_need_no_key(app: Flask, path: str) -> None:
    assert app.test_client().get(path).status_code == 200


def test_every_other_route_needs_a_key(app: Flask) -> None:
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "1", rule.rule)
        if f"/{path.split('/')[1]}" in OPEN:
            continue
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            reply = client.open(path, method=method)
            assert reply.status_code == 401, (method, path)
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/", "/nothing", "/healthz/../api/v1/events", "//api/v1/events", "/docsx"])
def test_what_is_not_there_needs_a_key_too(app: Flask, path: str) -> None:
    assert app.test_client().get(path).status_code in (401, 404)


@pytest.mark.parametrize("sent", ["Bearer nothing", "Bearer", "Basic eDp5", "Bearer  ", "bearer itb_x"])
def test_a_wrong_key_is_refused(app: Flask, sent: str) -> None:
    reply = app.test_client().get("/api/v1/events", headers={"Authorization": sent})
    assert (reply.status_code, reply.mimetype) == (401, "application/problem+json")
    assert reply.json["errors"][0]["path"] == "Authorization"


def test_a_revoked_key_is_refused(app: Flask, client: FlaskClient) -> None:
    assert client.get("/api/v1/events").status_code == 200
    made = app.extensions["itb"]
    with made.store.write() as c:
        assert keys.revoke(c, 1, "test", now=made.clock()) == 1
    assert client.get("/api/v1/events").status_code == 401


def test_a_key_is_kept_as_a_hash(app: Flask, client: FlaskClient) -> None:
    key = client.environ_base["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    assert re.fullmatch(r"itb_[A-Za-z0-9_-]{32}", key)
    made = app.extensions["itb"]
    with made.store.read() as c:
        rows = c.exec_driver_sql("SELECT * FROM api_keys").all()
    assert len(rows) == 1
    assert key not in str(rows)


def test_a_wrong_key_is_refused_though_keys_are_optional(make_app: Callable[..., Flask]) -> None:
    client = make_app(require_key=False).test_client()
    assert client.get("/api/v1/events").status_code == 200
    assert client.get("/api/v1/events", headers={"Authorization": "Bearer x"}).status_code == 401


def test_every_answer_has_security_headers(client: FlaskClient) -> None:
    for path in [*OPEN, "/api/v1/events", "/nothing"]:
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert client.get("/api/v1/events").headers["Cache-Control"] == "no-store"


def test_a_request_id_is_echoed_and_a_strange_one_replaced(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "a-1.b"}).headers["X-Request-ID"] == "a-1.b"
    for strange in ("a b", "x" * 101, '"}', "\x1b[31m"):
        made = client.get("/healthz", headers={"X-Request-ID": strange}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_a_wrong_method_names_the_right_ones(client: FlaskClient) -> None:
    reply = client.delete("/api/v1/events")
    assert (reply.status_code, reply.mimetype) == (405, "application/problem+json")
    assert {"GET", "POST"} <= set(reply.headers["Allow"].split(", "))


def test_a_failure_shows_neither_stack_nor_words(
    capsys: pytest.CaptureFixture[str], app: Flask, client: FlaskClient
) -> None:
    def broken() -> None:
        raise RuntimeError(f"bad {PATIENT['value']}")

    app.view_functions["health.healthz"] = broken
    reply = client.get("/healthz", headers={"X-Request-ID": "find-me"})
    assert (reply.status_code, reply.mimetype) == (500, "application/problem+json")
    assert "Traceback" not in reply.text
    assert "RuntimeError" not in reply.text
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failure = next(line for line in lines if line["event"] == "failure")
    assert (failure["request_id"], failure["error"]) == ("find-me", "RuntimeError")
    assert any("broken" in frame for frame in failure["at"])
    assert PATIENT["value"] not in json.dumps(lines)


def test_a_database_that_cannot_answer_is_503(app: Flask, client: FlaskClient) -> None:
    def locked() -> None:
        raise OperationalError("SELECT 1", {}, Exception("database is locked"))

    app.view_functions["health.healthz"] = locked
    reply = client.get("/healthz")
    assert reply.status_code == 503
    assert reply.headers["Retry-After"]
    assert "SELECT" not in reply.text


def test_the_log_is_json_lines_without_patient_data(
    capsys: pytest.CaptureFixture[str], client: FlaskClient
) -> None:
    client.post("/api/v1/events", json=REFILL)
    client.post("/api/v1/events", json=REFILL | {"patient": {"system": "x", "value": "MRN-CANARY"}})
    client.get("/api/v1/events", query_string={"patient": "http://hospital.invalid/mrn|MRN001"})
    client.get("/api/v1/events/clinic-a/MRN-CANARY")
    logged = capsys.readouterr().err
    lines = [json.loads(line) for line in logged.splitlines()]
    assert len(lines) == 4
    assert {line["caller"] for line in lines} == {"test"}
    assert lines[0] | {"ms": 0, "request_id": "", "timestamp": ""} == {
        "event": "request",
        "level": "info",
        "method": "POST",
        "route": "/api/v1/events",
        "status": 201,
        "caller": "test",
        "ms": 0,
        "request_id": "",
        "timestamp": "",
    }
    assert "MRN" not in logged
    assert "hospital" not in logged


def test_ready_says_what_is_missing(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(min_free_bytes=10**18)
    reply = app.test_client().get("/readyz")
    assert reply.status_code == 503
    assert "bytes are free" in reply.json["checks"]["disk"]
    app = make_app()
    assert app.test_client().get("/readyz").json == {
        "status": "ok",
        "checks": {"database": "ok", "disk": "ok"},
    }
    with app.extensions["itb"].store.write() as c:
        c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    reply = app.test_client().get("/readyz")
    assert reply.status_code == 503
    assert "version" in reply.json["checks"]["database"]
    assert app.test_client().get("/healthz").status_code == 200


def test_metrics_count_events_deliveries_and_requests(client: FlaskClient) -> None:
    client.post("/api/v1/endpoints", json={"name": "hapi", "url": "http://ehr.invalid"})
    client.post("/api/v1/events", json=[REFILL, REFILL, {}])
    client.get("/nothing")
    text = client.get("/metrics").text
    for line in (
        'itb_events_total{outcome="accepted"} 1.0',
        'itb_events_total{outcome="replayed"} 1.0',
        'itb_events_total{outcome="rejected"} 1.0',
        'itb_events_total{outcome="conflict"} 0.0',
        'itb_deliveries{status="pending"} 1.0',
        'itb_deliveries{status="parked"} 0.0',
        'itb_http_request_seconds_count{method="POST",route="/api/v1/events",status="200"} 1.0',
        'itb_http_request_seconds_count{method="GET",route="none",status="404"} 1.0',
    ):
        assert line in text
    assert client.application.test_client().get("/metrics").text.count('status="401"') == 0


def test_the_docs_ask_no_other_host(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert not re.search(r"(?:https?:)?//", page.text.replace("<!DOCTYPE html>", ""))
    assert "//" not in client.get("/docs/start.js").text
    asked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(asked) == 4
    for name in asked:
        assert client.get(f"/{name}").status_code == 200, name
    policy = page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    assert client.get("/docs/swagger-ui.js").status_code == 404
    assert client.get("/docs/../app.py").status_code in (401, 404)
    assert "validatorUrl: null" in docs.START


def test_the_description_of_the_api_is_valid_and_complete(app: Flask, client: FlaskClient) -> None:
    spec = client.get("/openapi.json").json
    assert spec["openapi"] == "3.1.0"
    assert spec["security"] == [{"key": []}]
    described = {
        (path, method.upper())
        for path, item in spec["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }
    assert described == served
    for path, method in described:
        operation = spec["paths"][path][method.lower()]
        assert operation["summary"], (path, method)
        assert "401" in operation["responses"], (path, method)
    for name in re.findall(r'"#/components/(\w+/[\w-]+)"', json.dumps(spec)):
        kind, key = name.split("/")
        assert key in spec["components"][kind], name
    assert jsonschema_rs.Draft202012Validator(_resolved("Event", spec))


def _resolved(name: str, spec: Json) -> Json:
    return {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}


def test_the_described_events_are_those_that_are_accepted(client: FlaskClient) -> None:
    spec = client.get("/openapi.json").json
    check = jsonschema_rs.Draft202012Validator(_resolved("Event", spec))
    for name, event in EVERY.items():
        assert check.is_valid(event), (name, [e.message for e in check.iter_errors(event)])
        assert not check.is_valid(event | {"surprise": 1})
        assert not check.is_valid(event | {"occurred_at": 3})


@pytest.mark.parametrize(
    ("path", "component"),
    [
        ("/api/v1/events", "EventPage"),
        ("/api/v1/events/clinic-a/R-1", "Record"),
        ("/api/v1/endpoints", "EndpointList"),
        ("/api/v1/deliveries", "DeliveryPage"),
        ("/api/v1/pumps", "PumpPage"),
        ("/api/v1/events/none/none", "Problem"),
    ],
)
def test_answers_look_as_they_are_described(client: FlaskClient, path: str, component: str) -> None:
    client.post("/api/v1/endpoints", json={"name": "hapi", "url": "http://ehr.invalid"})
    client.post("/api/v1/events", json=REFILL)
    spec = client.get("/openapi.json").json
    jsonschema_rs.Draft202012Validator(_resolved(component, spec)).validate(client.get(path).json)


def test_every_status_has_a_row_and_every_outcome_a_code_of_the_value_set() -> None:
    issue_types = {
        "invalid", "structure", "required", "value", "invariant", "security", "login", "unknown",
        "expired", "forbidden", "suppressed", "processing", "not-supported", "duplicate",
        "multiple-matches", "not-found", "deleted", "too-long", "code-invalid", "extension", "too-costly",
        "business-rule", "conflict", "transient", "lock-error", "no-store", "exception", "timeout",
        "incomplete", "throttled", "informational",
    }  # fmt: skip
    for status, kind in problems.KINDS.items():
        assert kind.code in issue_types, status
    made = problems.outcome([problems.Issue("Device.patient", "required", "is required")], "required")
    assert made["issue"][0]["expression"] == ["Device.patient"]


def test_under_fhir_a_refusal_is_an_operation_outcome(app: Flask) -> None:
    reply = app.test_client().get("/fhir/Device/1")
    assert (reply.status_code, reply.mimetype) == (401, "application/fhir+json")
    assert reply.json["resourceType"] == "OperationOutcome"
    assert reply.json["issue"][0]["code"] == "login"
