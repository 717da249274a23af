"""Both sides edited the same record: nothing is lost, nothing about a dose is decided by the machine."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes import lose_answer
from mappings.exact_json import loads
from mappings.paths import copy
from service.store import audit
from service.sync import arrival
from service.sync.resolve import NotNow, decide
from service.sync.worker import push_due
from site_of_tests import (
    DRUG,
    HISTORY,
    REFILL,
    THIRD,
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


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Site:
    return delivered(tmp_path, database_url)


def lot(value: str) -> Any:
    return lambda r: r["contained"][0]["batch"].update(lotNumber=value)


def strength(value: int) -> Any:
    return lambda r: r["contained"][0]["ingredient"][0]["strength"]["numerator"].update(value=value)


def noted(text: str) -> Any:
    return lambda r: r.update(note=[{"text": text}])


def faster(resource: Json) -> None:
    dosage = resource["dosageInstruction"][0]
    dosage["doseAndRate"][0]["rateRatio"]["numerator"]["value"] = 150
    dosage["text"] = dosage["text"].replace("125", "150")
    for extension in resource["extension"]:
        if extension["url"].endswith("itb-daily-dose"):
            extension["valueQuantity"]["value"] = 150


def statuses(site: Site) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in site.deliveries():
        found[one.status] = found.get(one.status, 0) + 1
    return found


# --- merged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["pull", "push"])
def test_edits_of_different_fields_both_survive_on_both_sides(site: Site, first: str) -> None:
    edit(site, "refill", "R-1", lot("B77"))
    site.send(REFILL | {"version": 2, "note": "left side"})
    if first == "pull":
        assert site.pull() == {"merged": 1}
    site.push()
    merged = newest(site, "R-1")
    assert (merged["version"], merged["drug"]["lot"], merged["note"]) == (3, "B77", "left side")
    there = site.one("refill", "R-1")
    assert there["contained"][0]["batch"]["lotNumber"] == "B77"
    assert there["note"] == [{"text": "left side"}]
    assert set(site.pull()) <= {"echo"}
    assert statuses(site).keys() == {"sent"}


def test_an_edit_there_after_a_merge_does_not_undo_ours_before_it_arrived(site: Site) -> None:
    """What the EHR showed is the base, not what we are about to write there."""
    edit(site, "refill", "R-1", lot("B77"))
    site.send(REFILL | {"version": 2, "note": "left side"})
    assert site.pull() == {"merged": 1}
    edit(site, "refill", "R-1", lambda r: r["contained"][0]["batch"].update(expirationDate="2028-01-31"))
    assert site.pull() == {"merged": 1}
    merged = newest(site, "R-1")
    assert (merged["note"], merged["drug"]["lot"]) == ("left side", "B77")
    assert merged["drug"]["expires_on"] == "2028-01-31"


def test_an_old_page_does_not_undo_what_we_wrote_since(site: Site) -> None:
    old = copy(site.one("refill", "R-1"))
    old["meta"]["versionId"] = "1"
    with site.store.write() as c:
        c.exec_driver_sql("DELETE FROM remote_versions")
    site.send(REFILL | {"version": 2, "note": "left side"})
    site.push()
    reader = arrival.Reader(site.store, site.ehr, site.endpoint)
    arrival.take(site.store, site.ehr, reader, site.endpoint, [old], site.now)
    assert newest(site, "R-1")["note"] == "left side"
    assert len(site.versions("clinic-a", "R-1")) == 2


def out_of_date(site: Site, monkeypatch: pytest.MonkeyPatch, old: Json, minutes: int) -> None:
    """For so long every reading of this resource is answered with what it was."""
    until, right = site.time + timedelta(minutes=minutes), site.ehr.read

    def read(type: str, id: str) -> Json:
        return old if id == old["id"] and site.time < until else right(type, id)

    monkeypatch.setattr(site.ehr, "read", read)


def check_an_old_answer_is_no_edit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is given: by a poll, and to a delivery that reads back."""
    old = site.one("refill", "R-1")
    with site.store.write() as c:
        c.exec_driver_sql("DELETE FROM remote_versions")  # it was written over before any poll
    site.send(REFILL | {"version": 2, "note": "left side"})
    assert push_due(site.store, site.endpoint, site.ehr, site.now) == {"sent": 1}
    out_of_date(site, monkeypatch, old, 2)
    reader = arrival.Reader(site.store, site.ehr, site.endpoint)
    assert arrival.take(site.store, site.ehr, reader, site.endpoint, [old], site.now) == {}
    site.send(REFILL | {"version": 3, "note": "right side"})
    site.ehr.after.append(lose_answer)
    for _ in range(2):
        assert push_due(site.store, site.endpoint, site.ehr, site.now) == {"pending": 1}
        site.time += timedelta(seconds=5)
    site.time += timedelta(minutes=2)
    assert site.push() == {"sent": 1}
    assert open_conflicts(site) == []
    assert [one.get("note") for one in site.versions("clinic-a", "R-1")] == [None, "left side", "right side"]


def test_an_answer_older_than_our_own_write_is_no_edit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    check_an_old_answer_is_no_edit(site, monkeypatch)


def test_an_old_answer_that_is_believed_is_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "is_past_caches", lambda link, now: True)
    with pytest.raises(AssertionError):
        check_an_old_answer_is_no_edit(site, monkeypatch)


def test_the_programmers_later_reading_stands_and_that_is_on_record(site: Site) -> None:
    site.send(REFILL | {"version": 2, "volume_removed": {"value": 3, "unit": "mL"}})
    site.push()

    def removed(value: int) -> Any:
        def change(resource: Json) -> None:
            part = next(e for e in resource["extension"] if e["url"].endswith("itb-refill-detail"))
            amount = next(e for e in part["extension"] if e["url"] == "volumeRemoved")
            amount["valueQuantity"]["value"] = value

        return change

    edit(site, "refill", "R-1", removed(9))
    site.send(REFILL | {"version": 3, "volume_removed": {"value": 4, "unit": "mL"}})
    assert site.pull()["kept"] == 1
    site.push()
    assert newest(site, "R-1")["volume_removed"]["value"] == 4
    assert '"value": 4' in str(site.one("refill", "R-1")).replace("'", '"').replace('Decimal("4")', "4")
    with site.store.read() as c:
        rows = audit.of(c, 1, "event/clinic-a/R-1")
    assert [(row.action, row.detail) for row in rows] == [("kept", "changed on both sides: volume_removed")]


# --- asked ------------------------------------------------------------------------------------------------


def test_a_dose_edited_there_is_a_conflict_and_nothing_is_written_over_it(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    assert site.pull() == {"conflict": 1}
    found = the_conflict(site)
    assert [f["path"] for f in found.fields] == ["drug.concentration"]
    assert (found.two_persons, found.base["id"], found.theirs["id"]) == (True, "R-1", "R-1")
    assert loads(found.raw or "")["id"] == found.remote_id
    site.send(REFILL | {"version": 2, "note": "left side"})
    site.push()
    assert (
        site.one("refill", "R-1")["contained"][0]["ingredient"][0]["strength"]["numerator"]["value"] == 2000
    )
    assert statuses(site) == {"sent": 5, "parked": 1}


def test_a_conflict_holds_its_record_and_nothing_else_of_the_pump(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    site.pull()
    site.send(
        REFILL | {"version": 2, "note": "held"},
        event("refill", "R-2", drug=DRUG, volume_instilled=REFILL["volume_instilled"]),
        THIRD | {"version": 2, "reason": "spasms"},
    )
    assert site.push() == {"parked": 1, "sent": 2}
    assert site.one("refill", "R-2")["status"] == "completed"


def test_a_program_in_conflict_holds_those_that_would_be_written_over_it(site: Site) -> None:
    edit(site, "program", "P-3", faster, "MedicationRequest")
    fourth = event(
        "dose-change", "P-4", occurred_at="2025-02-09T12:00:00-06:00", before=program(125), after=program(130)
    )
    site.send(fourth)
    site.push()
    (found,) = open_conflicts(site)
    assert found.event_id == "P-3"
    waiting = [d for d in site.deliveries() if d.status == "parked"]
    assert waiting
    assert {d.conflict_id for d in waiting} == {found.id}
    assert site.held("program", "P-4") == []


def test_both_edited_the_same_note(site: Site) -> None:
    edit(site, "refill", "R-1", noted("theirs"))
    site.send(REFILL | {"version": 2, "note": "ours"})
    site.push()
    found = the_conflict(site)
    assert (found.two_persons, [f["path"] for f in found.fields]) == (False, ["note"])
    assert say(site, {"note": "theirs"}, "ann").status == "resolved"
    assert newest(site, "R-1")["note"] == "theirs"
    site.push()
    assert statuses(site).keys() == {"sent"}
    assert site.one("refill", "R-1")["note"] == [{"text": "theirs"}]


def test_two_persons_decide_about_a_dose(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    site.pull()
    theirs, ours = {"drug.concentration": "theirs"}, {"drug.concentration": "ours"}
    assert say(site, theirs, "ann").status == "open"
    assert say(site, theirs, "ann").status == "open"  # the same person twice is one person
    assert say(site, ours, "bob").proposed_by == "bob"  # another decision is a new proposal
    assert say(site, theirs, "ann").status == "open"
    assert newest(site, "R-1")["drug"]["concentration"]["value"] == 500
    done = say(site, theirs, "bob")
    assert (done.status, done.resolved_by) == ("resolved", "bob")
    assert newest(site, "R-1")["drug"]["concentration"]["value"] == 2000
    with site.store.read() as c:
        rows = audit.of(c, 1, f"conflict/{done.id}")
    assert [(r.actor, r.action) for r in rows][-2:] == [("ann", "proposed"), ("bob", "resolved")]
    site.push()
    assert statuses(site).keys() == {"sent"}


def test_nobody_in_particular_is_no_second_person(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    site.pull()
    for person in ("ann", "anonymous", "anonymous"):
        assert say(site, {"drug.concentration": "ours"}, person).status == "open"


def test_ours_decided_is_written_over_what_the_person_saw_and_nothing_later(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    site.pull()
    for person in ("ann", "bob"):
        say(site, {"drug.concentration": "ours"}, person)
    edit(site, "refill", "R-1", strength(1000))
    site.push()
    assert [f["theirs"]["value"] for f in the_conflict(site).fields] == [1000]


def test_ours_decided_arrives(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    site.pull()
    for person in ("ann", "bob"):
        say(site, {"drug.concentration": "ours"}, person)
    site.push()
    assert site.one("refill", "R-1")["contained"][0]["ingredient"][0]["strength"]["numerator"]["value"] == 500
    assert set(site.pull()) <= {"echo"}
    assert open_conflicts(site) == []


def test_an_ehr_that_takes_its_edit_back_ends_the_conflict(site: Site) -> None:
    edit(site, "refill", "R-1", strength(2000))
    site.pull()
    site.send(REFILL | {"version": 2, "note": "waits"})
    site.push()
    edit(site, "refill", "R-1", strength(500))
    site.pull()
    assert open_conflicts(site) == []
    site.push()
    assert statuses(site).keys() == {"sent"}
    assert site.one("refill", "R-1")["note"] == [{"text": "waits"}]


def test_a_decision_about_a_version_that_is_not_the_last_is_refused(site: Site) -> None:
    edit(site, "refill", "R-1", noted("theirs"))
    site.send(REFILL | {"version": 2, "note": "ours"})
    site.pull()
    number = the_conflict(site).id
    site.send(REFILL | {"version": 3, "note": "ours again"})
    with pytest.raises(NotNow):
        decide(site.store, 1, number, {"note": "theirs"}, "ann", site.now())
    assert [f["ours"] for f in the_conflict(site).fields] == ["ours again"]
    assert say(site, {"note": "ours"}, "ann").status == "resolved"


def test_a_dose_edited_only_in_the_order_is_seen(site: Site) -> None:
    """The session was left alone, the MedicationRequest it points to was not."""
    ((order, *_),) = site.held("program", "P-3", "MedicationRequest")
    edit(site, "program", "P-3", faster, "MedicationRequest")
    assert site.pull() == {"refused": 1}  # the session does not say so
    assert [f["path"] for f in the_conflict(site).fields] == [f"MedicationRequest/{order['id']}"]
    assert newest(site, "P-3")["after"]["daily_dose"]["value"] == 125


def test_a_segment_edited_there_is_asked_and_put_right(site: Site) -> None:
    def slower(resource: Json) -> None:
        resource["dosage"]["rateRatio"]["numerator"]["value"] = 12

    edit(site, "segment", "P-3", slower)
    assert site.pull() == {"conflict": 1}
    found = the_conflict(site)
    assert (found.kind, found.two_persons) == ("rewritten", True)
    (field,) = found.fields
    for person in ("ann", "bob"):
        say(site, {field["path"]: "ours"}, person)
    site.push()
    assert site.one("segment", "P-3")["dosage"]["rateRatio"]["numerator"]["value"] == 125
    assert statuses(site).keys() == {"sent"}


def test_what_an_ehr_adds_to_a_segment_is_no_conflict(site: Site) -> None:
    edit(site, "segment", "P-3", lambda r: r.update(category={"text": "outpatient"}))
    assert site.pull() == {"unchanged": 1}


def test_a_resource_cannot_become_another_record(site: Site) -> None:
    edit(site, "refill", "R-1", lambda r: r["identifier"][0].update(value="clinic-a.R-9"))
    assert site.pull() == {"refused": 1}
    assert the_conflict(site).event_id == "R-1"
    assert site.versions("clinic-a", "R-9") == []
    assert site.versions("hapi", "clinic-a.R-9") == []


def test_a_field_that_an_ehr_cannot_keep_is_not_taken_for_deleted(site: Site) -> None:
    """It stored what we wrote without the note: later edits there are measured against that."""
    site.send(REFILL | {"version": 2, "note": "left side"})
    site.push()
    stored = site.one("refill", "R-1")
    versions = site.ehr.state.versions[stored["resourceType"], stored["id"]]
    kept = {name: value for name, value in stored.items() if name != "note"}
    versions[-1] = replace(versions[-1], resource=kept)
    site.pull()
    edit(site, "refill", "R-1", lot("B77"))
    assert set(site.pull()) == {"merged"}
    assert (newest(site, "R-1")["note"], newest(site, "R-1")["drug"]["lot"]) == ("left side", "B77")


class Killed(BaseException):
    """The process dies here."""


def kill(name: str) -> None:
    raise Killed


@pytest.mark.parametrize("by_poll", [True, False])
def test_an_edit_of_what_we_do_not_know_to_have_arrived_is_read_in(site: Site, by_poll: bool) -> None:
    """Our first write was done and its answer lost; before it is read back, somebody has edited it."""
    site.send(REFILL | {"id": "R-2", "occurred_at": "2025-02-09T12:00:00-06:00"})
    site.ehr.after = [lose_answer]
    site.push(rounds=1)
    edit(site, "refill", "R-2", noted("theirs"))
    if by_poll:
        site.pull()
    site.push()
    assert site.one("refill", "R-2")["note"] == [{"text": "theirs"}]
    assert newest(site, "R-2")["note"] == "theirs"
    assert statuses(site).keys() == {"sent"}


@pytest.mark.parametrize("read_first", [True, False])
def test_a_write_of_ours_that_is_not_recorded_yet_is_no_edit_of_theirs(
    tmp_path: Path, read_first: bool
) -> None:
    """Found by the chaos run: a worker was killed when the EHR had closed a segment for it, and a poll that
    came before the next try asked a person about the change."""
    site = Site(tmp_path)
    site.register()
    *before, last = HISTORY
    site.send(*before)
    site.push()
    site.pull()
    site.send(last)
    site.ehr.after = [kill]
    with contextlib.suppress(Killed):
        site.push()
    site.restart()
    if read_first:
        site.pull()
    assert open_conflicts(site) == []
    site.time += timedelta(hours=1)
    site.push()
    site.pull()
    assert open_conflicts(site) == []
    assert {d.status for d in site.deliveries()} == {"sent"}
    site.store.close()
