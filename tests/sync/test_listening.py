"""Subscriptions are kept going, and what they missed is read: by the server's list of it, else by a poll."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mappings.exact_json import dumps
from mappings.paths import copy
from service.doctor import checks
from service.fake_ehr.personality import capability_statement
from service.settings import Settings
from service.store import hints
from service.store.hints import Subscription
from service.sync import listening
from service.sync.pull import read_waiting
from service.sync.subscribe import subscribe
from service.sync.upkeep import tend
from site_of_tests import HISTORY, Site

Json = Any
TYPE = "MedicationAdministration"
HEADER = "X-Itb-Hook: secret"
EVERYTHING = [(None, None)]


class Ward:
    """A site that is subscribed to refills; its server answers `$status` and `$events`, or some, or none."""

    def __init__(self, folder: Path, *operations: str) -> None:
        self.site = Site(folder, reconcile_hours=0)
        ehr = self.site.ehr
        ehr.state.personality = replace(ehr.state.personality, subscription_operations=bool(operations))
        said = capability_statement(ehr.state.personality, ehr.url, "2026-01-01")
        for one in said["rest"][0]["resource"]:
            if "operation" in one:
                one["operation"] = [o for o in one["operation"] if o["name"] in operations]
        statement = folder / "statement.json"
        statement.write_bytes(dumps(said))
        ehr.statement = statement
        self.site.register()
        self.site.send(*HISTORY)
        self.site.push()
        self.site.pull()
        ((_, self.id),) = subscribe(
            self.site.store, ehr, self.site.endpoint, [TYPE], "http://itb.invalid/h", HEADER, self.site.now()
        )
        self.set(status="active")

    def set(self, **changes: Any) -> None:
        """What the server makes of its Subscription."""
        found = copy(self.site.ehr.read("Subscription", self.id))
        self.site.ehr.update({key: value for key, value in (found | changes).items() if value is not None})

    def edit(self, lot: str) -> str:
        resource = copy(self.site.one("refill", "R-1"))
        resource["contained"][0]["batch"]["lotNumber"] = lot
        return str(self.site.ehr.update(resource)["id"])

    def tend(self, after: timedelta = timedelta(minutes=6)) -> list[tuple[str | None, str | None]]:
        """A step of the upkeep some time later; what is then waiting to be read."""
        self.site.time += after
        tend(self.site.store, self.site.ehr, self.site.endpoint, self.site.now)
        with self.site.store.write() as c:
            return hints.take(c, self.site.endpoint.id)

    def heard(self, last: int | None) -> None:
        with self.site.store.write() as c:
            hints.heard(c, self.site.endpoint.id, self.id, last, now=self.site.now())

    def one(self) -> Subscription:
        with self.site.store.read() as c:
            (found,) = hints.subscribed(c, self.site.endpoint.id)
        return found

    def there(self) -> Json:
        return self.site.ehr.read("Subscription", self.id)


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def telling(tmp_path: Path) -> Ward:
    return Ward(tmp_path, "status", "events")


def test_an_active_one_is_left_alone(ward: Ward) -> None:
    before = ward.there()["meta"]["versionId"]
    assert ward.tend() == []
    assert ward.one().status == "active"
    assert ward.there()["meta"]["versionId"] == before


@pytest.mark.parametrize("status", ["error", "off"])
def test_one_that_ended_is_asked_for_again_and_everything_is_read(ward: Ward, status: str) -> None:
    ward.set(status=status, error="could not deliver")
    assert ward.tend() == EVERYTHING
    found = ward.there()
    assert (found["status"], found["channel"]["header"], "error" in found) == ("requested", [HEADER], False)
    assert ward.one().status == "requested"
    ward.set(status="active")
    assert ward.tend() == []


def test_without_its_secret_it_is_not_written_and_a_person_is_told(ward: Ward) -> None:
    """A server that hides the header would keep a Subscription whose notifications nobody here hears."""
    channel = {k: v for k, v in ward.there()["channel"].items() if k != "header"}
    ward.set(status="error", channel=channel)
    assert ward.tend() == EVERYTHING
    assert ward.there()["status"] == "error"
    assert ward.one().status == listening.KEYLESS


def test_one_that_was_removed_is_told_and_has_everything_read_once(ward: Ward) -> None:
    ward.site.ehr.remove("Subscription", ward.id)
    assert ward.tend() == EVERYTHING
    assert ward.tend() == []
    assert ward.one().status == listening.GONE


def test_it_is_looked_at_every_five_minutes(ward: Ward) -> None:
    ward.tend()
    ward.set(status="error")
    assert ward.tend(timedelta(minutes=4)) == []
    assert ward.tend(timedelta(minutes=2)) == EVERYTHING


def test_heartbeats_that_stay_away_have_everything_read_and_it_asked_for_again(ward: Ward) -> None:
    heartbeat = {"url": listening.HEARTBEAT, "valueUnsignedInt": 600}
    ward.set(channel=ward.there()["channel"] | {"extension": [heartbeat]})
    ward.heard(None)
    assert ward.tend(timedelta(minutes=19)) == []
    assert ward.tend(timedelta(minutes=6)) == EVERYTHING
    assert ward.there()["status"] == "requested"


def test_what_was_never_told_is_fetched_and_read(telling: Ward) -> None:
    telling.edit("B1")
    assert telling.tend()  # the first time: it counted before it was looked at
    id = telling.edit("B2")
    telling.edit("B3")
    assert telling.tend() == [(TYPE, id)]
    assert telling.one().last_event == 3
    assert telling.tend() == []


def test_what_was_told_is_not_fetched(telling: Ward) -> None:
    telling.edit("B1")
    telling.heard(1)
    assert telling.tend() == []


def test_fetched_events_are_read_as_they_are_now(telling: Ward) -> None:
    telling.heard(0)
    telling.edit("B1")
    telling.site.time += timedelta(minutes=6)
    tend(telling.site.store, telling.site.ehr, telling.site.endpoint, telling.site.now)
    assert read_waiting(telling.site.store, telling.site.ehr, telling.site.endpoint, telling.site.now)
    assert [e["drug"]["lot"] for e in telling.site.versions("clinic-a", "R-1")] == ["A1234", "B1"]


def test_a_server_that_only_counts_has_everything_read(tmp_path: Path) -> None:
    ward = Ward(tmp_path, "status")
    ward.heard(0)
    ward.edit("B1")
    assert ward.tend() == EVERYTHING
    assert ward.tend() == []


def test_what_a_notification_said_meanwhile_is_not_forgotten(telling: Ward) -> None:
    telling.heard(7)
    with telling.site.store.write() as c:
        hints.asked(c, telling.site.endpoint.id, telling.id, "active", 3, now=telling.site.now())
    assert telling.one().last_event == 7


def test_the_doctor_says_what_became_of_them(ward: Ward) -> None:
    def found() -> tuple[bool, str]:
        settings = Settings(database_url=ward.site.url)
        (one,) = [c for c in checks(settings, ward.site.now) if c.what == "Subscriptions of hapi"]
        return one.ok, one.found

    assert found()[0]
    ward.site.ehr.remove("Subscription", ward.id)
    ward.tend()
    ok, words = found()
    assert not ok
    assert "is not there any more: itb endpoints subscribe" in words


# --- seeded bugs ------------------------------------------------------------------------------------------


def test_a_seeded_bug_is_seen(telling: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap that is not looked for: what was never told is never read."""
    monkeypatch.setattr(listening.notification, "heard", lambda last, told: (told.events, False))
    telling.heard(0)
    telling.edit("B1")
    assert telling.tend() == []
