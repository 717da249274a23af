"""Merges of patient records are followed, to one record that counts or to a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mappings.paths import copy
from service.sync import patients
from service.sync.ehr import Missing
from service.sync.patients import Nobody, Unclear, names, surviving
from site_of_tests import PATIENT, REFILL, Site, delivered

Json = Any
MRN = PATIENT["system"]


def patient(id: str, value: str, *links: tuple[str, str], **more: Any) -> Json:
    made: Json = {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"system": MRN, "value": value}],
        **more,
    }
    if links:
        made["link"] = [{"other": {"reference": f"Patient/{other}"}, "type": kind} for kind, other in links]
    return made


def reader(*listed: Json) -> Any:
    known = {one["id"]: one for one in listed}

    def read(id: str) -> Json:
        if id not in known:
            raise Missing(id, 404)
        return known[id]

    return read


def test_a_merged_record_leads_to_the_one_that_counts() -> None:
    old = patient("a", "1", ("replaced-by", "b"), active=False)
    mid = patient("b", "2", ("replaced-by", "c"), ("replaces", "a"), active=False)
    new = patient("c", "3", ("replaces", "b"))
    read = reader(old, mid, new)
    assert surviving([old], read, MRN) == "c"
    assert surviving([old, new], read, MRN) == "c"
    own, merged = names(new, read)
    assert [one["value"] for one in own] == ["3"]
    assert {one["value"] for one in merged} == {"1", "2"}
    assert names(old, read)[0] == own


@pytest.mark.parametrize(
    "listed",
    [
        [patient("a", "1"), patient("b", "1")],
        [patient("a", "1"), patient("b", "1", active=False)],  # out of use, and not said for whom
        [patient("a", "1", ("replaced-by", "b"), ("replaced-by", "c"))],
        [patient("a", "1", ("replaced-by", "b")), patient("b", "2", ("replaced-by", "a"))],
        [patient("a", "1", ("replaced-by", "a"))],
        [patient("a", "1", ("replaced-by", "gone"))],
        [patient(str(n), str(n), ("replaced-by", str(n + 1))) for n in range(9)],
    ],
)
def test_what_does_not_lead_to_one_record_is_unclear(listed: list[Json]) -> None:
    with pytest.raises(Unclear):
        surviving(
            [one for one in listed if one["identifier"][0]["value"] in ("0", "1")], reader(*listed), MRN
        )


def test_nobody_is_another_case_than_several() -> None:
    with pytest.raises(Nobody):
        surviving([], reader(), MRN)


def test_a_message_names_nobody() -> None:
    with pytest.raises(Unclear) as told:
        surviving([patient("a", "MRN-77"), patient("b", "MRN-77")], reader(), MRN)
    assert "77" not in str(told.value)


# --- in the sync --------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Site:
    return delivered(tmp_path, database_url)


def merge_away(site: Site) -> Json:
    """The EHR merges the patient's record into a new one with another number; the new one is given back."""
    (old,) = [v[-1] for k, v in site.ehr.history.items() if k[0] == "Patient"]
    new = site.ehr.place(patient("kept", "MRN900", ("replaces", old["id"])))
    link = [{"other": {"reference": "Patient/kept"}, "type": "replaced-by"}]
    site.ehr.place({**old, "active": False, "link": link})
    return new


def test_deliveries_go_to_the_record_that_counts(site: Site) -> None:
    merge_away(site)
    site.send(REFILL | {"id": "R-2"})
    assert site.push() == {"sent": 1}
    assert site.one("refill", "R-2")["subject"]["reference"] == "Patient/kept"


def test_a_record_whose_patient_was_merged_there_is_the_same_record(site: Site) -> None:
    """The EHR points it to the new record: it is the same child, by another number."""
    merge_away(site)
    resource = copy(site.one("refill", "R-1"))
    resource["subject"] = {"reference": "Patient/kept"}
    resource["contained"][0]["batch"]["lotNumber"] = "B77"
    site.ehr.update(resource)
    assert site.pull() == {"corrected": 1}
    merged = site.versions("clinic-a", "R-1")[-1]
    assert (merged["drug"]["lot"], merged["patient"]) == ("B77", PATIENT)


def test_a_new_record_for_the_merged_patient_is_about_the_one_the_ledger_knows(site: Site) -> None:
    merge_away(site)
    made = copy(site.one("refill", "R-1"))
    for name in ("id", "meta", "contained_"):
        made.pop(name, None)
    made["identifier"] = [{"system": "http://ehr.invalid/administration", "value": "A-77"}]
    made["subject"] = {"reference": "Patient/kept"}
    made["device"] = [{"reference": made["device"][0]["reference"]}]
    site.ehr.create(made, "identifier=http://ehr.invalid/administration|A-77")
    assert site.pull()["accepted"] == 1
    assert site.versions("hapi", "A-77")[0]["patient"] == PATIENT


def test_a_circle_parks_the_delivery_and_says_so(site: Site) -> None:
    new = merge_away(site)
    (old,) = [v[-1] for k, v in site.ehr.history.items() if k[0] == "Patient" and k[1] != "kept"]
    link = [{"other": {"reference": f"Patient/{old['id']}"}, "type": "replaced-by"}]
    site.ehr.place({**new, "link": link})
    site.send(REFILL | {"id": "R-2"})
    assert site.push() == {"pending": 2, "parked": 1}
    assert "in a circle" in (site.deliveries()[-1].reason or "")


def follow_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(patients, "linked", lambda patient, kind: [])


@pytest.mark.parametrize("bug", [follow_nothing])
def test_a_seeded_bug_is_seen(site: Site, monkeypatch: pytest.MonkeyPatch, bug: Any) -> None:
    bug(monkeypatch)
    for test in (test_deliveries_go_to_the_record_that_counts,):
        with pytest.raises(AssertionError):
            test(site)
