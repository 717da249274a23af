"""Events over HTTP: what is answered, what is stored, and that one bad event never stops the others."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mappings import exact_json
from samples import CATHETER, DOSE_CHANGE, PATIENT, PUMP, REFILL, SERIAL, q, without
from service.api.events import split_lines

Json = Any
NDJSON = "application/x-ndjson"
OTHER = PATIENT | {"value": "MRN002"}


def post(client: FlaskClient, body: Any, kind: str = "application/json", **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/api/v1/events", data=data, content_type=kind, headers=headers)


def results(reply: Any) -> list[Json]:
    return [json.loads(line) for line in reply.text.splitlines()]


def ids(client: FlaskClient) -> list[str]:
    return [event["id"] for event in client.get("/api/v1/events").json["events"]]


def test_a_new_event_is_201_and_a_replay_200_without_effect(client: FlaskClient) -> None:
    first, again = post(client, REFILL), post(client, REFILL)
    assert (first.status_code, first.json["outcome"]) == (201, "accepted")
    assert (again.status_code, again.json["outcome"]) == (200, "replayed")
    assert first.json == {
        "id": "R-1",
        "source": "clinic-a",
        "outcome": "accepted",
        "issues": [],
        "deliveries": [],
    }
    assert len(client.get("/api/v1/events/clinic-a/R-1").json["versions"]) == 1


def test_other_spelling_of_the_same_content_is_a_replay(client: FlaskClient) -> None:
    post(client, REFILL)
    drug = REFILL["drug"] | {"concentration": q(2000, "mcg/mL")}
    spelled = dict(reversed((REFILL | {"drug": drug, "status": "final", "version": 1}).items()))
    assert post(client, spelled).json["outcome"] == "replayed"


def test_a_later_version_corrects_and_the_earlier_one_stays(client: FlaskClient) -> None:
    post(client, REFILL)
    fixed = post(client, REFILL | {"version": 3, "note": "lot was wrong"})
    assert (fixed.status_code, fixed.json["outcome"]) == (201, "corrected")
    record = client.get("/api/v1/events/clinic-a/R-1").json
    assert [v["version"] for v in record["versions"]] == [1, 3]
    assert record["event"]["note"] == "lot was wrong"
    assert record["versions"][0]["event"]["note"] == "no difficulty"
    assert post(client, REFILL).json["outcome"] == "replayed"


@pytest.mark.parametrize("version", [1, 2])
def test_other_content_without_a_later_version_is_a_conflict(client: FlaskClient, version: int) -> None:
    post(client, REFILL | {"version": 2})
    reply = post(client, REFILL | {"version": version, "note": "other"})
    assert reply.status_code == 409
    assert reply.mimetype == "application/problem+json"
    assert reply.json["outcome"] == "conflict"
    assert reply.json["errors"] == reply.json["issues"]
    assert (reply.json["errors"][0]["path"], reply.json["errors"][0]["rule"]) == ("version", "conflict")
    assert len(client.get("/api/v1/events/clinic-a/R-1").json["versions"]) == 1


def test_a_conflict_leaves_an_audit_row_and_nothing_else(app: Flask, client: FlaskClient) -> None:
    post(client, REFILL)
    post(client, REFILL | {"note": "other"})
    with app.extensions["itb"].store.read() as c:
        rows = c.exec_driver_sql("SELECT actor, action, subject FROM audit ORDER BY id").all()
    assert rows == [("test", "accepted", "clinic-a/R-1"), ("test", "conflict", "clinic-a/R-1")]


def test_an_array_is_answered_in_order_and_a_bad_event_stops_no_other(client: FlaskClient) -> None:
    sent = [REFILL, {"type": "refill", "source": "clinic-a", "id": "bad"}, 7, DOSE_CHANGE, REFILL]
    reply = post(client, sent)
    assert reply.status_code == 200
    assert [r["outcome"] for r in reply.json] == ["accepted", "rejected", "rejected", "accepted", "replayed"]
    assert [r["id"] for r in reply.json] == ["R-1", "bad", None, "P-1", "R-1"]
    assert reply.json[1]["issues"][0]["rule"] == "required"
    assert ids(client) == ["R-1", "P-1"]
    assert post(client, []).json == []


def test_ndjson_is_answered_line_by_line(client: FlaskClient) -> None:
    lines = [json.dumps(REFILL), "{bad", "", '{"type":"refill"}', "  ", json.dumps(DOSE_CHANGE), "\ufeff{}"]
    reply = post(client, "\r\n".join(lines).encode(), NDJSON)
    assert (reply.status_code, reply.mimetype) == (200, NDJSON)
    assert [r["outcome"] for r in results(reply)] == [
        "accepted",
        "rejected",
        "rejected",
        "accepted",
        "rejected",
    ]
    assert results(reply)[1]["issues"][0]["rule"] == "json"
    assert ids(client) == ["R-1", "P-1"]


def test_ndjson_is_answered_with_an_array_when_that_is_asked_for(client: FlaskClient) -> None:
    reply = post(client, b"{}\n{}", NDJSON, Accept="application/json")
    assert [r["outcome"] for r in reply.json] == ["rejected", "rejected"]
    assert post(client, b"", NDJSON, Accept="application/json").json == []
    assert post(client, b"", NDJSON).text == ""


def test_ndjson_of_many_transactions_keeps_its_order(client: FlaskClient) -> None:
    sent = [REFILL | {"id": f"R-{n}"} for n in range(120)]
    reply = post(client, "\n".join(map(json.dumps, sent)).encode(), NDJSON)
    assert [r["id"] for r in results(reply)] == [event["id"] for event in sent]
    assert {r["outcome"] for r in results(reply)} == {"accepted"}


def test_a_line_above_its_limit_is_rejected_and_the_next_one_accepted(client: FlaskClient) -> None:
    body = b'{"note":"' + b"x" * 2_500_000 + b'"}\n' + json.dumps(REFILL).encode()
    first, second = results(post(client, body, NDJSON))
    assert first["issues"][0]["rule"] == "too-large"
    assert second["outcome"] == "accepted"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_the_stream_is_cut(size: int) -> None:
    body = b"one\ntoo long for us\n\ntwo\r\nx" + b"y" * 40 + b"\nend"
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    assert list(split_lines(chunks, 8)) == [b"one", None, b"", b"two\r", None, b"end"]


def test_digits_and_offsets_come_back_as_they_were_sent(client: FlaskClient) -> None:
    body = json.dumps(REFILL | {"volume_instilled": q(7654321, "mL")}).replace("7654321", "19.00")
    post(client, body.encode())
    raw = client.get("/api/v1/events/clinic-a/R-1").data
    assert b'"volume_instilled":{"value":19.00,"unit":"mL"}' in raw
    assert b'"occurred_at":"2025-05-05T10:00:00-05:00"' in raw
    event = exact_json.loads(raw)["event"]
    assert post(client, exact_json.dumps(event)).json["outcome"] == "replayed"


def test_more_than_the_reservoir_of_a_known_pump_is_refused(client: FlaskClient) -> None:
    post(client, PUMP)
    reply = post(client, REFILL | {"volume_instilled": q(20.5, "mL")})
    assert reply.status_code == 422
    assert [(e["path"], e["rule"]) for e in reply.json["errors"]] == [("volume_instilled", "R1")]
    assert post(client, REFILL).status_code == 201


def test_more_than_any_reservoir_is_refused_for_an_unknown_pump(client: FlaskClient) -> None:
    assert post(client, REFILL | {"volume_instilled": q(40, "mL")}).status_code == 201
    reply = post(client, REFILL | {"id": "R-2", "volume_instilled": q(40.1, "mL")})
    assert reply.json["errors"][0]["rule"] == "R1"


def test_the_device_counts_when_it_comes_in_the_same_request(client: FlaskClient) -> None:
    sent = [PUMP, REFILL | {"volume_instilled": q(25, "mL")}]
    assert [r["outcome"] for r in post(client, sent).json] == ["accepted", "rejected"]


def test_a_replay_is_a_replay_though_the_ledger_says_otherwise_by_now(client: FlaskClient) -> None:
    large = REFILL | {"volume_instilled": q(30, "mL")}
    post(client, large)
    post(client, PUMP)
    assert post(client, large).json["outcome"] == "replayed"


@pytest.mark.parametrize("event", [REFILL, DOSE_CHANGE, CATHETER])
def test_another_patient_s_pump_is_refused(client: FlaskClient, event: Json) -> None:
    post(client, PUMP)
    reply = post(client, event | {"patient": OTHER})
    assert [(e["path"], e["rule"]) for e in reply.json["errors"]] == [("patient", "P4")]
    assert "MRN" not in reply.text
    assert post(client, event).status_code == 201


def test_without_a_device_record_the_first_event_says_whose_pump_it_is(client: FlaskClient) -> None:
    post(client, REFILL)
    assert post(client, DOSE_CHANGE | {"patient": OTHER}).json["errors"][0]["rule"] == "P4"


def test_a_wrong_patient_can_be_corrected_device_first(client: FlaskClient) -> None:
    assert post(client, PUMP | {"patient": OTHER}).status_code == 201
    assert post(client, REFILL | {"patient": OTHER}).status_code == 201
    assert post(client, PUMP | {"version": 3}).json["outcome"] == "corrected"
    assert post(client, REFILL | {"version": 2}).json["outcome"] == "corrected"


def test_an_event_of_the_wrong_patient_can_be_retracted(client: FlaskClient) -> None:
    post(client, REFILL | {"patient": OTHER})
    assert post(client, PUMP).status_code == 201
    retracted = REFILL | {"patient": OTHER, "version": 2, "status": "entered-in-error"}
    assert post(client, retracted).json["outcome"] == "corrected"
    assert post(client, REFILL | {"id": "R-2"}).status_code == 201


def test_the_list_is_filtered_and_paged(client: FlaskClient) -> None:
    second = REFILL | {"id": "R-2", "pump": "OTHER1", "patient": OTHER, "occurred_at": "2025-05-05T16:00:00Z"}
    later = without(second, "started_at")
    post(client, [PUMP, CATHETER, REFILL, DOSE_CHANGE, later])

    def found(**query: Any) -> list[str]:
        return [e["id"] for e in client.get("/api/v1/events", query_string=query).json["events"]]

    assert found() == ["D-1", "D-2", "R-1", "P-1", "R-2"]
    assert found(pump=SERIAL) == ["D-1", "D-2", "R-1", "P-1"]
    assert found(type="refill") == ["R-1", "R-2"]
    assert found(patient="http://hospital.invalid/mrn|MRN002") == ["R-2"]
    assert found(since="2025-05-05T15:05:00Z") == ["P-1", "R-2"]
    page = client.get("/api/v1/events?limit=3").json
    assert [e["id"] for e in page["events"]] == ["D-1", "D-2", "R-1"]
    rest = client.get("/api/v1/events", query_string={"cursor": page["next_cursor"]}).json
    assert [e["id"] for e in rest["events"]] == ["P-1", "R-2"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    [
        "limti=1",
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=-1",
        "cursor=abc",
        "type=nothing",
        "since=2025-01-01",
        "since=2025-01-01T00:00:00",
        "patient=MRN001",
        "cursor=99999999999999999999999999",
    ],
)
def test_an_unusable_filter_is_refused_rather_than_ignored(client: FlaskClient, query: str) -> None:
    reply = client.get(f"/api/v1/events?{query}")
    assert reply.status_code == 422
    assert reply.json["errors"][0]["path"] == f"query.{query.partition('=')[0]}"


@pytest.mark.parametrize("event_id", ["a/b", "a//b", "a b", "R%2F1", "Procedure/12", "ü"])
def test_a_record_is_found_by_any_id(client: FlaskClient, event_id: str) -> None:
    assert post(client, REFILL | {"id": event_id}).status_code == 201
    reply = client.get(f"/api/v1/events/clinic-a/{quote(event_id)}")
    assert reply.status_code == 200
    assert reply.json["event"]["id"] == event_id


def test_an_unknown_record_is_404(client: FlaskClient) -> None:
    reply = client.get("/api/v1/events/clinic-a/none")
    assert (reply.status_code, reply.mimetype) == (404, "application/problem+json")
    assert reply.json["type"].endswith("/not-found")


def test_each_element_of_a_record_is_explained(client: FlaskClient) -> None:
    post(client, [PUMP, REFILL, DOSE_CHANGE])
    told = client.get("/api/v1/events/clinic-a/R-1/explain").json
    assert (told["source"], told["id"], len(told["map_version"])) == ("clinic-a", "R-1", 12)
    dose = next(e for e in told["elements"] if e["path"] == "dosage.dose.value")
    assert (dose["from"], dose["how"], dose["value"]) == (["volume_instilled.value"], "copied", 20)
    program = client.get("/api/v1/events/clinic-a/P-1/explain").json
    assert {e["rule"] for e in program["elements"]} == {"mappings/dose_change.py", "mappings/provenance.py"}
    assert client.get("/api/v1/events/clinic-a/R-99/explain").status_code == 404
