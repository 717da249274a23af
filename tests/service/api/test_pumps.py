"""Pumps over HTTP: the state folded from the ledger, now or at a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from samples import PATIENT, SERIAL, q

Json = Any
BASE = {"source": "clinic-a", "patient": PATIENT, "pump": SERIAL, "occurred_at": "2025-02-03T12:00:00-06:00"}
SIMPLE = {"mode": "simple", "daily_dose": q(100, "ug/d"), "concentration": q(500, "ug/mL")}
DRUG = {"concentration": q(500, "ug/mL"), "lot": "A1234", "expires_on": "2027-09-30"}
FILL = BASE | {
    "type": "refill",
    "id": "R-1",
    "drug": DRUG,
    "volume_instilled": q(20, "mL"),
    "low_alarm_volume": q(2, "mL"),
}
START = BASE | {"type": "dose-change", "id": "P-1", "after": SIMPLE}
AT = "2025-02-13T12:00:00-06:00"


def state(client: FlaskClient, at: str = AT, serial: str = SERIAL) -> Json:
    return client.get(f"/api/v1/pumps/{serial}", query_string={"at": at}).json


def test_the_state_is_a_fold_over_the_events(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=[FILL, START])
    found = state(client)
    # V = 20 mL - 100 ug/d / 500 ug/mL * 10 d (docs/clinical.md, "Formulas")
    assert found["reservoir_volume"] == {"value": 18, "unit": "mL"}
    assert found["alarm_at"] == "2025-05-04T12:00:00-06:00"
    assert found["program"] == SIMPLE
    assert found["pump"] == SERIAL
    assert state(client, "2025-02-03T12:00:00-06:00")["reservoir_volume"]["value"] == 20


def test_a_late_or_corrected_event_changes_the_state(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=[FILL, START])
    late = START | {"id": "P-2", "occurred_at": "2025-02-08T12:00:00-06:00"}
    late["after"] = SIMPLE | {"daily_dose": q(200, "ug/d")}
    client.post("/api/v1/events", json=late)
    assert state(client)["reservoir_volume"]["value"] == 17
    client.post("/api/v1/events", json=FILL | {"version": 2, "volume_instilled": q(18, "mL")})
    assert state(client)["reservoir_volume"]["value"] == 15
    client.post("/api/v1/events", json=late | {"version": 2, "status": "entered-in-error"})
    assert state(client)["reservoir_volume"]["value"] == 16


def test_without_a_moment_it_is_now(client: FlaskClient, clock: Any) -> None:
    client.post("/api/v1/events", json=[FILL, START])
    assert client.get(f"/api/v1/pumps/{SERIAL}").json["at"].startswith("2026-11-23T09:00:00")
    clock.forward(86_400)
    assert client.get(f"/api/v1/pumps/{SERIAL}").json["at"].startswith("2026-11-24T09:00:00")


def test_before_its_first_event_nothing_is_known_of_a_pump(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=FILL)
    found = state(client, "2024-01-01T00:00:00Z")
    assert (found["pump"], found["reservoir_volume"], found["program"]) == (SERIAL, None, None)


def test_pumps_are_listed_and_paged(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=[FILL | {"id": str(n), "pump": f"PUMP{n}"} for n in range(5)])
    first = client.get("/api/v1/pumps?limit=3").json
    assert [pump["pump"] for pump in first["pumps"]] == ["PUMP0", "PUMP1", "PUMP2"]
    rest = client.get("/api/v1/pumps", query_string={"cursor": first["next_cursor"], "at": AT}).json
    assert [pump["pump"] for pump in rest["pumps"]] == ["PUMP3", "PUMP4"]
    assert rest["next_cursor"] is None


def test_a_serial_number_may_hold_a_slash(client: FlaskClient) -> None:
    client.post("/api/v1/events", json=FILL | {"pump": "A/1"})
    assert state(client, serial="A/1")["pump"] == "A/1"


def test_an_unknown_pump_is_404(client: FlaskClient) -> None:
    assert client.get("/api/v1/pumps/NONE").status_code == 404


@pytest.mark.parametrize("at", ["2025-01-01", "2025-01-01T00:00:00", "now", ""])
def test_a_moment_without_an_offset_is_refused(client: FlaskClient, at: str) -> None:
    client.post("/api/v1/events", json=FILL)
    for path in ("/api/v1/pumps", f"/api/v1/pumps/{SERIAL}"):
        reply = client.get(path, query_string={"at": at})
        assert reply.status_code == 422
        assert reply.json["errors"][0]["path"] == "query.at"


@pytest.mark.parametrize("name", ["girl-9y", "forty-ml", "prometra"])
def test_the_storylines_are_accepted_whole(client: FlaskClient, name: str) -> None:
    body = Path(f"fixtures/storyline/{name}.ndjson").read_bytes()
    reply = client.post("/api/v1/events", data=body, content_type="application/x-ndjson")
    assert '"rejected"' not in reply.text
    assert '"conflict"' not in reply.text
    for pump in client.get("/api/v1/pumps").json["pumps"]:
        assert pump["label"] == "informational, not for dosing decisions"


def test_what_is_known_of_the_patient_counts_for_the_checks(client: FlaskClient) -> None:
    screening = {name: BASE[name] for name in ("source", "patient")} | {
        "type": "screening",
        "id": "S-1",
        "occurred_at": "2025-01-03T09:00:00-06:00",
        "bolus": q(25, "ug"),
        "responder": True,
    }
    client.post("/api/v1/events", json=[FILL, START])
    assert "D4" not in {issue["rule"] for issue in state(client)["open_issues"]}
    client.post("/api/v1/events", json=screening)
    (issue,) = [issue for issue in state(client)["open_issues"] if issue["rule"] == "D4"]
    assert issue["arithmetic"] == "100 > 2 * 25 = 50 mcg/day"


def test_a_pump_that_was_replaced_is_no_longer_in_use(client: FlaskClient) -> None:
    pumps = [
        {k: v for k, v in BASE.items() if k != "pump"}
        | {"type": "device", "id": f"D-{serial}", "kind": "pump", "serial": serial, "model": "8637-20"}
        for serial in (SERIAL, "NEW1")
    ]
    client.post("/api/v1/events", json=[*pumps, FILL, START])
    assert "P4" in {issue["rule"] for issue in state(client)["open_issues"]}
    replacement = BASE | {
        "type": "procedure",
        "id": "O-1",
        "action": "replacement",
        "pump": "NEW1",
        "old_pump": SERIAL,
        "occurred_at": "2025-02-10T12:00:00-06:00",
    }
    client.post("/api/v1/events", json=replacement)
    assert (state(client)["in_use"], state(client)["reservoir_volume"]) == (False, None)
    assert state(client, serial="NEW1")["in_use"]
    before = state(client, "2025-02-09T12:00:00-06:00")
    assert before["in_use"] and before["reservoir_volume"]["value"] == 18.8
    for serial in (SERIAL, "NEW1"):
        assert "P4" not in {issue["rule"] for issue in state(client, serial=serial)["open_issues"]}
