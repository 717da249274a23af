"""/fhir: what is written as FHIR becomes events, or is refused with an outcome and not stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

import golden
from mappings import load_event, to_fhir
from mappings.codes import sid
from mappings.event import identity as named
from mappings.exact_json import dumps, loads
from mappings.rows import copy
from mappings.stream import Converter
from mappings.validate import validate
from samples import PUMP, REFILL, without
from service.fhir.record import EVENTS_OF
from service.store import audit
from site_of_facade import FHIR, STORIES, found, get, histories, post, said, stored, story, take

Json = Any
NOTHING: list[Json] = []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with histories(tmp_path_factory.mktemp("facade")) as client:
        yield client


def refill(**changes: Any) -> Json:
    """Our refill's resource, changed."""
    (made,) = (e["resource"] for e in to_fhir(load_event(loads(dumps(REFILL))))["entry"][:1])
    return copy(made) | changes


def bundle(kind: str, *resources: Json) -> Json:
    entries = [{"resource": r, "request": {"method": "POST", "url": r["resourceType"]}} for r in resources]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


@pytest.mark.parametrize("path", [*golden.GOLDEN, *STORIES], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_our_transactions_come_back_as_the_events(client: FlaskClient, path: Path) -> None:
    events = story(path)
    converter = Converter()
    for event in events:
        sent = converter.to_fhir(event)
        reply = post(client, "", sent)
        assert reply.status_code == 200, reply.text
        answer = loads(reply.data)
        assert (answer["type"], validate(answer)) == ("transaction-response", [])
        assert len(answer["entry"]) == len(sent["entry"])
        for entry in answer["entry"]:
            assert entry["response"]["status"] in ("200 OK", "201 Created")
            get(client, entry["response"]["location"])
    last = {named(event): dumps(event) for event in events}
    assert {named(event): dumps(event) for event in stored(client)} == last


REFUSED = [
    (refill(modifierExtension=[{"url": "http://x.invalid", "valueBoolean": True}]), "modifier-extension"),
    (refill(implicitRules="http://x.invalid"), "implicit-rules"),
    (refill(dosage={"text": "x", "rateQuantity": {"value": 20, "unit": "min"}}), "rate-unit"),
    (refill(status="unknown"), "code"),
    (refill(status="finished"), "required-binding"),
    (refill(surprise=1), "unknown-element"),
]


@pytest.mark.parametrize(("resource", "rule"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_refused_entry_stops_a_transaction_and_no_other_of_a_batch(
    client: FlaskClient, resource: Json, rule: str
) -> None:
    other = refill(identifier=[{"system": sid("refill"), "value": "clinic-a.R-2"}])
    reply = post(client, "", bundle("transaction", other, resource))
    assert reply.status_code == 422
    ((code, told, expression), *_) = said(reply)
    assert (code, told) == ("invalid", rule)
    assert expression.startswith("Bundle.entry[1].resource")
    assert stored(client) == NOTHING
    answer = loads(post(client, "", bundle("batch", other, resource)).data)
    assert (answer["type"], validate(answer)) == ("batch-response", [])
    taken, refused = (entry["response"] for entry in answer["entry"])
    assert (taken["status"], refused["status"][:3]) == ("201 Created", "422")
    assert refused["outcome"]["issue"][0]["expression"] == [expression]
    assert [event["id"] for event in stored(client)] == ["R-2"]


def test_what_tells_no_event_is_answered_as_not_kept(client: FlaskClient) -> None:
    patient = {"resourceType": "Patient", "active": True}
    reply = post(client, "", bundle("transaction", patient, refill()))
    beside, taken = (entry["response"] for entry in loads(reply.data)["entry"])
    assert "location" not in beside
    assert beside["outcome"]["issue"][0]["details"]["coding"][0]["code"] == "not-ours"
    assert taken["status"] == "201 Created"
    for body in (bundle("transaction", patient), without(bundle("transaction"), "entry")):
        assert [rule for _, rule, _ in said(post(client, "", body))] == ["not-ours"]
    assert len(stored(client)) == 1


@pytest.mark.parametrize("path", [p for p in golden.REFUSED if p.parent.name == "fhir"], ids=lambda p: p.stem)
def test_what_the_mappings_refuse_is_refused_here(shared: FlaskClient, path: Path) -> None:
    sent = loads(path.read_bytes())
    type = sent.get("resourceType") if isinstance(sent, dict) else None
    whole = sent if type == "Bundle" and sent.get("type") == "transaction" else bundle("transaction")
    if whole is not sent:
        inner = sent.get("entry", []) if type == "Bundle" else [{"resource": sent}]
        whole["entry"] = [e | {"request": {"method": "POST", "url": "x"}} for e in inner]
    replies = [post(shared, "", whole)]
    if type in EVENTS_OF:
        replies.append(post(shared, f"/{type}", sent))
    for reply in replies:
        assert reply.status_code == 422, reply.text
        assert all(code == "invalid" for code, _, _ in said(reply))


def test_a_record_in_error_is_a_version_that_says_so(client: FlaskClient) -> None:
    take(client, [PUMP, REFILL])
    sent = refill(status="entered-in-error")
    answer = loads(post(client, "", bundle("transaction", sent)).data)
    assert answer["entry"][0]["response"]["etag"] == 'W/"2"'
    (event,) = [e for e in stored(client) if e["type"] == "refill"]
    assert (event["version"], event["status"]) == (2, "entered-in-error")
    (shown,) = found(client, "MedicationAdministration")
    assert (shown["status"], shown["meta"]["versionId"]) == ("entered-in-error", "2")


def test_a_foreign_refill_is_named_after_its_sender(client: FlaskClient) -> None:
    theirs = refill(identifier=[{"system": "http://ehr.invalid/x", "value": "77"}])
    made = post(client, "/MedicationAdministration", theirs)
    assert made.status_code == 201
    assert [(e["source"], e["id"]) for e in stored(client)] == [("test", "77")]
    assert get(client, made.headers["Location"].removeprefix("/fhir/"))["status"] == theirs["status"]


def test_an_edit_is_the_next_version_unless_another_came_between(client: FlaskClient) -> None:
    take(client, [REFILL])
    (ours,) = found(client, "MedicationAdministration")
    edited = copy(ours)
    edited["contained"][0]["batch"]["lotNumber"] = "B77"
    path = f"/MedicationAdministration/{ours['id']}"

    def put(resource: Json, etag: str) -> Any:
        body = dumps(resource)
        return client.put(f"/fhir{path}", data=body, content_type=FHIR, headers={"If-Match": etag})

    assert put(ours, 'W/"1"').headers["ETag"] == 'W/"1"'
    done = put(edited, 'W/"1"')
    assert (done.status_code, done.headers["ETag"]) == (200, 'W/"2"')
    late = put(ours | {"status": "entered-in-error"}, 'W/"1"')
    assert (late.status_code, said(late)) == (412, [("conflict", "precondition-failed", "ifMatch")])
    (event,) = stored(client)
    assert (event["version"], event["drug"]["lot"]) == (2, "B77")
    other = post(client, "/MedicationAdministration/other", edited, method="PUT")
    assert (other.status_code, said(other)[0][2]) == (400, "MedicationAdministration.id")


def test_a_resource_sent_again_after_its_correction_is_a_replay(client: FlaskClient) -> None:
    take(client, [REFILL, REFILL | {"version": 2, "note": "other"}])
    assert post(client, "", bundle("transaction", refill())).status_code == 200
    assert [(e["version"], e["note"]) for e in stored(client)] == [(2, "other")]


def test_other_digits_of_the_same_number_are_another_version(client: FlaskClient) -> None:
    take(client, [REFILL])
    body = dumps(bundle("transaction", refill()))
    other = body.replace(b'"value":20,', b'"value":20.0,')
    assert other != body
    assert post(client, "", other).status_code == 200
    assert [e["version"] for e in stored(client)] == [2]


@pytest.mark.parametrize("wrapped", [False, True])
def test_validate_says_what_is_wrong_and_where(shared: FlaskClient, wrapped: bool) -> None:
    def outcome(resource: Json, path: str = "") -> Json:
        parameters = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": resource}]}
        reply = post(shared, f"{path}/$validate", parameters if wrapped else resource)
        assert reply.status_code == 200
        return loads(reply.data)["issue"]

    (fine,) = outcome(refill())
    assert fine["severity"] == "information"
    assert outcome(refill(), "/MedicationAdministration") == [fine]
    (bad,) = outcome(without(refill(), "status"), "/MedicationAdministration")
    assert (bad["severity"], bad["expression"]) == ("error", ["MedicationAdministration.status"])
    (other, *_) = outcome(refill(), "/Device")
    assert (other["severity"], other["expression"]) == ("error", ["resourceType"])


RAW = {
    "truncated": (b'{"resourceType":"Bundle","type":"trans', FHIR, 400, "json"),
    "duplicate key": (b'{"resourceType":"Bundle","type":"batch","type":"batch"}', FHIR, 400, "duplicate-key"),
    "empty": (b"", FHIR, 400, "json"),
    "utf-8": (b'"\xff"', FHIR, 400, "utf-8"),
    "deep": (b"[" * 100_000, FHIR, 400, None),
    "xml": (b"<Bundle/>", "application/fhir+xml", 415, "media-type"),
    "text": (b"{}", "text/plain", 415, "media-type"),
    "too large": (b" " * 10_000_001, FHIR, 413, "too-large"),
    "no resource": (b"[]", FHIR, 422, None),
    "searchset": (b'{"resourceType":"Bundle","type":"searchset"}', FHIR, 422, "invalid"),
    "entries of no shape": (b'{"resourceType":"Bundle","type":"batch","entry":[3]}', FHIR, 422, None),
    "no entry list": (b'{"resourceType":"Bundle","type":"batch","entry":{}}', FHIR, 422, None),
}


@pytest.mark.parametrize("name", RAW)
def test_damage_is_an_outcome_and_nothing_is_stored(shared: FlaskClient, name: str) -> None:
    body, kind, status, rule = RAW[name]
    for path in ("", "/MedicationAdministration"):
        reply = post(shared, path, body, kind)
        assert reply.status_code == status, reply.text
        told = said(reply)
        if path == "" and rule is not None:
            assert [r for _, r, _ in told] == [rule]


@pytest.mark.parametrize(("accept", "status"), [("", 200), ("*/*", 200), ("text/html", 406)])
def test_what_cannot_be_answered_is_not_done(client: FlaskClient, accept: str, status: int) -> None:
    headers = {"Accept": accept} if accept else {}
    body = dumps(bundle("transaction", refill()))
    reply = client.post("/fhir", data=body, content_type=FHIR, headers=headers)
    assert (reply.status_code, len(stored(client))) == (status, int(status == 200))


def test_milligrams_are_shifted_and_the_answer_and_the_audit_say_so(client: FlaskClient) -> None:
    made = refill()
    strength = made["contained"][0]["ingredient"][0]["strength"]["numerator"]
    strength |= {"value": 2, "unit": "mg", "code": "mg"}
    reply = post(client, "", bundle("transaction", made))
    assert reply.status_code == 200
    issues = loads(reply.data)["entry"][0]["response"]["outcome"]["issue"]
    assert [i["details"]["coding"][0]["code"] for i in issues] == ["accepted", "mg-to-ug"]
    (event,) = stored(client)
    assert event["drug"]["concentration"] == {"value": 2000, "unit": "ug/mL"}
    with client.application.extensions["itb"].store.read() as c:
        rows = audit.of(c, 1, f"event/{event['source']}/{event['id']}")
    assert "2 mg was read as 2000 ug" in next(r.detail for r in rows if r.action == "converted")
