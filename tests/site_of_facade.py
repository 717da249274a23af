"""The FHIR facade as a client sees it: what its tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

import golden
from mappings import identity, load_event
from mappings.exact_json import dumps, loads
from mappings.validate import validate
from service.app import create_app
from service.settings import Settings

Json = Any
FHIR = "application/fhir+json"
STORIES = sorted(golden.FIXTURES.glob("storyline/*.ndjson"))
GIRL = next(path for path in STORIES if path.stem == "girl-9y")


def story(path: Path) -> list[Json]:
    """The events of a golden case or a storyline."""
    if path.suffix == ".ndjson":
        return [load_event(loads(line)) for line in path.read_bytes().splitlines()]
    return golden.events(path)


def take(client: FlaskClient, events: list[Json]) -> None:
    body = b"\n".join(map(dumps, events))
    reply = client.post("/api/v1/events", data=body, content_type="application/x-ndjson")
    outcomes = {json.loads(line)["outcome"] for line in reply.text.splitlines()}
    assert outcomes <= {"accepted", "corrected"}, reply.text


def get(client: FlaskClient, path: str, **query: Any) -> Json:
    """The resource at the path, which must be there."""
    reply = client.get(f"/fhir/{path}", query_string=query)
    assert (reply.status_code, reply.mimetype) == (200, FHIR), reply.text
    return loads(reply.data)


def found(client: FlaskClient, type: str, **query: Any) -> list[Json]:
    bundle = get(client, type, **query)
    return [entry["resource"] for entry in bundle.get("entry", [])]


def post(client: FlaskClient, path: str, body: Any, kind: str = FHIR, method: str = "POST") -> Any:
    data = body if isinstance(body, bytes) else dumps(body)
    return client.open(f"/fhir{path}", method=method, data=data, content_type=kind)


def said(reply: Any) -> list[tuple[str, str, str]]:
    """(code, rule, expression) of each issue of a refusal."""
    assert reply.mimetype == FHIR, reply.text
    outcome = loads(reply.data)
    assert validate(outcome) == []
    assert outcome["resourceType"] == "OperationOutcome"
    return [
        (i["code"], i["details"]["coding"][0]["code"], i.get("expression", ["$"])[0])
        for i in outcome["issue"]
    ]


def stored(client: FlaskClient) -> list[Json]:
    return loads(client.get("/api/v1/events?limit=1000").data)["events"]


def business(resource: Json) -> str:
    """Which of our records a resource belongs to: the sender's id."""
    split = (identity.split_value(i["value"]) for i in resource["identifier"])
    return next(found for found in split if found)[1]


@contextmanager
def histories(folder: Path) -> Iterator[FlaskClient]:
    """A client of a ledger with the three histories; what is done to it must not be stored."""
    url = f"sqlite:///{folder}/itb.db"
    app = create_app(Settings(database_url=url, require_key=False, log_level="error"))
    client = app.test_client()
    take(client, [event for path in STORIES for event in story(path)])
    before = stored(client)
    yield client
    assert stored(client) == before
    assert client.get("/readyz").status_code == 200
    app.extensions["itb"].store.close()
