"""Comparing an EHR with the ledger: everything that differs is found, and what may be mended is."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mappings.paths import copy
from service.store import deliveries, drift, links
from service.sync import arrival, reconcile, survey
from service.sync.drift import KINDS, Agreed, judge
from service.sync.ehr import Unreachable
from service.sync.reconcile import Comparison
from service.sync.upkeep import tend
from service.synthetic import clinic
from site_of_hospital import Hospital
from site_of_tests import HISTORY, REFILL, Site

Json = Any


class Ward(Site):
    """A site whose history was delivered, and whose EHR can be tampered with."""

    def __init__(self, folder: Path, url: str = "", **options: Any) -> None:
        super().__init__(folder, url, **options)
        self.register()
        self.send(*HISTORY)
        assert self.push() == {"sent": len(HISTORY)}

    def compare(self, *, fix: bool = False) -> dict[str, int]:
        matrix = survey.matrix_of(self.store, self.ehr, self.endpoint, self.now)
        self.run = reconcile.reconcile(
            Comparison(self.store, self.ehr, self.endpoint, matrix, self.now, fix), "test"
        )
        return self.run.counts

    def found(self) -> list[tuple[str, str, str]]:
        with self.store.read() as c:
            listed = drift.of_run(c, 1, self.run.id, limit=100)
        return sorted((one.kind, one.resource_type, one.value) for one in listed)

    def key(self, kind: str, id: str) -> tuple[str, str]:
        one = self.one(kind, id)
        return one["resourceType"], one["id"]

    # --- what happens in an EHR ---------------------------------------------------------------------------

    def lose(self, *keys: tuple[str, str]) -> None:
        """As if it had never been there: the server was restored to before it."""
        for key in keys:
            del self.ehr.state.versions[key]

    def turn_back(self, key: tuple[str, str]) -> None:
        """To its first version."""
        del self.ehr.state.versions[key][1:]

    def delete(self, key: tuple[str, str]) -> None:
        about = [
            k
            for k, versions in self.ehr.history.items()
            if k[0] == "Provenance" and f"{key[0]}/{key[1]}" in str(versions[-1]["target"])
        ]
        for one in (*about, key):  # what is referred to cannot be deleted
            assert self.ehr.state.remove(one, self.ehr._later()) is not None

    def double(self, key: tuple[str, str]) -> str:
        """A user of the EHR copies a record, identifier and all."""
        body = {k: v for k, v in self.ehr.read(*key).items() if k not in ("id", "meta")}
        return str(self.ehr._call("POST", f"{self.ehr.url}/{key[0]}", body)["id"])

    def one_identity(self, kind: str, id: str) -> tuple[str, str]:
        """(system, value) of what the EHR holds of it, once or twice."""
        name = self.held(kind, id)[0][-1]["identifier"][0]
        return name["system"], name["value"]

    def count(self) -> int:
        return len(self.ehr.history)


@pytest.fixture
def ward(tmp_path: Path, database_url: str) -> Ward:
    return Ward(tmp_path, database_url)


REFILL_KEY = ("refill", "R-1")


def test_nothing_differs_after_a_delivery(ward: Ward) -> None:
    assert ward.compare() == {}
    assert ward.run.compared == len(HISTORY)
    assert ward.compare(fix=True) == {}
    assert ward.push() == {}


def test_what_is_missing_is_found_and_exactly_that_is_sent_again(ward: Ward) -> None:
    lost = [ward.key("refill", "R-1"), ward.key("program", "P-2"), ward.key("segment", "P-2")]
    before = {key: len(v) for key, v in ward.ehr.history.items() if key not in lost}
    ward.lose(*lost)
    assert ward.compare() == {"missing": 3}
    assert ward.push() == {}
    assert ward.compare(fix=True) == {"missing": 3}
    assert ward.push() == {"sent": 2}
    assert {key: len(v) for key, v in ward.ehr.history.items() if key in before} == before
    assert len(ward.ehr.history) == len(before) + 3
    assert ward.one("segment", "P-2")["status"] == "completed"
    assert ward.running() == ["clinic-a.P-3"]
    assert ward.compare() == {}


def test_what_was_turned_back_is_brought_up_to_date(ward: Ward) -> None:
    for kind in ("segment", "program"):
        ward.turn_back(ward.key(kind, "P-1"))
    assert len(ward.running()) == 2
    assert ward.compare(fix=True) == {"reverted": 2}
    assert ward.push() == {"sent": 1}
    assert ward.running() == ["clinic-a.P-3"]
    assert ward.compare() == {}


def test_an_edit_there_is_read_into_the_ledger(ward: Ward) -> None:
    refill = copy(ward.one(*REFILL_KEY))
    refill["contained"][0]["batch"]["lotNumber"] = "B77"
    ward.ehr.update(refill)
    assert ward.compare() == {"different": 1}
    assert len(ward.versions("clinic-a", "R-1")) == 1
    assert ward.compare(fix=True) == {"different": 1}
    assert ward.versions("clinic-a", "R-1")[-1]["drug"]["lot"] == "B77"
    ward.push()
    assert ward.compare() == {}


def test_what_was_deleted_there_is_asked_about_and_never_written_again(ward: Ward) -> None:
    ward.delete(ward.key(*REFILL_KEY))
    assert ward.compare() == {"deleted": 2}  # its Provenance too
    assert ward.compare(fix=True) == {"deleted": 2}
    ward.push()
    assert ward.held(*REFILL_KEY) == []
    assert ward.compare() == {}  # known, and with a person
    assert ward.held(*REFILL_KEY) == []


def test_a_record_that_is_there_twice_is_a_case_until_it_is_there_once(ward: Ward) -> None:
    key = ward.key(*REFILL_KEY)
    other = ward.double(key)
    number = ward.count()
    assert ward.compare() == {"duplicate": 1}
    with ward.store.read() as c:
        (case,) = drift.search_cases(c, 1, limit=9)
    assert (case.status, case.value, case.remote_ids) == ("open", "clinic-a.R-1", sorted([key[1], other]))
    assert ward.compare(fix=True) == {"duplicate": 1}
    assert ward.count() == number
    ward.delete((key[0], other))
    assert ward.compare() == {}
    with ward.store.read() as c:
        (case,) = drift.search_cases(c, 1, limit=9)
    assert (case.status, case.reason) == ("closed", "is there once now")


def test_a_delivery_that_meets_a_double_is_held_and_opens_a_case(ward: Ward) -> None:
    """412: several match. The next tries look, and find two."""
    other = ward.key("refill", "R-1")
    ward.double(other)
    with ward.store.write() as c:
        links.forget(c, ward.endpoint.id, *ward.one_identity("refill", "R-1"))
    ward.send(REFILL | {"version": 2, "needle_passes": 2})
    assert ward.push() == {"pending": 3, "parked": 1}
    with ward.store.read() as c:
        (case,) = drift.search_cases(c, 1, limit=9)
    assert (case.kind, case.value, len(case.remote_ids)) == ("duplicate", "clinic-a.R-1", 2)


def test_what_was_never_delivered_is_told_and_left_alone(ward: Ward) -> None:
    body = copy(ward.one(*REFILL_KEY))
    body["identifier"][0]["value"] = "clinic-a.R-99"
    made = ward.ehr._call(
        "POST", f"{ward.ehr.url}/{body['resourceType']}", {k: v for k, v in body.items() if k != "id"}
    )
    assert ward.compare(fix=True) == {"extra": 1}
    assert ward.found() == [("extra", "MedicationAdministration", "clinic-a.R-99")]
    assert ward.ehr.read(made["resourceType"], made["id"])["meta"]["versionId"] == "1"


def test_a_link_that_was_lost_is_found_again(ward: Ward) -> None:
    with ward.store.write() as c:
        links.forget(c, ward.endpoint.id, *ward.one_identity(*REFILL_KEY))
    assert ward.compare(fix=True) == {"unlinked": 1}
    assert ward.push() == {"sent": 1}
    assert len(ward.held(*REFILL_KEY)[0]) == 1
    assert ward.compare() == {}


def test_a_correction_that_was_marked_as_sent_and_never_was_is_found_by_what_it_tells(ward: Ward) -> None:
    ward.send(REFILL | {"version": 2, "needle_passes": 4})
    with ward.store.write() as c:
        from service.store.tables import deliveries as rows

        c.execute(rows.update().where(rows.c.status == "pending").values(status="sent"))
    assert ward.compare(fix=True) == {"missing": 1, "stale": 1}  # its Provenance; its content
    assert ward.push() == {"sent": 1}
    assert ward.compare() == {}
    assert len(ward.held(*REFILL_KEY)[0]) == 2


def test_what_is_on_its_way_is_no_difference(ward: Ward) -> None:
    ward.send(REFILL | {"version": 2, "needle_passes": 4})
    assert ward.compare() == {}


def test_a_version_number_that_was_used_again_hides_no_edit(ward: Ward) -> None:
    """Restored to version 1, then edited there: version 2 again, and not the one that was agreed on."""
    key = ward.key("segment", "P-1")
    ward.pull()
    ward.turn_back(key)
    edited = copy(ward.ehr.read(*key)) | {"note": [{"text": "seen by the night shift"}]}
    ward.ehr.update(edited)
    assert ward.ehr.read(*key)["meta"]["versionId"] == "2"
    assert ward.compare().get("different") == 1


def test_a_server_that_cannot_search_by_identifier_is_compared_all_the_same(tmp_path: Path) -> None:
    there = Hospital(tmp_path, "oracle-like")
    try:
        site = there.site
        site.send(*HISTORY)
        site.push()
        matrix = survey.matrix_of(site.store, site.ehr, site.endpoint, site.now)
        comparison = Comparison(site.store, site.ehr, site.endpoint, matrix, site.now, True)
        assert reconcile.reconcile(comparison, "test").counts == {}
        (key,) = [k for k in there.fake.state.versions if k[0] == "DocumentReference"][:1]
        del there.fake.state.versions[key]
        assert reconcile.reconcile(comparison, "test").counts == {"missing": 1}
        assert site.push() == {"sent": 1}
        assert reconcile.reconcile(comparison, "test").counts == {}
    finally:
        there.close()


# --- by and by ------------------------------------------------------------------------------------------


def test_a_run_stops_and_goes_on_where_it_was(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "BATCH", 2)
    ward.lose(ward.key(*REFILL_KEY))
    finished = None
    for _ in range(6):
        tend(ward.store, ward.ehr, ward.endpoint, ward.now)
        with ward.store.read() as c:
            finished = drift.latest(c, ward.endpoint.id, finished=True)
    assert finished is not None
    assert (finished.compared, finished.counts) == (len(HISTORY), {"missing": 1})
    tend(ward.store, ward.ehr, ward.endpoint, ward.now)
    with ward.store.read() as c:
        assert drift.latest(c, ward.endpoint.id, finished=False) is None  # not before a day has passed


def most_memory(folder: Path, records: int) -> int:
    """Bytes allocated at most while so many records are compared."""
    folder.mkdir()
    site = Site(folder, batch_size=200)
    sent = list(islice(clinic(max(2, records // 40), 8, 3), records))
    for one in {event["patient"]["value"]: event["patient"] for event in sent}.values():
        site.ehr.place({"resourceType": "Patient", "id": one["value"], "identifier": [one]})
    site.send(*sent)
    assert site.push(rounds=records)["sent"] == records
    matrix = survey.matrix_of(site.store, site.ehr, site.endpoint, site.now)
    comparison = Comparison(site.store, site.ehr, site.endpoint, matrix, site.now)
    with site.store.write() as c:
        run = drift.begin(c, site.endpoint, "test", now=site.now())
    tracemalloc.start()
    try:
        for step in comparison.batches(run, lambda number: None):
            run = step
        assert (run.compared, run.counts) == (records, {})
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_records_that_are_compared(tmp_path: Path) -> None:
    few, many = (most_memory(tmp_path / str(number), number) for number in (150, 600))
    assert many < few * 1.3


def test_an_endpoint_may_mend_by_itself_or_never_be_compared(tmp_path: Path) -> None:
    for name, options, sent in (
        ("a", {"reconcile_fix": True}, {"sent": 1}),
        ("b", {"reconcile_hours": 0}, {}),
    ):
        (tmp_path / name).mkdir()
        ward = Ward(tmp_path / name, **options)
        ward.lose(ward.key(*REFILL_KEY))
        for _ in range(3):
            tend(ward.store, ward.ehr, ward.endpoint, ward.now)
        assert ward.push() == sent


def test_a_server_that_goes_away_leaves_what_was_found(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "BATCH", 2)
    ward.lose(ward.key("programming-session", "P-3"), ward.key(*REFILL_KEY))
    calls = 0
    right = ward.ehr.search

    def search(type: str, params: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise Unreachable("down")
        return right(type, params)

    monkeypatch.setattr(ward.ehr, "search", search)
    with pytest.raises(Unreachable):
        ward.compare()
    with ward.store.read() as c:
        going = drift.latest(c, ward.endpoint.id, finished=False)
    assert going is not None and going.counts == {"missing": 1}


def test_every_kind_has_a_repair_that_deletes_nothing() -> None:
    assert {kind.repair for kind in KINDS.values()} == {"resend", "take in", "ask", "report"}


def test_an_agreed_deletion_is_no_finding_and_a_404_is_no_deletion() -> None:
    key = ("s", "v")
    agreed = Agreed("7", "1", "h")
    assert judge("Observation", key, Agreed("7", "1", "h", deleted=True), []) is None
    assert judge("Observation", key, agreed, [], gone=True).kind == "deleted"  # type: ignore[union-attr]
    assert judge("Observation", key, agreed, []).kind == "missing"  # type: ignore[union-attr]


# --- bugs that the tests above must see -------------------------------------------------------------------


def resurrects(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "judge", lambda *a, gone, **k: judge(*a, gone=False, **k))


def sends_everything_again(patch: pytest.MonkeyPatch) -> None:
    def reopen(c: Any, endpoint: Any, ids: Any, *, now: Any) -> None:
        for one in deliveries.search(c, 1, limit=100):
            for link in (links.find(c, endpoint.id, *key) for key in _keys(c)):
                links.save(c, link.__class__(**_without_hash(link)), now=now)
            right(c, endpoint, [one.id], now=now)

    right = deliveries.reopen
    patch.setattr(reconcile.deliveries, "reopen", reopen)


def _keys(c: Any) -> list[tuple[str, str]]:
    from service.store.tables import links as rows

    return [(row.system, row.value) for row in c.execute(rows.select())]


def _without_hash(link: Any) -> dict[str, Any]:
    return {name: getattr(link, name) for name in link.__dataclass_fields__} | {"content_hash": None}


def overwrites_their_edit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "KINDS", KINDS | {"different": KINDS["reverted"]})


def sees_no_duplicate(patch: pytest.MonkeyPatch) -> None:
    right = judge
    patch.setattr(
        reconcile, "judge", lambda type, key, agreed, held, **k: right(type, key, agreed, held[:1], **k)
    )


def trusts_version_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "_reused", lambda *a: set())


BUGS = {
    resurrects: test_what_was_deleted_there_is_asked_about_and_never_written_again,
    sends_everything_again: test_what_is_missing_is_found_and_exactly_that_is_sent_again,
    overwrites_their_edit: test_an_edit_there_is_read_into_the_ledger,
    sees_no_duplicate: test_a_record_that_is_there_twice_is_a_case_until_it_is_there_once,
    trusts_version_numbers: test_a_version_number_that_was_used_again_hides_no_edit,
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_caught(bug: Any, ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        BUGS[bug](ward)
    assert arrival is not None
