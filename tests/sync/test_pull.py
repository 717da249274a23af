"""Reading: what the EHR's users change arrives once, our own writes never."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mappings.codes import definition
from mappings.paths import copy
from service.store import audit, endpoints
from site_of_tests import HISTORY, REFILL, Site


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    made.register()
    made.send(*HISTORY)
    made.push()
    yield made
    made.store.close()


def test_our_own_writes_are_echoes(site: Site) -> None:
    assert set(site.pull()) == {"echo"}
    assert site.pull() == {}
    assert [len(site.versions("clinic-a", e["id"])) for e in HISTORY] == [1] * len(HISTORY)


def test_our_writes_are_known_even_before_they_are_recorded(site: Site, tmp_path: Path) -> None:
    """A kill after the EHR's commit leaves no link: the content alone shows that nothing is new."""
    with site.store.write() as c:
        c.exec_driver_sql("DELETE FROM links")
    assert set(site.pull()) <= {"unchanged", "ignored"}
    assert [len(site.versions("clinic-a", e["id"])) for e in HISTORY] == [1] * len(HISTORY)


def edit(site: Site, kind: str, id: str, change: Any) -> None:
    resource = copy(site.one(kind, id))
    change(resource)
    site.ehr.update(resource)


def test_an_edited_lot_is_a_new_version_once(site: Site) -> None:
    site.pull()
    edit(site, "refill", "R-1", lambda r: r["contained"][0]["batch"].update(lotNumber="B77"))
    assert site.pull() == {"corrected": 1}
    assert site.pull() == {}
    first, second = site.versions("clinic-a", "R-1")
    assert (second["version"], second["drug"]["lot"]) == (2, "B77")
    assert {**second, "drug": first["drug"]} == {**first, "version": 2, "drug": first["drug"]}
    assert site.push() == {}
    assert len(site.held("refill", "R-1")[0]) == 2


def test_entered_in_error_travels(site: Site) -> None:
    edit(site, "refill", "R-1", lambda r: r.update(status="entered-in-error"))
    assert site.pull()["corrected"] == 1
    assert site.versions("clinic-a", "R-1")[-1]["status"] == "entered-in-error"


def test_a_dose_change_retracted_there_takes_its_program_and_segment_along(site: Site) -> None:
    edit(site, "programming-session", "P-2", lambda r: r.update(status="entered-in-error"))
    assert site.pull()["corrected"] == 1
    assert site.push() == {"sent": 1}
    assert site.one("segment", "P-2")["status"] == "entered-in-error"
    assert site.one("program", "P-3")["priorPrescription"]["identifier"]["value"] == "clinic-a.P-1"
    assert set(site.pull()) <= {"echo"}


def foreign(site: Site, **changes: Any) -> dict[str, Any]:
    """A refill entered in the EHR with our profile: literal references, an identifier of its own."""
    made = copy(site.one("refill", "R-1"))
    for name in ("id", "meta"):
        made.pop(name)
    made["meta"] = {"profile": [definition("itb-refill")]}
    made["identifier"] = [{"system": "http://ehr.invalid/administration", "value": "A-77"}]
    made["subject"] = {"reference": made["subject"]["reference"]}
    made["device"] = [{"reference": made["device"][0]["reference"]}]
    made |= changes
    condition = "identifier=http://ehr.invalid/administration|A-77"
    return site.ehr.create(made, condition)


def test_a_refill_entered_there_is_an_event_once(site: Site) -> None:
    foreign(site, effectiveDateTime="2025-03-01T12:00:00-06:00")
    assert site.pull()["accepted"] == 1
    assert site.pull() == {}
    (event,) = site.versions("hapi", "A-77")
    assert (event["pump"], event["patient"]) == ("NGP1", REFILL["patient"])
    assert event["occurred_at"] == "2025-03-01T12:00:00-06:00"
    assert site.push() == {}


def test_a_refill_of_theirs_without_an_identifier_is_known_by_its_id(site: Site) -> None:
    stored = foreign(site)
    site.ehr.place({k: v for k, v in stored.items() if k != "identifier"})
    assert site.pull()["accepted"] == 1
    assert len(site.versions("hapi", f"MedicationAdministration/{stored['id']}")) == 1


def test_a_record_of_theirs_that_we_correct_keeps_its_own_number(site: Site) -> None:
    stored = foreign(site, effectiveDateTime="2025-03-01T12:00:00-06:00")
    site.pull()
    (event,) = site.versions("hapi", "A-77")
    assert site.send(event | {"version": 2, "note": "left side"}) == ["corrected"]
    assert site.push() == {"sent": 1}
    there = site.ehr.read("MedicationAdministration", stored["id"])
    assert there["note"] == [{"text": "left side"}]
    assert stored["identifier"][0] in there["identifier"]
    assert there["subject"]["reference"] == stored["subject"]["reference"]
    assert set(site.pull()) <= {"echo"}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"modifierExtension": [{"url": "http://other.invalid/not", "valueBoolean": True}]},
            "modifier-extension",
        ),
        ({"subject": {"reference": "Patient/p9"}}, "patient"),
        ({"dosage": {"dose": {"value": 20, "unit": "mL"}}}, "fixed"),
    ],
)
def test_what_cannot_be_read_is_kept_and_stops_nothing(
    site: Site, changes: dict[str, Any], rule: str
) -> None:
    site.ehr.place({"resourceType": "Patient", "id": "p9"})
    foreign(site, **changes)
    edit(site, "refill", "R-1", lambda r: r["contained"][0]["batch"].update(lotNumber="B77"))
    counts = site.pull()
    assert (counts["refused"], counts["corrected"]) == (1, 1)
    with site.store.read() as c:
        rows = c.exec_driver_sql(
            "SELECT outcome, raw FROM remote_versions WHERE substr(outcome, 1, 7) = 'refused'"
        ).all()
    assert rule in rows[0].outcome
    assert "A-77" in rows[0].raw


def test_what_is_not_ours_is_left_alone(site: Site) -> None:
    other = {"resourceType": "Procedure", "status": "completed", "code": {"text": "appendectomy"}}
    site.ehr.create(
        other | {"identifier": [{"system": "http://x.invalid", "value": "1"}]},
        "identifier=http://x.invalid|1",
    )
    assert site.pull()["ignored"] == 1


def test_the_cursor_is_the_servers_time_and_overlaps(site: Site) -> None:
    site.pull()
    cursor = site.endpoint.cursor
    assert cursor is not None
    assert cursor.startswith("2026-01-01T00:00")
    edit(site, "refill", "R-1", lambda r: r["contained"][0]["batch"].update(lotNumber="B77"))
    assert site.pull() == {"corrected": 1}


def test_another_ehr_gets_what_one_ehr_changed(site: Site) -> None:
    with site.store.write() as c:
        endpoints.add(c, 1, "second", "http://second.invalid", {}, now=site.now())
    edit(site, "refill", "R-1", lambda r: r["contained"][0]["batch"].update(lotNumber="B77"))
    site.pull()
    waiting = [d for d in site.deliveries() if d.status == "pending"]
    assert len(waiting) == 1
    assert waiting[0].endpoint_id != site.endpoint.id


def test_milligrams_of_theirs_become_micrograms_and_the_original_is_on_record(site: Site) -> None:
    made = foreign(site)
    strength = made["contained"][0]["ingredient"][0]["strength"]["numerator"]
    strength |= {"value": Decimal("0.50"), "unit": "mg", "code": "mg"}
    site.ehr.update(made)
    assert site.pull()["accepted"] == 1
    (event,) = site.versions("hapi", "A-77")
    assert event["drug"]["concentration"] == {"value": Decimal("500"), "unit": "ug/mL"}
    with site.store.read() as c:
        (row,) = audit.of(c, 1, "event/hapi/A-77")
    assert row.action == "converted"
    assert "mg-to-ug: 0.50 mg was read as 500 ug" in row.detail
