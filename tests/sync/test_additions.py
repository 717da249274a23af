"""What others added to a resource of ours in an EHR stays there when we write it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes import lose_answer
from mappings.paths import copy
from service.store import links
from service.sync import readback
from site_of_tests import (
    REFILL,
    Site,
    delivered,
    edit,
    event,
    newest,
    open_conflicts,
    program,
    say,
    the_conflict,
)

Json = Any
FOREIGN = {"url": "http://ehr.invalid/billing", "valueString": "B-17"}
NUMBER = {"system": "http://ehr.invalid/administrations", "value": "77"}
LABEL = {"system": "http://ehr.invalid/labels", "code": "reviewed"}
FOURTH = event(
    "dose-change", "P-4", occurred_at="2025-02-09T12:00:00-06:00", before=program(125), after=program(140)
)


def add(resource: Json) -> None:
    resource.setdefault("extension", []).insert(0, dict(FOREIGN))
    resource["identifier"].append(dict(NUMBER))
    resource["meta"].setdefault("tag", []).append(dict(LABEL))
    resource["text"] = {
        "status": "generated",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml">lot A1234</div>',
    }


def has_all(resource: Json) -> bool:
    return (
        FOREIGN in resource["extension"]
        and NUMBER in resource["identifier"]
        and LABEL in resource["meta"]["tag"]
    )


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Site:
    return delivered(tmp_path, database_url)


def corrected(lot: str, version: int) -> Json:
    return REFILL | {"version": version, "drug": REFILL["drug"] | {"lot": lot}}


@pytest.mark.parametrize("polls", [True, False])
def test_additions_to_a_record_survive_every_correction(site: Site, polls: bool) -> None:
    edit(site, "refill", "R-1", add)
    site.pull()
    for version, lot in ((2, "B2"), (3, "B3")):
        site.send(corrected(lot, version))
        site.push()
        there = site.one("refill", "R-1")
        assert there["contained"][0]["batch"]["lotNumber"] == lot
        assert has_all(there)
        assert "text" not in there  # it said the old lot
        if polls:
            assert set(site.pull()) <= {"echo"}
    assert site.versions("clinic-a", "R-1") == [REFILL, corrected("B2", 2), corrected("B3", 3)]


def test_a_reference_that_was_added_leads_where_it_did(site: Site) -> None:
    """It may carry an identifier beside: only what we refer to is ours to point."""
    subject = site.one("refill", "R-1")["subject"]["reference"]
    who = {"reference": subject, "type": "Patient", "identifier": dict(NUMBER)}
    added = {"url": "http://ehr.invalid/witness", "valueReference": who}
    edit(site, "refill", "R-1", lambda resource: resource.setdefault("extension", []).append(copy(added)))
    site.pull()
    site.send(corrected("B2", 2))
    site.push()
    there = site.one("refill", "R-1")
    assert there["contained"][0]["batch"]["lotNumber"] == "B2"
    assert added in there["extension"]


def test_a_segment_is_closed_and_keeps_what_was_added(site: Site) -> None:
    edit(site, "segment", "P-3", add)
    assert site.pull() == {"unchanged": 1}
    site.send(FOURTH)
    site.push()
    there = site.one("segment", "P-3")
    assert there["status"] == "completed"
    assert "end" in there["effectivePeriod"]
    assert has_all(there)
    assert open_conflicts(site) == []


def test_what_we_take_away_goes_although_something_was_added(site: Site) -> None:
    """A segment that runs again has no end: what the EHR holds more is not all theirs."""
    site.send(FOURTH)
    site.push()
    site.pull()
    edit(site, "segment", "P-3", add)
    assert site.pull() == {"unchanged": 1}
    site.send(FOURTH | {"version": 2, "status": "entered-in-error"})
    site.push()
    there = site.one("segment", "P-3")
    assert "end" not in there["effectivePeriod"]
    assert has_all(there)


@pytest.mark.parametrize(("kind", "id"), [("refill", "R-1"), ("segment", "P-3")])
def test_a_lost_answer_to_such_a_write_is_read_back(site: Site, kind: str, id: str) -> None:
    edit(site, kind, id, add)
    site.pull()
    site.send(corrected("B2", 2) if kind == "refill" else FOURTH)
    site.ehr.after = [lose_answer]
    site.push()
    (versions,) = site.held(kind, id)
    assert len(versions) == 3  # ours, with additions, ours with additions
    assert has_all(versions[-1])
    assert {one.status for one in site.deliveries()} == {"sent"}
    assert open_conflicts(site) == []


def test_an_edit_between_our_reading_and_our_writing_is_not_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(site, "refill", "R-1", add)
    site.pull()
    site.send(corrected("B2", 2))
    real = readback.over

    def edited_meanwhile(*given: Any) -> Json:
        monkeypatch.setattr("service.sync.readback.over", real)
        edit(site, "refill", "R-1", lambda r: r.update(note=[{"text": "theirs"}]))
        return real(*given)

    monkeypatch.setattr("service.sync.readback.over", edited_meanwhile)
    site.push()
    there = site.one("refill", "R-1")
    assert (there["note"], there["contained"][0]["batch"]["lotNumber"]) == ([{"text": "theirs"}], "B2")
    assert has_all(there)
    assert newest(site, "R-1")["note"] == "theirs"


def test_a_person_who_says_ours_is_not_overruled_by_what_was_added(site: Site) -> None:
    edit(site, "segment", "P-2", add)
    site.pull()
    wanted = copy(site.one("segment", "P-2")["dosage"])
    edit(site, "segment", "P-2", lambda r: r["dosage"]["rateRatio"]["numerator"].update(value=99))
    assert site.pull() == {"conflict": 1}
    choices = {field["path"]: "ours" for field in the_conflict(site).fields}
    say(site, choices, "ann")
    say(site, choices, "ben")
    site.push()
    assert site.one("segment", "P-2")["dosage"] == wanted


def test_an_edited_dose_that_is_decided_as_ours_keeps_additions(site: Site) -> None:
    def more_and_faster(resource: Json) -> None:
        add(resource)
        resource["contained"][0]["ingredient"][0]["strength"]["numerator"]["value"] = 2000

    edit(site, "refill", "R-1", more_and_faster)
    assert site.pull() == {"conflict": 1}
    choices = {field["path"]: "ours" for field in the_conflict(site).fields}
    say(site, choices, "ann")
    say(site, choices, "ben")
    site.push()
    there = site.one("refill", "R-1")
    assert has_all(there)
    assert there["contained"][0]["ingredient"][0]["strength"]["numerator"]["value"] == 500


def test_additions_are_known_after_a_restart(site: Site) -> None:
    edit(site, "segment", "P-3", add)
    site.pull()
    with site.store.read() as c:
        link = links.find_remote(
            c, site.endpoint.id, "MedicationAdministration", site.one("segment", "P-3")["id"]
        )
    assert link is not None
    assert link.ours is not None
    assert "B-17" not in link.ours
