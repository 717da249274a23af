"""`itb verify` and what the service does with a row that does not verify: named, never sent, never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from samples import DOSE_CHANGE, PUMP, REFILL
from service import cli
from service.store.engine import Store
from site_of_tests import DEVICE, HISTORY, Site
from site_of_tests import REFILL as SENT_REFILL


def damage(store: Store, seq: int) -> None:
    """The content of one event changed by hand, past the triggers."""
    with store.write() as c:
        if c.dialect.name == "postgresql":
            c.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER USER")
        else:
            c.exec_driver_sql("DROP TRIGGER events_no_UPDATE")
        c.exec_driver_sql(f"UPDATE events SET content = replace(content, '20', '21') WHERE seq = {seq}")


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    made.register()
    yield made
    made.store.close()


def test_a_row_that_does_not_verify_is_not_sent_and_the_delivery_says_why(site: Site) -> None:
    site.send(*HISTORY, DEVICE | {"id": "D-9", "serial": "NGP9"}, SENT_REFILL | {"id": "R-9", "pump": "NGP9"})
    damage(site.store, 2)
    assert site.push() == {"sent": 3, "parked": 1}
    (parked,) = [d for d in site.deliveries() if d.status == "parked"]
    assert (parked.event_seq, parked.failure) == (2, "Damaged")
    assert parked.reason == "event row 2 is not what was accepted: it was changed in the database"
    assert site.held("refill", "R-1") == [], "nothing of the damaged row may reach the EHR"
    assert len(site.held("refill", "R-9")) == 1, "its neighbours go on"
    assert {d.status for d in site.deliveries() if d.event_seq in (3, 4, 5)} == {"pending"}, "its lane waits"


def test_a_damaged_row_is_told_as_such_and_stops_no_other(app: Flask, client: FlaskClient) -> None:
    other = {"pump": "OTHER1", "id": "R-7"}
    assert client.post("/api/v1/events", json=[PUMP, REFILL]).status_code == 200
    damage(app.extensions["itb"].store, 1)
    for path in (
        "/api/v1/events",
        f"/api/v1/pumps/{REFILL['pump']}",
        f"/api/v1/events/clinic-a/{PUMP['id']}",
    ):
        reply = client.get(path)
        assert (reply.status_code, reply.mimetype) == (500, "application/problem+json"), path
        assert reply.json["errors"][0]["rule"] == "ledger-damaged"
        assert "event row 1" in reply.json["detail"]
        assert PUMP["serial"] not in reply.text
    reply = client.post("/api/v1/events", json=[DOSE_CHANGE, REFILL | other])
    assert [r["outcome"] for r in reply.json] == ["rejected", "accepted"]
    assert reply.json[0]["issues"][0]["rule"] == "ledger-damaged"


def itb(url: str, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.main, arguments, env={"ITB_DATABASE_URL": url})
    return done.exit_code, done.output


def test_verify_prints_anchors_and_names_the_bad_row(site: Site) -> None:
    site.send(*HISTORY)
    code, printed = itb(site.url, "verify")
    assert code == 0
    anchors = [line.split()[1] for line in printed.splitlines()]
    assert [a.rpartition(":")[0] for a in anchors] == ["events/1:5", "audit/1:5"]
    assert itb(site.url, "verify", "--expect", anchors[0], "--expect", anchors[1])[0] == 0
    elsewhere = anchors[0][:-1] + ("0" if anchors[0][-1] != "0" else "1")
    assert itb(site.url, "verify", "--expect", elsewhere)[0] == 1
    damage(site.store, 2)
    code, printed = itb(site.url, "verify")
    assert code == 1
    assert "FAIL  events of tenant 1: row 2 was changed" in printed.splitlines()


def test_verify_refuses_what_is_no_anchor_and_a_database_of_another_version(tmp_path: Path) -> None:
    assert itb(f"sqlite:///{tmp_path}/new.db", "verify", "--expect", "events/1")[0] == 2
    code, printed = itb(f"sqlite:///{tmp_path}/new.db", "verify")
    assert (code, "itb doctor" in printed) == (1, True)
