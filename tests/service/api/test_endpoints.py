"""EHR endpoints and deliveries over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from fakes import MemoryEhr
from mappings import exact_json, load_event
from samples import DOSE_CHANGE, REFILL
from service.store import deliveries, events, tables
from service.store import endpoints as stored_endpoints
from service.store.deliveries import Outcome
from service.store.engine import Store
from service.sync import survey

Json = Any
ENDPOINTS = "/api/v1/endpoints"
URL = "http://ehr.invalid/fhir"
RECEIVER = "mllp://engine.invalid:2575"


def add(client: FlaskClient, name: str = "hapi", **more: Any) -> Any:
    return client.post(ENDPOINTS, json={"name": name, "url": URL} | more)


def pending(client: FlaskClient) -> list[tuple[str, str]]:
    listed = client.get("/api/v1/deliveries?status=pending").json["deliveries"]
    return [(d["endpoint"], d["event"]["id"]) for d in listed]


def test_an_endpoint_is_added_listed_and_read(client: FlaskClient) -> None:
    made = add(client, options={"poll_seconds": 60, "headers": {"Authorization": "Bearer s3cret"}})
    assert made.status_code == 201
    assert made.json == {
        "name": "hapi",
        "url": URL,
        "enabled": True,
        "options": {
            "create_missing_patients": False,
            "claim_profiles": True,
            "poll_seconds": 60,
            "overlap_seconds": 300,
            "batch_size": 50,
            "parallel": 2,
            "requests_per_second": 0,
            "headers": {"Authorization": "(set)"},
        },
        "created_at": "2026-11-23T09:00:00.000000Z",
        "read_until": None,
        "server": None,
        "drift": None,
        "breaker": {"state": "closed", "failures": 0, "until": None},
    }
    assert client.get(ENDPOINTS).json == {"endpoints": [made.json]}
    assert client.get(f"{ENDPOINTS}/hapi").json == made.json
    assert "s3cret" not in client.get(ENDPOINTS).text
    assert client.get(f"{ENDPOINTS}/other").status_code == 404


def change(client: FlaskClient, name: str = "hapi", **body: Any) -> Any:
    return client.patch(f"{ENDPOINTS}/{name}", json=body)


def test_what_is_named_is_changed_and_nothing_else(app: Flask, client: FlaskClient) -> None:
    made = add(client, options={"poll_seconds": 60, "batch_size": 7, "headers": {"Authorization": "one"}})
    changed = change(client, options={"poll_seconds": 30, "headers": {"X-Key": "s3cret"}})
    assert changed.status_code == 200
    wanted = made.json["options"] | {"poll_seconds": 30, "headers": {"X-Key": "(set)"}}
    assert changed.json == made.json | {"options": wanted}
    assert change(client, defaults=["poll_seconds"], options={"parallel": 1}).json["options"] == (
        wanted | {"poll_seconds": 5, "parallel": 1}
    )
    with app.extensions["itb"].store.read() as c:
        rows = c.execute(select(tables.audit).where(tables.audit.c.action == "change")).all()
    assert [(row.actor, row.subject, row.detail) for row in rows] == [
        ("test", "endpoint/hapi", "options.headers, options.poll_seconds"),
        ("test", "endpoint/hapi", "options.parallel, options.poll_seconds"),
    ]
    assert change(client).json == client.get(f"{ENDPOINTS}/hapi").json
    assert change(client, "other").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"name": "other"}, 422, "name"),
        ({"url": "ftp://ehr.invalid"}, 422, "url"),
        ({"options": {"surprise": 1}}, 422, "options.surprise"),
        ({"options": {"poll_seconds": None}}, 422, "options.poll_seconds"),
        ({"defaults": ["surprise"]}, 422, "defaults[0]"),
        ({"defaults": ["hook_secret_hash"]}, 422, "defaults[0]"),
        ({"options": {"sender": "engine-a"}}, 409, "$"),
        ({"url": RECEIVER}, 409, "$"),
    ],
)
def test_an_unusable_change_is_refused(client: FlaskClient, body: Json, status: int, path: str) -> None:
    made = add(client).json
    reply = client.patch(f"{ENDPOINTS}/hapi", json=body)
    assert (reply.status_code, [e["path"] for e in reply.json["errors"]]) == (status, [path])
    assert client.get(f"{ENDPOINTS}/hapi").json == made


def test_a_sender_has_one_endpoint(client: FlaskClient) -> None:
    add(client, "a", url=RECEIVER, options={"sender": "engine-a"})
    add(client, "b", url=RECEIVER)
    taken = change(client, "b", options={"sender": "engine-a"})
    assert (taken.status_code, taken.json["errors"][0]["rule"]) == (409, "sender-taken")
    assert change(client, "a", options={"sender": "engine-a"}).status_code == 200
    assert change(client, "a", defaults=["sender"]).status_code == 200
    assert change(client, "b", options={"sender": "engine-a"}).status_code == 200


def test_the_scorecard_is_there_once_the_server_was_asked(
    client: FlaskClient, store: Store, clock: Any
) -> None:
    add(client)
    assert client.get(f"{ENDPOINTS}/hapi/scorecard").status_code == 409
    assert client.get(f"{ENDPOINTS}/other/scorecard").status_code == 404
    with store.read() as c:
        endpoint = stored_endpoints.find(c, 1, "hapi")
    assert endpoint is not None
    survey.refresh(store, MemoryEhr(), endpoint, clock)
    card = client.get(f"{ENDPOINTS}/hapi/scorecard").json
    assert {event["rung"] for event in card["events"]} == {"transaction"}
    assert client.get(f"{ENDPOINTS}/hapi").json["server"] == {
        "software": card["software"],
        "fhir_version": "4.0.1",
        "transactions": True,
        "problems": [],
        "by_option": [],
    }


def test_a_new_endpoint_gets_what_was_before_when_it_is_asked_for(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=REFILL)
    assert add(client, "later").status_code == 201
    assert pending(client) == []
    assert add(client, "whole", backfill=True).status_code == 201
    assert pending(client) == [("whole", "R-1")]


def test_a_name_is_given_once(client: FlaskClient) -> None:
    add(client)
    again = add(client)
    assert again.status_code == 409
    assert again.json["errors"][0]["path"] == "name"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "Has Space"}, "name"),
        ({"name": None}, "name"),
        ({"url": "ftp://ehr.invalid"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://user:secret@ehr.invalid"}, "url"),
        ({"url": "http://ehr.invalid/?a=b"}, "url"),
        ({"url": "http://ehr.invalid:99999/"}, "url"),
        ({"url": 3}, "url"),
        ({"surprise": 1}, "surprise"),
        ({"options": {"surprise": 1}}, "options.surprise"),
        ({"options": {"poll_seconds": 0}}, "options.poll_seconds"),
        ({"options": {"allow_types": ["Patient"]}}, "options.allow_types[0]"),
        ({"options": {"create_missing_patients": "yes"}}, "options.create_missing_patients"),
        ({"options": {"headers": {"A": "b\r\nC: d"}}}, "options.headers"),
        ({"options": {"headers": ["A"]}}, "options.headers"),
        ({"url": "mllp://engine.invalid"}, "url"),
        ({"url": "mllp://engine.invalid:2575/path"}, "url"),
        ({"url": RECEIVER, "options": {"hl7v2": {"zone": "Chicago"}}}, "options.hl7v2"),
        ({"url": RECEIVER, "options": {"hl7v2": {"accept_ack": "NE"}}}, "options.hl7v2"),
        ({"url": RECEIVER, "options": {"hl7v2": {"application_ack": "ER"}}}, "options.hl7v2"),
        ({"url": RECEIVER, "options": {"ca_file": "/ca.pem"}}, "$"),
        ({"url": URL, "options": {"hl7v2": {}}}, "$"),
    ],
)
def test_an_unusable_endpoint_is_refused(client: FlaskClient, change: Json, path: str) -> None:
    reply = add(client, **change)
    assert reply.status_code == 422, reply.text
    assert [e["path"] for e in reply.json["errors"]] == [path]
    assert client.get(ENDPOINTS).json == {"endpoints": []}


@pytest.mark.parametrize("body", [b"", b"{", b'{"name":"a","name":"b"}', b"\xff"])
def test_an_unreadable_endpoint_is_refused(client: FlaskClient, body: bytes) -> None:
    assert client.post(ENDPOINTS, data=body, content_type="application/json").status_code == 400


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"x"', b"{}"])
def test_json_that_is_no_endpoint_is_refused(client: FlaskClient, body: bytes) -> None:
    assert client.post(ENDPOINTS, data=body, content_type="application/json").status_code == 422


def test_each_enabled_endpoint_gets_each_event(client: FlaskClient) -> None:
    add(client, "a")
    add(client, "b")
    reply = client.post("/api/v1/events", json=REFILL)
    assert [(d["endpoint"], d["status"]) for d in reply.json["deliveries"]] == [
        ("a", "pending"),
        ("b", "pending"),
    ]
    again = client.post("/api/v1/events", json=REFILL)
    assert again.json["deliveries"] == reply.json["deliveries"]
    assert pending(client) == [("a", "R-1"), ("b", "R-1")]
    assert client.get("/api/v1/deliveries?endpoint=b").json["deliveries"][0]["endpoint"] == "b"
    assert client.get("/api/v1/deliveries?endpoint=none").status_code == 404
    assert client.get("/api/v1/deliveries?status=lost").status_code == 422


def test_what_is_accepted_while_an_endpoint_is_paused_is_sent_after_it_resumes(client: FlaskClient) -> None:
    add(client)
    assert client.post(f"{ENDPOINTS}/hapi/pause").json["enabled"] is False
    client.post("/api/v1/events", json=[REFILL, DOSE_CHANGE])
    assert pending(client) == []
    assert client.post(f"{ENDPOINTS}/hapi/resume").json["enabled"] is True
    assert pending(client) == [("hapi", "R-1"), ("hapi", "P-1")]
    client.post(f"{ENDPOINTS}/hapi/resume")
    assert len(pending(client)) == 2
    assert client.post(f"{ENDPOINTS}/other/pause").status_code == 404


def test_an_endpoint_is_not_sent_what_came_before_it(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=REFILL)
    add(client)
    assert pending(client) == []


def came_to(app: Flask, status: str, reason: str | None = None) -> None:
    """What a worker made of delivery 1."""
    made = app.extensions["itb"]
    with made.store.write() as c:
        delivery = deliveries.find(c, 1, 1)
        assert delivery is not None
        failure = None if status == "sent" else "Unresolved"
        deliveries.record(c, [Outcome(delivery, status, reason, failure)], now=made.clock())


def audited(app: Flask) -> list[tuple[str, str, str]]:
    with app.extensions["itb"].store.read() as c:
        rows = c.execute(select(tables.audit).order_by(tables.audit.c.id)).all()
    return [(row.actor, row.action, row.subject) for row in rows]


def test_a_failed_delivery_is_retried_and_a_sent_one_is_not(app: Flask, client: FlaskClient) -> None:
    add(client)
    client.post("/api/v1/events", json=REFILL)
    came_to(app, "parked", "no patient")
    parked = client.get("/api/v1/deliveries?status=parked").json["deliveries"]
    assert [(d["id"], d["reason"], d["attempts"], d["failure"]) for d in parked] == [
        (1, "no patient", 1, "Unresolved")
    ]
    retried = client.post("/api/v1/deliveries/1/retry")
    assert retried.status_code == 200
    assert (retried.json["status"], retried.json["attempts"]) == ("pending", 0)
    assert client.get("/api/v1/deliveries/1").json == retried.json
    assert audited(app)[-1] == ("test", "retry", "delivery/1")
    came_to(app, "sent")
    assert client.post("/api/v1/deliveries/1/retry").status_code == 409
    assert client.post("/api/v1/deliveries/2/retry").status_code == 404
    assert client.get("/api/v1/deliveries/2").status_code == 404


@pytest.mark.parametrize("action", ["cancel", "skip"])
def test_what_is_left_out_says_why_and_is_audited(app: Flask, client: FlaskClient, action: str) -> None:
    add(client)
    client.post("/api/v1/events", json=REFILL)
    assert client.post(f"/api/v1/deliveries/1/{action}", json={}).status_code == 422
    made = client.post(f"/api/v1/deliveries/1/{action}", json={"reason": "they have it on paper"})
    assert (made.json["status"], made.json["reason"]) == (
        {"cancel": "cancelled", "skip": "skipped"}[action],
        "they have it on paper",
    )
    assert audited(app)[-1] == ("test", action, "delivery/1")
    again = client.post(f"/api/v1/deliveries/1/{action}", json={"reason": "again"})
    assert (again.status_code, again.json["errors"][0]["rule"]) == (409, made.json["status"])


def test_a_delivery_is_paused_and_goes_on(client: FlaskClient) -> None:
    add(client)
    client.post("/api/v1/events", json=REFILL)
    assert client.post("/api/v1/deliveries/1/resume").status_code == 409
    assert client.post("/api/v1/deliveries/1/pause").json["status"] == "paused"
    assert client.post("/api/v1/deliveries/1/resume").json["status"] == "pending"


def test_all_that_is_held_of_an_endpoint_is_retried_skipped_or_cancelled(
    app: Flask, client: FlaskClient
) -> None:
    add(client)
    add(client, "other")
    client.post("/api/v1/events", json=[REFILL, DOSE_CHANGE])
    came_to(app, "parked", "no patient")
    assert client.post(f"{ENDPOINTS}/hapi/retry").json == {"endpoint": "hapi", "changed": 1}
    assert audited(app)[-1] == ("test", "retry", "endpoint/hapi")
    came_to(app, "failed", "refused")
    why = {"reason": "they closed"}
    assert client.post(f"{ENDPOINTS}/hapi/skip", json=why).json["changed"] == 1
    assert client.post(f"{ENDPOINTS}/hapi/cancel", json=why).json["changed"] == 1
    assert client.post(f"{ENDPOINTS}/none/retry").status_code == 404
    assert pending(client) == [("other", "R-1"), ("other", "P-1")]


def test_deliveries_are_paged(app: Flask, client: FlaskClient) -> None:
    add(client)
    client.post("/api/v1/events", json=[REFILL | {"id": str(n)} for n in range(5)])
    first = client.get("/api/v1/deliveries?limit=3").json
    rest = client.get("/api/v1/deliveries", query_string={"cursor": first["next_cursor"]}).json
    assert [d["id"] for d in first["deliveries"] + rest["deliveries"]] == [1, 2, 3, 4, 5]
    assert rest["next_cursor"] is None


def test_a_receiver_of_messages_is_an_endpoint_like_any_other(client: FlaskClient) -> None:
    options = {"hl7v2": {"receiving": ["ENGINE", "WARD"]}, "sender": "engine-a", "answer_seconds": 10}
    made = add(client, "ward", url=RECEIVER, options=options)
    assert (made.status_code, made.json["url"]) == (201, RECEIVER)
    assert made.json["options"].items() >= options.items()
    assert client.post("/api/v1/events", json=REFILL).status_code == 201
    assert pending(client) == [("ward", "R-1")]
    card = client.get(f"{ENDPOINTS}/ward/scorecard").json
    assert {event["rung"] for event in card["events"]} == {"hl7v2"}
    taken = add(client, "other", url=RECEIVER, options={"sender": "engine-a"})
    assert (taken.status_code, taken.json["errors"][0]["path"]) == (409, "options.sender")


def test_an_event_is_not_sent_back_to_where_it_came_from(app: Flask, client: FlaskClient) -> None:
    add(client, "a")
    add(client, "b")
    made = app.extensions["itb"]
    event = load_event(exact_json.loads(exact_json.dumps(REFILL | {"source": "a"})))
    with made.store.write() as c:
        targets = stored_endpoints.every(c, 1)
        events.accept(c, 1, event, received_at=made.clock(), actor="pull", endpoints=targets, origin="a")
    assert pending(client) == [("b", "R-1")]
    for name in ("pause", "resume"):
        client.post(f"{ENDPOINTS}/a/{name}")
    assert pending(client) == [("b", "R-1")]
