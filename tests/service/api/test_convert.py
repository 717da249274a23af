"""Conversion over HTTP: one transaction out, the same events back, nothing stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from mappings import exact_json, load_event
from mappings.identity import resource_identity
from mappings.validate import validate
from samples import DOSE_CHANGE, PATIENT, PUMP, REFILL, q

Json = Any
TO, FROM = "/api/v1/convert/to-fhir", "/api/v1/convert/from-fhir"
NDJSON, FHIR = "application/x-ndjson", "application/fhir+json"
STORYLINES = sorted(Path("fixtures/storyline").glob("*.ndjson"))


def back(client: FlaskClient, bundle: bytes, **headers: str) -> Any:
    return client.post(FROM, data=bundle, content_type=FHIR, headers=headers)


def test_one_event_becomes_a_transaction(client: FlaskClient) -> None:
    reply = client.post(TO, json=REFILL)
    assert (reply.status_code, reply.mimetype) == (200, FHIR)
    assert reply.json["type"] == "transaction"
    assert [e["resource"]["resourceType"] for e in reply.json["entry"]] == [
        "MedicationAdministration",
        "Provenance",
    ]
    assert client.get("/api/v1/events").json["events"] == []


@pytest.mark.parametrize("file", STORYLINES, ids=lambda f: f.stem)
def test_a_storyline_becomes_one_transaction_and_comes_back(client: FlaskClient, file: Path) -> None:
    lines = file.read_bytes()
    reply = client.post(TO, data=lines, content_type=NDJSON)
    assert reply.status_code == 200, reply.text
    bundle = exact_json.loads(reply.data)
    assert validate(bundle) == []
    identities = [resource_identity(entry["resource"]) for entry in bundle["entry"]]
    assert len(set(identities)) == len(identities)
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    assert set(_references(bundle, "urn:")) <= urls
    returned = back(client, reply.data, Accept=NDJSON)
    assert returned.mimetype == NDJSON
    newest = {}
    for _, line in exact_json.lines(lines.split(b"\n")):
        event = load_event(exact_json.loads(line))
        newest[event["source"], event["id"]] = exact_json.dumps(event)
    assert sorted(returned.data.splitlines()) == sorted(newest.values())


def _references(node: Any, start: str) -> list[str]:
    if isinstance(node, dict):
        own = [node["reference"]] if str(node.get("reference", "")).startswith(start) else []
        return own + [r for value in node.values() for r in _references(value, start)]
    return [r for item in node for r in _references(item, start)] if isinstance(node, list) else []


def test_a_second_dose_change_closes_the_first_in_the_same_transaction(client: FlaskClient) -> None:
    second = DOSE_CHANGE | {"id": "P-2", "occurred_at": "2025-06-05T10:00:00-05:00"}
    second = {k: v for k, v in second.items() if k != "bridge"}
    entries = client.post(TO, json=[DOSE_CHANGE, second]).json["entry"]
    orders = [e["resource"] for e in entries if e["resource"]["resourceType"] == "MedicationRequest"]
    assert [order["status"] for order in orders] == ["stopped", "active"]


def test_no_event_is_no_transaction(client: FlaskClient) -> None:
    for body, kind in ((b"[]", "application/json"), (b"", NDJSON)):
        reply = client.post(TO, data=body, content_type=kind)
        assert (reply.status_code, reply.json["errors"][0]["rule"]) == (422, "required")


@pytest.mark.parametrize(
    ("sent", "paths"),
    [
        ({"type": "refill"}, None),
        ([REFILL, {"type": "nothing"}], ["[1].type"]),
        ([PUMP | {"device_status": "lost"}, 3], ["[0].device_status", "[1]"]),
        ([PUMP, REFILL | {"volume_instilled": q(25, "mL")}], ["[1].volume_instilled"]),
    ],
)
def test_what_is_refused_names_the_event(client: FlaskClient, sent: Json, paths: list[str] | None) -> None:
    reply = client.post(TO, json=sent)
    assert reply.status_code == 422
    if paths is not None:
        assert [e["path"] for e in reply.json["errors"]] == paths


def test_a_line_that_is_no_json_names_itself(client: FlaskClient) -> None:
    body = json.dumps(REFILL).encode() + b"\n\n{bad"
    reply = client.post(TO, data=body, content_type=NDJSON)
    assert reply.status_code == 400
    assert [(e["path"], e["rule"]) for e in reply.json["errors"]] == [("[1]", "json")]


def test_from_fhir_reads_what_breaks_a_rule_of_r4_and_says_which(client: FlaskClient) -> None:
    event = REFILL | {"source": "ehr", "patient": PATIENT}
    refill = client.post(TO, json=event).get_json(force=True)["entry"][0]["resource"]
    refill["reasonCode"] = []
    reply = back(client, exact_json.dumps(refill))
    assert reply.status_code == 200, reply.text
    assert [(n["path"], n["rule"]) for n in reply.json["notes"]] == [
        ("MedicationAdministration.reasonCode", "ele-1")
    ]


def test_from_fhir_says_what_it_converted(client: FlaskClient) -> None:
    event = REFILL | {"source": "ehr", "patient": PATIENT}
    bundle = client.post(TO, json=event).text
    milli = bundle.replace('"value":2000,"unit":"ug","system"', '"value":2.000,"unit":"mg","system"')
    milli = milli.replace(
        '"unit":"mg","system":"http://unitsofmeasure.org","code":"ug"',
        '"unit":"mg","system":"http://unitsofmeasure.org","code":"mg"',
    )
    assert milli != bundle
    reply = back(client, milli.encode())
    assert reply.status_code == 200, reply.text
    assert [note["rule"] for note in reply.json["notes"]] == ["mg-to-ug"]
    assert reply.json["events"][0]["drug"]["concentration"]["value"] == 2000


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        ({"resourceType": "Patient", "id": "1"}, 422),
        ({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": "x"}]}, 422),
        ({"a": 1}, 422),
        ([], 422),
        (3, 422),
    ],
)
def test_fhir_that_tells_no_event_is_refused(client: FlaskClient, resource: Json, status: int) -> None:
    reply = back(client, json.dumps(resource).encode())
    assert (reply.status_code, reply.mimetype) == (status, "application/problem+json")
    assert reply.json["errors"][0]["rule"]


def test_the_source_is_a_short_name(client: FlaskClient) -> None:
    bundle = client.post(TO, json=REFILL).data
    reply = client.post(f"{FROM}?source=Not+Short", data=bundle, content_type=FHIR)
    assert (reply.status_code, reply.json["errors"][0]["path"]) == (422, "query.source")
    assert client.post(f"{FROM}?source=epic", data=bundle, content_type="application/json").status_code == 200
    assert client.post(FROM, data=bundle, content_type="text/xml").status_code == 415
