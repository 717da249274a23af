"""Every field and every kind of damage: refused with a path and a rule, nothing stored, still healthy."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mappings import exact_json, load_event
from mappings.event import MAPPINGS
from mappings.fields import Code, Day, Line, Moment, Part, Prose, Quantity
from samples import EVERY
from service.app import create_app
from service.settings import Settings

Json = Any
Path = tuple[str | int, ...]


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One application for the whole module: a refused event leaves nothing that could matter."""
    file = tmp_path_factory.mktemp("bad") / "itb.db"
    made = create_app(Settings(database_url=f"sqlite:///{file}", require_key=False, log_level="error"))
    yield made
    made.extensions["itb"].store.close()


@pytest.fixture
def poster(shared_app: Flask) -> FlaskClient:
    return shared_app.test_client()


def leaves(schema: Any, event: Json, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, field) of every field of the schema that the sample holds."""
    for name, field in schema.fields.items():
        if name not in event:
            continue
        here = (*path, name)
        yield here, field
        if isinstance(field, Part):
            inner = event[name][0] if field.many else event[name]
            yield from leaves(field.schema, inner, (*here, 0) if field.many else here)


def text(path: Path) -> str:
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def damages(field: Any) -> Iterator[tuple[str, Any, str]]:
    """(what is done, the damaged value, the path below the field where it is told)."""
    yield "null", None, ""
    yield "list", [["x"]], ""
    yield "number", 3.5, ""
    if not isinstance(field, (Line, Prose, Code, Moment, Day)):
        yield "string", "x", ""
    if not isinstance(field, (Part, Quantity)):
        yield "object", {"value": 1}, ""
    if isinstance(field, (Line, Prose, Code, Moment, Day)):
        yield "empty", "", ""
        yield "control", "a\x00b", ""
    if isinstance(field, Moment):
        for sent in (
            "2025-02-03T12:00:00",
            "2025-02-30T12:00:00Z",
            "2025-02-03",
            "2025-02-03T12:00:00+25:00",
        ):
            yield sent, sent, ""
    if isinstance(field, Day):
        for sent in ("2025-02-30", "03/02/2025", "2025-02-03T12:00:00Z"):
            yield sent, sent, ""
    if isinstance(field, Quantity):
        unit = field.units[0]
        yield "bare number", 20, ""
        yield "no unit", {"value": 1}, ".unit"
        yield "no value", {"unit": unit}, ".value"
        yield "unknown unit", {"value": 1, "unit": "furlong"}, ".unit"
        yield "Greek mu", {"value": 1, "unit": "\u00b5g"}, ".unit"
        yield "negative", {"value": -1, "unit": unit}, ".value"
        yield "text value", {"value": "1", "unit": unit}, ".value"
        yield "true value", {"value": True, "unit": unit}, ".value"
        yield "extra", {"value": 1, "unit": unit, "per": "h"}, ".per"
        yield "digits", {"value": 10**20, "unit": unit}, ".value"
        if unit.startswith("ug"):
            yield "mg", {"value": 1, "unit": "m" + unit[1:]}, ".unit"


def cases() -> Iterator[Any]:
    for kind, event in EVERY.items():
        schema = MAPPINGS[event["type"]].SCHEMA
        yield pytest.param(event, ("surprise",), "x", "surprise", id=f"{kind}-surprise-unknown")
        for path, field in leaves(schema, event):
            if field.required:
                yield pytest.param(event, path, ..., text(path), id=f"{kind}-{text(path)}-missing")
            if isinstance(field, Part) and not field.many:
                unknown = (*path, "surprise")
                yield pytest.param(event, unknown, "x", text(unknown), id=f"{kind}-{text(unknown)}-unknown")
            for name, value, below in damages(field):
                yield pytest.param(event, path, value, text(path) + below, id=f"{kind}-{text(path)}-{name}")


def damaged(event: Json, path: Path, value: Any) -> Json:
    made = copy.deepcopy(event)
    node = made
    for part in path[:-1]:
        node = node[part]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return made


def stored(poster: FlaskClient) -> int:
    return len(poster.get("/api/v1/events?limit=1000").json["events"])


@pytest.mark.parametrize(("event", "path", "value", "told"), list(cases()))
def test_damage_is_refused_where_it_is(
    poster: FlaskClient, event: Json, path: Path, value: Any, told: str
) -> None:
    reply = poster.post("/api/v1/events", json=damaged(event, path, value))
    assert reply.status_code == 422, reply.text
    assert reply.mimetype == "application/problem+json"
    errors = reply.json["errors"]
    assert any(e["path"] == told or e["path"].startswith((f"{told}.", f"{told}[")) for e in errors), errors
    assert all(e["rule"] and e["message"] for e in errors)
    assert reply.json["outcome"] == "rejected"
    assert stored(poster) == 0
    assert poster.get("/readyz").status_code == 200


def test_the_samples_hold_every_field_of_every_schema() -> None:
    def names(schema: Any, at: str = "") -> set[str]:
        found = set()
        for name, field in schema.fields.items():
            found.add(f"{at}{name}")
            if isinstance(field, Part):
                found |= names(field.schema, f"{at}{name}.")
        return found

    for kind, mapping in MAPPINGS.items():
        held = {
            ".".join(str(part) for part in path if not isinstance(part, int))
            for event in EVERY.values()
            if event["type"] == kind
            for path, _ in leaves(mapping.SCHEMA, event)
        }
        known = {"status", "version", "bridge.not_required"}
        other = {"before.periodic_bolus", "after.steps", "after.patient_bolus"}
        missing = {
            name
            for name in names(mapping.SCHEMA) - held - known
            if not any(name == o or name.startswith(f"{o}.") for o in other)
        }
        assert not missing, (kind, missing)


def test_the_samples_are_accepted_as_they_are() -> None:
    for event in EVERY.values():
        load_event(exact_json.loads(json.dumps(event)))


RAW = {
    "truncated": (b'{"type":"refill","source":"cli', "json"),
    "empty": (b"", "json"),
    "trailing": (b"{} {}", "json"),
    "utf-8": (b'{"type":"refill","note":"\xff\xfe"}', "utf-8"),
    "utf-16": ('{"type":"refill"}'.encode("utf-16"), "utf-8"),
    "lone surrogate": (b'{"type":"refill","note":"\\ud800"}', "utf-8"),
    "duplicate key": (b'{"type":"refill","status":"final","status":"entered-in-error"}', "duplicate-key"),
    "NaN": (b'{"type":"refill","volume_instilled":{"value":NaN,"unit":"mL"}}', "number"),
    "Infinity": (b'{"type":"refill","volume_instilled":{"value":-Infinity,"unit":"mL"}}', "number"),
    "huge exponent": (b'{"volume_instilled":{"value":1E999999999,"unit":"mL"}}', "number"),
    "many digits": (b'{"volume_instilled":{"value":' + b"9" * 5000 + b',"unit":"mL"}}', "number"),
    "deep": (b"[" * 100_000, None),
    "single quotes": (b"{'type':'refill'}", "json"),
}


@pytest.mark.parametrize("name", RAW)
def test_text_that_is_not_exact_json_is_refused_as_a_whole(poster: FlaskClient, name: str) -> None:
    body, rule = RAW[name]
    reply = poster.post("/api/v1/events", data=body, content_type="application/json")
    assert reply.status_code == 400, reply.text
    assert reply.json["errors"][0]["path"]
    assert rule in (None, reply.json["errors"][0]["rule"])
    line = poster.post("/api/v1/events", data=body.replace(b"\n", b" "), content_type="application/x-ndjson")
    assert line.status_code == 200
    outcomes = [json.loads(text)["outcome"] for text in line.text.splitlines()]
    assert set(outcomes) <= {"rejected"}
    assert stored(poster) == 0
    assert poster.get("/readyz").status_code == 200


@pytest.mark.parametrize("sent", [3, "refill", None, True, {}, {"type": "unknown"}, {"type": ["refill"]}])
def test_json_that_is_no_event_is_refused(poster: FlaskClient, sent: Json) -> None:
    reply = poster.post("/api/v1/events", data=json.dumps(sent), content_type="application/json")
    assert reply.status_code == 422
    assert reply.json["errors"][0]["path"] in ("$", "type")


def test_a_body_of_ten_megabytes_is_refused_unread(poster: FlaskClient) -> None:
    body = b'{"type":"refill","note":"' + b"x" * 10_000_000 + b'"}'
    reply = poster.post("/api/v1/events", data=body, content_type="application/json")
    assert reply.status_code == 413
    assert reply.json["errors"] == [
        {"path": "$", "rule": "too-large", "message": "a body of at most 10000000 bytes is accepted"}
    ]
    line = poster.post("/api/v1/events", data=body, content_type="application/x-ndjson")
    assert json.loads(line.text)["issues"][0]["rule"] == "too-large"
    for path in ("/api/v1/convert/to-fhir", "/api/v1/convert/from-fhir", "/api/v1/endpoints"):
        assert poster.post(path, data=body, content_type="application/json").status_code == 413
    assert stored(poster) == 0
    assert poster.get("/readyz").status_code == 200


def test_a_single_event_above_its_own_limit_is_refused(poster: FlaskClient) -> None:
    body = json.dumps({"type": "refill", "note": "x" * 1_100_000})
    reply = poster.post("/api/v1/events", data=body, content_type="application/json")
    assert reply.status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_another_content_type_is_refused(poster: FlaskClient, kind: str) -> None:
    reply = poster.post("/api/v1/events", data=b"{}", content_type=kind)
    assert reply.status_code == 415
    assert reply.json["errors"][0]["rule"] == "media-type"


def test_a_compressed_body_is_refused(poster: FlaskClient) -> None:
    reply = poster.post("/api/v1/events", data=b"x", headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 415


def test_chunks_that_the_server_cannot_end_are_refused(poster: FlaskClient) -> None:
    reply = poster.post(
        "/api/v1/events",
        headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
    )
    assert reply.status_code == 400
    assert reply.json["errors"][0]["rule"] == "length-required"


NUMBERS = ["1E999999999", "1e31", "0x10", "1_000", "NaN", "٣"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["refill", "dose-change", "pump", "catheter"])
def test_a_number_that_is_none_is_refused_in_every_quantity(
    poster: FlaskClient, kind: str, number: str
) -> None:
    event = EVERY[kind]
    quantities = [
        path for path, field in leaves(MAPPINGS[event["type"]].SCHEMA, event) if isinstance(field, Quantity)
    ]
    assert quantities
    for path in quantities:
        body = json.dumps(damaged(event, (*path, "value"), 123454321)).replace("123454321", number)
        reply = poster.post("/api/v1/events", data=body.encode(), content_type="application/json")
        assert reply.status_code in (400, 422), (text(path), reply.text)
        assert reply.json["errors"][0]["rule"]
    assert stored(poster) == 0
