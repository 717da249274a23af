"""/api/v1/messages: what was received, how it was answered, and reading it again when it can be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mappings.hl7v2 import parse
from mappings.provenance import source_hash
from service.mllp.framing import unframed
from service.mllp.intake import Taken, take
from service.mllp.reading import Received, understand
from service.mllp.senders import Peer, load
from site_of_mllp import code_of, interrogation, message

HERE = Peer("127.0.0.1")
WITHOUT_ZONE = message(interrogation(1, 1)).replace(b"20260112000001-0600", b"20260112000001")
NOW = datetime(2026, 1, 12, tzinfo=UTC)


@pytest.fixture
def senders(tmp_path: Path) -> Path:
    file = tmp_path / "senders.toml"
    file.write_text(
        '[[sender]]\nname = "engine-a"\napplication = "PUMPS"\nfacility = "CHILDRENS"\nmap = "a.toml"\n'
    )
    (tmp_path / "a.toml").write_text("")
    return file


@pytest.fixture
def app(make_app: Callable[..., Flask], senders: Path) -> Flask:
    return make_app(mllp_senders=str(senders))


@pytest.fixture
def receive(app: Flask, senders: Path) -> Callable[[bytes], Taken]:
    def received(data: bytes) -> Taken:
        store = app.extensions["itb"].store
        return take(store, 1, [understand(Received(data, HERE), load(senders))], lambda: NOW)[0]

    return received


Receive = Callable[[bytes], Taken]


def test_a_message_is_shown_with_its_answer_and_events(client: FlaskClient, receive: Receive) -> None:
    event = interrogation(1, 1)
    data = message(event)
    taken = receive(data)
    (listed,) = client.get("/api/v1/messages").json["messages"]
    assert (listed["status"], listed["sender"], listed["issues"]) == ("taken", "engine-a", [])
    assert listed["control_id"] == parse(data).field("MSH", 10)
    assert "message" not in listed
    shown = client.get(f"/api/v1/messages/{listed['id']}").json
    assert shown["message"] == data.decode().replace("\r", "\n")
    assert shown["answers"] == [a.decode().replace("\r", "\n") for a in unframed(taken.answer)]
    assert [(e["source"], e["id"]) for e in shown["events"]] == [("clinic-a", "I-1-1")]
    assert shown["events"][0]["source_message"] == source_hash(event)
    raw = client.get(f"/api/v1/messages/{listed['id']}/raw")
    assert (raw.data, raw.mimetype) == (data, "x-application/hl7-v2+er7")


def test_the_provenance_of_a_resource_leads_to_its_message(client: FlaskClient, receive: Receive) -> None:
    receive(message(interrogation(1, 1)))
    receive(message(interrogation(1, 2)))
    url = f"/api/v1/messages?source_message={source_hash(interrogation(1, 2))}"
    (listed,) = client.get(url).json["messages"]
    assert listed["id"] == 2
    assert client.get("/api/v1/messages?source_message=sha256:x").status_code == 422


def test_a_parked_message_is_read_again_after_its_senders_file_was_mended(
    client: FlaskClient, receive: Receive, senders: Path
) -> None:
    first = receive(WITHOUT_ZONE)
    assert code_of(unframed(first.answer)[0]) == "AE"
    (parked,) = client.get("/api/v1/messages?status=parked").json["messages"]
    assert [(i["path"], i["rule"]) for i in parked["issues"]] == [("OBR[1]-7", "time-zone")]
    assert 'itb_messages{status="parked"} 1.0' in client.get("/metrics").text
    url = f"/api/v1/messages/{parked['id']}/retry"
    still = client.post(url)
    assert (still.status_code, still.json["errors"][0]["rule"]) == (422, "time-zone")
    (senders.parent / "a.toml").write_text('zone = "America/Chicago"\n')
    retried = client.post(url)
    assert (retried.status_code, retried.json["status"], retried.json["issues"]) == (200, "taken", [])
    assert [e["id"] for e in retried.json["events"]] == ["I-1-1"]
    assert client.post(url).status_code == 409
    again = receive(WITHOUT_ZONE)
    assert (again.outcome, code_of(unframed(again.answer)[0])) == ("repeated", "AA")
    assert len(client.get("/api/v1/events").json["events"]) == 1


def test_a_reservoirs_volume_with_route_it_is_parked_and_never_a_dose(
    client: FlaskClient, receive: Receive, senders: Path
) -> None:
    hospital = Path("fixtures/hl7v2/sender.toml").read_text()
    refill = Path("fixtures/hl7v2/read/refill-with-route-it.hl7").read_bytes()
    head = parse(refill)
    senders.write_text(
        f'[[sender]]\nname = "gh"\nmap = "a.toml"\napplication = "{head.field("MSH", 3)}"\n'
        f'facility = "{head.field("MSH", 4)}"\n'
    )
    (senders.parent / "a.toml").write_text(hospital.replace('"remap"', '"park"'))
    receive(refill)
    (parked,) = client.get("/api/v1/messages?status=parked").json["messages"]
    assert [i["rule"] for i in parked["issues"]] == ["intrathecal-refill"]
    assert client.get("/api/v1/events").json["events"] == []
    (senders.parent / "a.toml").write_text(hospital)
    retried = client.post(f"/api/v1/messages/{parked['id']}/retry").json
    assert retried["status"] == "taken"
    assert "intrathecal-refill" in {i["rule"] for i in retried["issues"]}, "what was read how is kept"
    (event,) = client.get("/api/v1/events").json["events"]
    assert event["type"] == "refill"


def test_a_message_of_a_sender_who_is_gone_is_not_read_again(
    client: FlaskClient, receive: Receive, senders: Path
) -> None:
    receive(WITHOUT_ZONE)
    senders.write_text('[[sender]]\nname = "other"\napplication = "X"\n')
    refused = client.post("/api/v1/messages/1/retry")
    assert (refused.status_code, refused.json["errors"][0]["rule"]) == (422, "sender")
    senders.write_text("spoilt")
    assert client.post("/api/v1/messages/1/retry").status_code == 503


def test_what_is_not_there_is_not_found(client: FlaskClient) -> None:
    assert client.get("/api/v1/messages/1").status_code == 404
    assert client.get("/api/v1/messages/1/raw").status_code == 404
    assert client.post("/api/v1/messages/1/retry").status_code == 404


def test_messages_are_listed_in_pages(client: FlaskClient, receive: Receive) -> None:
    for number in range(3):
        receive(message(interrogation(1, number)))
    page = client.get("/api/v1/messages?limit=2&sender=engine-a").json
    assert [m["id"] for m in page["messages"]] == [1, 2]
    rest = client.get(f"/api/v1/messages?limit=2&cursor={page['next_cursor']}").json
    assert ([m["id"] for m in rest["messages"]], rest["next_cursor"]) == ([3], None)
