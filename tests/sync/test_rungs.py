"""The ladder at work: servers that take little, over HTTP; everything delivered once, and read back whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import MemoryEhr
from mappings import read_fhir
from mappings.exact_json import dumps
from service.sync import ladder, push, send
from site_of_hospital import Hospital
from site_of_tests import DEVICE, HISTORY, REFILL, SECOND, START, Site, program

Json = Any


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Any]:
    made: list[Hospital] = []

    def open(personality: str, faults: str = "", **options: Any) -> Hospital:
        made.append(Hospital(tmp_path, personality, faults, **options))
        return made[-1]

    yield open
    for one in made:
        one.close()


def names(resources: list[Json]) -> list[str]:
    return [identifier["value"] for resource in resources for identifier in resource["identifier"]]


def sent(site: Site) -> list[bytes]:
    return sorted(dumps(site.versions("clinic-a", e["id"])[-1]) for e in HISTORY)


@pytest.mark.parametrize(
    ("personality", "types"),
    [
        ("epic-like", {"Procedure", "Observation", "DocumentReference"}),
        ("oracle-like", {"Observation", "DocumentReference"}),
    ],
)
def test_a_history_is_charted_once_and_whole(hospital: Any, personality: str, types: set[str]) -> None:
    there = hospital(personality)
    there.site.send(*HISTORY)
    assert there.site.push() == {"sent": len(HISTORY)}
    assert there.rungs() == {("sent", "chart")}
    assert there.told() == sent(there.site)
    assert [one["lost"] for one in there.loss()] == [[]] * len(HISTORY)
    for type in ("Procedure", "Observation", "DocumentReference"):
        found = names(there.held(type))
        assert len(found) == len(set(found))
        assert bool(found) == (type in types)
    before = dumps([there.held(type) for type in sorted(types)])
    assert set(there.site.send(*HISTORY)) == {"replayed"}
    assert there.site.push() == {}
    assert dumps([there.held(type) for type in sorted(types)]) == before


def test_an_interrogation_is_the_observation_that_it_is_anywhere(hospital: Any) -> None:
    there = hospital("epic-like")
    reading = {
        **REFILL,
        "type": "interrogation",
        "id": "I-1",
        "reservoir_volume": {"value": 12, "unit": "mL"},
    }
    there.site.send({k: v for k, v in reading.items() if k not in ("drug", "volume_instilled")})
    assert there.site.push() == {"sent": 1}
    assert there.rungs() == {("sent", "single")}
    assert there.loss() == [{"left_out": ["Provenance"], "lost": []}]
    (event,) = [read_fhir(one).events[0] for one in there.held("Observation")]
    assert dumps(event) == dumps(there.site.versions("clinic-a", "I-1")[0])


def test_a_correction_changes_the_chart_and_withdraws_what_it_leaves_out(hospital: Any) -> None:
    there = hospital("epic-like")
    there.site.send(REFILL | {"alarm_on": "2025-06-01"})
    there.site.push()
    there.site.send(REFILL | {"version": 2, "needle_passes": 3})
    assert there.site.push() == {"sent": 1}
    status = {one["code"]["coding"][0]["code"]: one["status"] for one in there.held("Observation")}
    assert status.pop("low-reservoir-alarm-date") == "entered-in-error"
    assert set(status.values()) == {"final"}
    assert there.told() == [dumps(there.site.versions("clinic-a", REFILL["id"])[-1])]


def test_a_record_entered_in_error_is_withdrawn_everywhere(hospital: Any) -> None:
    there = hospital("epic-like")
    there.site.send(REFILL)
    there.site.push()
    there.site.send(REFILL | {"version": 2, "status": "entered-in-error"})
    assert there.site.push() == {"sent": 1}
    for type in ("Procedure", "Observation", "DocumentReference"):
        assert {one["status"] for one in there.held(type)} == {"entered-in-error"}


def test_answers_that_are_lost_double_nothing_where_conditions_are_ignored(hospital: Any) -> None:
    """The server ignores If-None-Exist; every third write is done and not answered."""
    there = hospital("epic-like", "reset-after@30%/create")
    there.site.send(DEVICE, REFILL, START)
    there.site.push()
    assert there.rungs() == {("sent", "chart")}
    for type in ("Procedure", "Observation", "DocumentReference"):
        found = names(there.held(type))
        assert found and len(found) == len(set(found))


class Killed(BaseException):
    """The process dies here."""


def killed_and_started_again(there: Hospital, after: int) -> None:
    """The worker is killed right after its `after`th write reached the EHR."""
    right = there.site.ehr.write
    count = 0

    def write(entry: Json) -> Json:
        nonlocal count
        answer = right(entry)
        count += 1
        if count == after:
            raise Killed
        return answer

    there.site.send(REFILL)
    there.site.ehr.write = write  # type: ignore[method-assign]
    with pytest.raises(Killed):
        there.site.push()
    there.site.ehr.write = right  # type: ignore[method-assign]
    there.site.restart()
    there.site.push()
    assert there.rungs() == {("sent", "chart")}
    for type in ("Procedure", "Observation", "DocumentReference"):
        found = names(there.held(type))
        assert len(found) == len(set(found)), type
    assert there.told() == [dumps(there.site.versions("clinic-a", REFILL["id"])[-1])]


@pytest.mark.parametrize("personality", ["epic-like", "oracle-like"])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_kill_between_two_writes_doubles_nothing(hospital: Any, personality: str, after: int) -> None:
    killed_and_started_again(hospital(personality), after)


def nothing_is_read_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(push, "_could_double", lambda parcel, matrix: False)


def links_of_half_a_parcel_are_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(push, "_among", lambda route, matrix, parcels: {})
    patch.setattr(push, "_could_double", lambda parcel, matrix: False)


def only_the_document_is_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ladder, "shape", lambda plan, event, **more: [ladder.chart.encode(event)[-1]])


@pytest.mark.parametrize(
    "bug", [nothing_is_read_back, links_of_half_a_parcel_are_lost, only_the_document_is_sent]
)
def test_a_seeded_bug_is_caught(bug: Any, hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        if bug is only_the_document_is_sent:
            test_a_history_is_charted_once_and_whole(
                hospital, "epic-like", {"Procedure", "Observation", "DocumentReference"}
            )
        killed_and_started_again(hospital("epic-like"), 2)


def test_what_a_server_leaves_out_without_a_word_is_recorded(hospital: Any) -> None:
    there = hospital("silent-lossy")
    there.site.send(DEVICE, REFILL | {"needle_passes": 2})
    there.site.push()
    (_, refill) = there.loss()
    assert "needle_passes" in refill["lost"]


def test_a_server_that_can_take_no_form_of_it_is_told_to_a_person(hospital: Any) -> None:
    there = hospital("epic-like", refuse_types=["DocumentReference"])
    there.site.send(DEVICE)
    assert there.site.push() == {
        "pending": 2,
        "parked": 1,
    }  # looked at three times, as a person would be asked
    (parked,) = there.site.deliveries()
    assert "this server can take no form of it" in (parked.reason or "")


def test_a_server_that_takes_more_one_day_gets_the_fuller_form(tmp_path: Path) -> None:
    site = Site(tmp_path, refuse_types=["MedicationAdministration"])
    site.register()
    site.send(REFILL)
    assert site.push() == {"sent": 1}
    assert site.held("refill", "R-1") == []
    with site.store.write() as c:
        from service.store.tables import endpoints

        c.execute(endpoints.update().values(options="{}"))
    site.send(REFILL | {"version": 2, "needle_passes": 2})
    assert site.push() == {"sent": 1}
    assert site.one("refill", "R-1")["status"] == "completed"
    assert site.one("charted-refill", "R-1")["status"] == "entered-in-error"
    assert site.one("record", "R-1")["status"] == "entered-in-error"


def test_without_transactions_the_old_program_is_closed_before_the_new_one_runs(tmp_path: Path) -> None:
    site = Site(tmp_path, transactions=False)
    site.register()
    ends: list[list[str]] = []
    right = site.ehr.write

    def write(entry: Json) -> Json:
        answer = right(entry)
        ends.append(site.running())
        return answer

    site.ehr.write = write  # type: ignore[method-assign]
    site.send(
        DEVICE,
        START,
        SECOND,
        SECOND | {"id": "P-9", "occurred_at": "2025-03-01T12:00:00-06:00", "after": program(130)},
    )
    assert set(site.push()) == {"sent"}
    assert max(map(len, ends)) == 1
    assert site.running() == ["clinic-a.P-9"]
    assert {d.rung for d in site.deliveries()} == {"single"}


def test_what_another_refers_to_is_written_first(tmp_path: Path) -> None:
    site = Site(tmp_path, transactions=False)
    site.register()
    site.send(*HISTORY)
    assert site.push() == {"sent": len(HISTORY)}
    order = site.one("program", "P-3")
    session = site.one("programming-session", "P-3")
    detail = next(e for e in session["extension"] if e["url"].endswith("itb-dose-change"))["extension"]
    after = next(e for e in detail if e["url"] == "programAfter")["valueReference"]
    assert after["reference"] == f"MedicationRequest/{order['id']}"
    assert isinstance(site.ehr, MemoryEhr)


def test_a_ring_of_references_is_written_all_the_same() -> None:
    def one(key: str, *to: str) -> Any:
        listed = [{"type": "Observation", "identifier": {"system": "s", "value": name}} for name in to]
        return send.Wanted(("s", key), {"resourceType": "Observation", "hasMember": listed}, "", None)

    found = send.ordered([one("a", "b"), one("b", "c"), one("c", "a"), one("d")])
    assert sorted(w.key[1] for w in found) == ["a", "b", "c", "d"]
    assert [w.key[1] for w in send.ordered([one("a", "b"), one("b", "c"), one("c")])] == ["c", "b", "a"]
