"""Notifications of an EHR: answered at once to those who know the secret, read as hints, never believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from mappings.paths import copy
from service import hooks
from service.app import create_app
from service.settings import Settings
from service.store import hints
from service.sync import notification
from service.sync.notification import Notification, heard
from service.sync.pull import read_waiting
from service.sync.subscribe import keep_secret, subscription
from site_of_tests import HISTORY, Site

Json = Any
SECRET = "correct horse"


class Ward:
    """A site whose EHR knows the secret of its hook."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, f"sqlite:///{folder}/itb.db")
        self.site.register()
        self.site.send(*HISTORY)
        self.site.push()
        self.site.pull()
        keep_secret(self.site.store, self.site.endpoint, hooks.SECRET, hooks.hashed(SECRET))
        app = create_app(Settings(database_url=self.site.url, min_free_bytes=0))
        self.client: FlaskClient = app.test_client()

    def call(self, method: str, path: str, secret: str | None = SECRET, **options: Any) -> int:
        headers = {hooks.HEADER: secret} if secret is not None else {}
        return self.client.open(path, method=method, headers=headers, **options).status_code

    def waiting(self) -> list[tuple[str | None, str | None]]:
        with self.site.store.write() as c:
            return hints.take(c, self.site.endpoint.id)

    def read(self) -> bool:
        return read_waiting(self.site.store, self.site.ehr, self.site.endpoint, self.site.now)

    def edit(self, lot: str) -> str:
        resource = copy(self.site.one("refill", "R-1"))
        resource["contained"][0]["batch"]["lotNumber"] = lot
        return f"/hooks/hapi/MedicationAdministration/{self.site.ehr.update(resource)['id']}"

    def lots(self) -> list[str]:
        return [event["drug"]["lot"] for event in self.site.versions("clinic-a", "R-1")]


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_what_is_named_is_read_as_it_is_now(ward: Ward) -> None:
    path = ward.edit("B77")
    assert ward.call("PUT", path, json={"resourceType": "MedicationAdministration", "status": "a lie"}) == 200
    assert ward.read()
    assert ward.lots() == ["A1234", "B77"]
    assert ward.waiting() == []


def test_late_doubled_and_swapped_notifications_change_nothing(ward: Ward) -> None:
    path = ward.edit("B1")
    ward.edit("B2")
    for _ in range(3):
        ward.call("PUT", path)
    ward.read()
    ward.call("PUT", path)
    ward.read()
    assert ward.lots() == ["A1234", "B2"]


def test_what_is_named_and_gone_is_a_deletion(ward: Ward) -> None:
    refill = ward.site.one("refill", "R-1")
    ward.site.ehr.remove("MedicationAdministration", refill["id"])
    assert ward.call("DELETE", f"/hooks/hapi/MedicationAdministration/{refill['id']}") == 200
    ward.read()
    ward.site.pull()
    assert [d.kind for d in _open(ward)] == ["deleted"]


def _open(ward: Ward) -> list[Any]:
    from service.store import conflicts

    with ward.site.store.read() as c:
        return conflicts.search(c, 1, limit=10, status="open")


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + " "])
def test_nobody_else_is_heard(ward: Ward, secret: str | None) -> None:
    for method, path in (
        ("PUT", ward.edit("B77")),
        ("POST", "/hooks/hapi"),
        ("PUT", "/hooks/nobody/Device/1"),
    ):
        assert ward.call(method, path, secret) == 401
    assert ward.waiting() == []


def test_an_endpoint_without_a_secret_hears_nobody(ward: Ward) -> None:
    keep_secret(ward.site.store, ward.site.endpoint, hooks.SECRET, "")
    assert ward.call("POST", "/hooks/hapi", "") == 401


def test_the_secret_is_not_shown(ward: Ward) -> None:
    from service.api.endpoints import shown

    assert hooks.hashed(SECRET) not in str(shown(ward.site.endpoint, None))


def test_an_empty_one_has_everything_read(ward: Ward) -> None:
    assert ward.call("POST", "/hooks/hapi/") == 200
    assert ward.read() is False  # only a poll finds out


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b'{"resourceType": "Bundle", "entry": [{}]}', b"\xff"]
)
def test_what_cannot_be_understood_is_a_hint_all_the_same(ward: Ward, body: bytes) -> None:
    assert ward.call("POST", "/hooks/hapi", data=body) == 200
    assert ward.waiting() == [(None, None)]


def test_what_we_do_not_read_is_no_hint(ward: Ward) -> None:
    assert ward.call("PUT", "/hooks/hapi/Patient/1") == 200
    assert ward.waiting() == []


def test_a_flood_becomes_one_poll(ward: Ward) -> None:
    with ward.site.store.write() as c:
        for start in range(0, 3 * hints.MOST, 100):
            about: list[Any] = [("Device", str(start + n)) for n in range(100)]
            hints.add(c, ward.site.endpoint, about, now=ward.site.now())
    waiting = ward.waiting()
    assert len(waiting) == hints.MOST + 1
    assert (None, None) in waiting


# --- the R5 backport --------------------------------------------------------------------------------------


def told(kind: str, events: int, *about: tuple[int, str]) -> Json:
    """A notification as the backport guide has it: Parameters in a Bundle of type history."""
    parameter: list[Json] = [
        {"name": "subscription", "valueReference": {"reference": "http://ehr.invalid/fhir/Subscription/s1"}},
        {"name": "topic", "valueCanonical": "http://ehr.invalid/topic"},
        {"name": "status", "valueCode": "active"},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(events)},
    ]
    for number, focus in about:
        part: list[Json] = [{"name": "event-number", "valueString": str(number)}]
        if focus:
            part.append({"name": "focus", "valueReference": {"reference": focus}})
        parameter.append({"name": "notification-event", "part": part})
    status = {"resourceType": "Parameters", "id": "x", "parameter": parameter}
    entry = [{"resource": status, "request": {"method": "GET", "url": "Subscription/s1/$status"}}]
    return {"resourceType": "Bundle", "type": "history", "entry": entry}


def subscribed(ward: Ward) -> None:
    with ward.site.store.write() as c:
        hints.subscribe(c, ward.site.endpoint, "s1", "Device?", now=ward.site.now())


def test_a_notification_names_what_to_read_and_a_gap_has_everything_read(ward: Ward) -> None:
    subscribed(ward)
    device = ("Device", "7")

    def post(body: Json) -> list[Any]:
        assert ward.call("POST", "/hooks/hapi", json=body) == 200
        return ward.waiting()

    assert post(told("handshake", 0)) == []
    assert post(told("event-notification", 1, (1, "Device/7"))) == [device]
    assert post(told("heartbeat", 1)) == []
    assert post(told("event-notification", 1, (1, "Device/7"))) == [device]  # again
    assert post(told("event-notification", 3, (3, "Device/7/_history/2"))) == [device, (None, None)]
    assert post(told("event-notification", 2, (2, "Device/7"))) == [device]  # late
    assert post(told("heartbeat", 5)) == [(None, None)]  # two never came
    assert post(told("event-notification", 6, (6, ""))) == [(None, None)]  # it does not say what
    assert post(told("event-notification", 8, (7, "Patient/1"), (8, "Device/7"))) == [device]


def test_r4b_says_it_in_a_subscription_status() -> None:
    status = {
        "resourceType": "SubscriptionStatus",
        "type": "event-notification",
        "subscription": {"reference": "Subscription/s1"},
        "eventsSinceSubscriptionStart": "2",
        "notificationEvent": [{"eventNumber": "2", "focus": {"reference": "Device/7"}}],
    }
    found = notification.read({"resourceType": "Bundle", "entry": [{"resource": status}]})
    assert found == Notification("event-notification", "s1", 2, (2,), (("Device", "7"),))


@pytest.mark.parametrize(
    ("last", "events", "numbers", "wanted"),
    [
        (None, 1, (1,), (1, False)),
        (None, 0, (), (None, False)),
        (4, 5, (5,), (5, False)),
        (4, 6, (6,), (6, True)),
        (4, 6, (5, 6), (6, False)),
        (4, 3, (3,), (4, False)),
        (4, 7, (), (7, True)),
    ],
)
def test_a_number_that_never_came_is_noticed(last: Any, events: int, numbers: Any, wanted: Any) -> None:
    assert heard(last, Notification("event-notification", "s1", events, numbers, ())) == wanted


def test_a_subscription_asks_for_every_change_of_a_type() -> None:
    made = subscription("Device", "http://itb.invalid/hooks/hapi", f"{hooks.HEADER}: {SECRET}")
    assert (made["criteria"], made["status"], made["channel"]["type"]) == (
        "Device?",
        "requested",
        "rest-hook",
    )
    assert made["channel"]["header"] == ["X-Itb-Hook: correct horse"]
