"""A page is taken in at once, and gives what its resources one by one give: the same rows, hash for hash."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from mappings.paths import copy
from service import intake
from service.chain import Damaged
from service.store import endpoints, events
from service.sync import arrival
from service.sync.reading import Reader
from site_of_tests import DEVICE, PATIENT, REFILL, START, Site

Json = Any
OTHER = PATIENT | {"value": "MRN002"}
COLUMNS = "seq, source, event_id, version, type, patient_value, pump, content_hash, origin"
ASKED = {
    "ledger": f"SELECT {COLUMNS} FROM events ORDER BY seq",
    "audit": "SELECT actor, action, subject, detail FROM audit ORDER BY id",
    "links": "SELECT system, value, resource_type, remote_id, version_id, content_hash, event_seq, told "
    "FROM links ORDER BY system, value",
    "seen": "SELECT remote_id, version_id, content_hash, outcome, event_seq FROM remote_versions ORDER BY id",
    "conflicts": "SELECT kind, source, event_id, status FROM conflicts ORDER BY id",
    "deliveries": "SELECT endpoint_id, event_seq, lane, status FROM deliveries ORDER BY id",
}


def site_of(folder: Path, name: str) -> Site:
    """Two patients; a device, a refill, a program of ours in the EHR; a second EHR that gets everything."""
    (folder / name).mkdir()
    made = Site(folder / name)
    made.register()
    made.register("MRN002")
    made.send(DEVICE, REFILL, START)
    made.push()
    with made.store.write() as c:
        endpoints.add(c, 1, "second", "http://second.invalid", {}, now=made.now())
    return made


def page(site: Site, seed: int) -> list[Json]:
    """Refills of the EHR's users in any order: new, twice, edited meanwhile, unreadable, of another patient,
    under a name of ours; and what it holds of ours, as it was written or edited."""
    chance = random.Random(seed)
    ours = copy(site.one("refill", "R-1"))
    edited = copy(ours)
    edited["note"] = [{"text": "edited there"}]
    made = [site.ehr.update(edited)] if chance.random() < 0.5 else [ours]
    made.append(site.one("programming-session", "P-1"))
    mine, other = ours["subject"]["reference"], ""
    for (type, id), versions in site.ehr.history.items():
        if type == "Patient" and versions[-1]["identifier"][0]["value"] == "MRN002":
            other = f"Patient/{id}"
    for n in range(24):
        pump = chance.choice(["NGP1", "NGP2", "NGP3"])
        one = {k: v for k, v in copy(ours).items() if k not in ("id", "meta")}
        one["identifier"] = [{"system": "http://ehr.invalid/administration", "value": f"A-{n % 20}"}]
        one["device"] = [{"type": "Device", "identifier": ours["device"][0]["identifier"] | {"value": pump}}]
        one["subject"] = {"reference": chance.choice([mine, mine, mine, other])}
        one["note"] = [{"text": f"number {n}"}]
        if chance.random() < 0.1:
            one["modifierExtension"] = [{"url": "http://other.invalid/not", "valueBoolean": True}]
        if chance.random() < 0.1:
            one["dosage"]["dose"] |= {"value": 35}  # more than the reservoir of NGP1 holds
            one["extension"][0]["extension"][0]["valueQuantity"] |= {"value": 35}
        if chance.random() < 0.1:
            one["identifier"] = [{"system": ours["identifier"][0]["system"], "value": f"clinic-a.R-{n}"}]
        made.append(site.ehr.place(one | {"id": f"m{n}"}))
        if chance.random() < 0.15:
            made.append(site.ehr.update(made[-1] | {"note": [{"text": f"edit of {n}"}]}))
    chance.shuffle(made)
    return made


def rows(site: Site) -> dict[str, list[Any]]:
    with site.store.read() as c:
        return {name: [tuple(row) for row in c.exec_driver_sql(asked)] for name, asked in ASKED.items()}


def taken(site: Site, resources: list[Json]) -> dict[str, list[Any]]:
    reader = Reader(site.store, site.ehr, site.endpoint)
    arrival.take(site.store, site.ehr, reader, site.endpoint, resources, site.now)
    return rows(site)


@pytest.fixture
def differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The names of the tables in which a whole page and its resources one by one differ."""

    def compare(seed: int, outcomes: set[str]) -> set[str]:
        whole, single = site_of(tmp_path, f"whole-{seed}"), site_of(tmp_path, f"single-{seed}")
        at_once = taken(whole, page(whole, seed))
        with monkeypatch.context() as patch:
            parts = arrival._once_each
            patch.setattr(arrival, "_once_each", lambda a: [[one] for part in parts(a) for one in part])
            by_one = taken(single, page(single, seed))
        for site in (whole, single):
            site.store.close()
        outcomes.update(word for *_, said, _ in at_once["seen"] for word in re.split("[: ]+", said))
        return {name for name in ASKED if at_once[name] != by_one[name]}

    return compare


def test_a_page_at_once_gives_what_its_resources_one_by_one_give(differ: Any) -> None:
    outcomes: set[str] = set()
    for seed in range(6):
        assert differ(seed, outcomes) == set()
    assert {"accepted", "corrected", "echo", "refused", "P4", "R1", "modifier-extension"} <= outcomes


def test_the_patients_of_a_page_are_asked_for_at_once(tmp_path: Path) -> None:
    site = site_of(tmp_path, "patients")
    theirs = [one for one in page(site, 3) if one["id"].startswith("m")]
    assert len({one["subject"]["reference"] for one in theirs}) == 2
    site.ehr.calls.clear()
    outcomes = {row[3].partition(":")[0] for row in taken(site, theirs)["seen"] if row[0].startswith("m")}
    assert "accepted" in outcomes
    assert site.ehr.calls == ["search"]


def nobody_checks_the_neighbours(patch: pytest.MonkeyPatch) -> None:
    """Events of one page are checked against the ledger as it was before the page only."""
    patch.setattr(intake._Around, "add", lambda self, event: None)


def order_is_lost(patch: pytest.MonkeyPatch) -> None:
    right = arrival._take_unlinked
    patch.setattr(arrival, "_take_unlinked", lambda c, e, due, now: right(c, e, due[::-1], now))


@pytest.mark.parametrize("bug", [nobody_checks_the_neighbours, order_is_lost])
def test_a_seeded_bug_is_seen(differ: Any, monkeypatch: pytest.MonkeyPatch, bug: Any) -> None:
    bug(monkeypatch)
    assert any(differ(seed, set()) for seed in range(4))


def test_a_damaged_device_record_holds_the_events_of_its_pump_only(tmp_path: Path) -> None:
    site = site_of(tmp_path, "damaged")
    with site.store.write() as c:
        c.exec_driver_sql("DROP TRIGGER events_no_update")
        c.exec_driver_sql("UPDATE events SET content = replace(content, '20', '40') WHERE type = 'device'")
        new = [intake.load(REFILL | {"id": f"N-{n}", "pump": pump}).event for n, pump in enumerate("ab")]
        new.insert(1, intake.load(REFILL | {"id": "N-9"}).event)
        done = intake.admit_many(
            c, 1, [one for one in new if one], received_at=site.now(), actor="t", endpoints=[]
        )
    assert [isinstance(one, Damaged) for one in done] == [False, True, False]
    with site.store.read() as c:
        assert set(events.versions_of(c, 1, [("clinic-a", f"N-{n}") for n in (0, 1, 9)])) == {
            ("clinic-a", "N-0"),
            ("clinic-a", "N-1"),
        }
