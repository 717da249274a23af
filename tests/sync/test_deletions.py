"""What was deleted in an EHR: seen, asked of a person, never written again by itself, never by an absence."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes import lose_answer
from service.store import audit, conflicts, hints
from service.store.conflicts import Conflict
from service.sync import agreement, pull, readback
from service.sync.ehr import Missing
from service.sync.resolve import decide
from service.sync.worker import push_due
from site_of_tests import REFILL, Site, delivered

Json = Any


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Site:
    return delivered(tmp_path, database_url)


def delete(site: Site, kind: str, id: str, type: str | None = None) -> str:
    """A user of the EHR deletes it; its id there."""
    (history,) = site.held(kind, id, type)
    found = history[-1]
    site.ehr.remove(found["resourceType"], found["id"])
    return str(found["id"])


def asked(site: Site) -> list[Conflict]:
    with site.store.read() as c:
        return conflicts.search(c, 1, limit=100, status="open")


def say(site: Site, side: str) -> None:
    (found,) = asked(site)
    for person in ("ann", "bob"):
        decide(site.store, 1, found.id, {f["path"]: side for f in found.fields}, person, site.now())


def newest(site: Site, id: str) -> Json:
    return site.versions("clinic-a", id)[-1]


def check_a_deletion_is_asked(site: Site) -> None:
    delete(site, "refill", "R-1")
    assert site.pull() == {"deleted": 1}
    (found,) = asked(site)
    assert (found.kind, found.event_id, found.two_persons) == ("deleted", "R-1", True)
    assert "status" not in newest(site, "R-1")
    assert site.pull() == {}
    site.send(REFILL | {"version": 2, "note": "left side"})
    site.push()
    assert site.held("refill", "R-1") == []
    assert len(asked(site)) == 1


def test_a_deletion_is_asked_and_nothing_is_written_again(site: Site) -> None:
    check_a_deletion_is_asked(site)


def test_a_deletion_that_a_delivery_meets_first_is_the_same(site: Site) -> None:
    delete(site, "refill", "R-1")
    site.send(REFILL | {"version": 2, "note": "left side"})
    assert site.push() == {"pending": 2, "parked": 1} or asked(site)
    assert [one.kind for one in asked(site)] == ["deleted"]
    assert site.held("refill", "R-1") == []


def test_theirs_withdraws_the_record(site: Site) -> None:
    delete(site, "refill", "R-1")
    site.pull()
    say(site, "theirs")
    assert newest(site, "R-1")["status"] == "entered-in-error"
    site.push()
    assert {d.status for d in site.deliveries()} == {"sent"}
    assert site.held("refill", "R-1") == []


def test_ours_writes_it_anew_once(site: Site) -> None:
    old = delete(site, "refill", "R-1")
    site.pull()
    say(site, "ours")
    site.push()
    (history,) = site.held("refill", "R-1")
    assert len(history) == 1
    assert history[0]["id"] != old
    assert set(site.pull()) <= {"echo"}
    assert asked(site) == []


def test_a_deleted_segment_is_asked_and_only_its_record_can_change_it(site: Site) -> None:
    delete(site, "segment", "P-3")
    site.pull()
    (found,) = asked(site)
    assert (found.kind, found.event_id) == ("rewritten", "P-3")
    say(site, "ours")
    site.push()
    assert site.one("segment", "P-3")["status"] == "in-progress"


def test_what_both_withdrew_needs_nobody(site: Site) -> None:
    site.send(REFILL | {"version": 2, "status": "entered-in-error"})
    site.push()
    delete(site, "refill", "R-1")
    assert site.pull()["deleted"] == 1
    assert asked(site) == []


def test_what_is_brought_back_ends_the_conflict(site: Site) -> None:
    stored = site.one("refill", "R-1")
    delete(site, "refill", "R-1")
    site.pull()
    site.ehr.place(stored)
    site.pull()
    assert asked(site) == []


def many(site: Site, number: int) -> list[Json]:
    refills = [REFILL | {"id": f"R-{n}"} for n in range(10, 10 + number)]
    site.send(*refills)
    site.push(rounds=number * 2)
    site.pull()
    return refills


def check_an_emptied_server_is_no_deletion(site: Site) -> None:
    for refill in many(site, 30):
        delete(site, "refill", refill["id"])
    assert site.pull() == {"deletions not believed": 30}
    assert asked(site) == []
    with site.store.read() as c:
        assert [row.action for row in audit.of(c, 1, "endpoint/hapi")][-1] == "emptied"


def test_a_server_that_was_emptied_deletes_nothing_here(site: Site) -> None:
    check_an_emptied_server_is_no_deletion(site)
    found = pull.pull(site.store, site.ehr, site.endpoint, site.now, accept_deletions=True)
    assert found.counts == {"deleted": 30}  # a person has said that it is so
    assert len(asked(site)) == 30


def test_a_server_that_shows_nothing_deletes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Withheld, restored from an old state, a broken index: an empty answer is no statement."""
    monkeypatch.setattr(site.ehr, "search", lambda type, params: iter(()))
    assert site.pull() == {}
    assert asked(site) == []


@pytest.mark.parametrize(
    ("gone", "known", "wanted"), [(20, 20, False), (21, 104, True), (21, 105, False), (0, 0, False)]
)
def test_how_much_at_once_is_not_believed(gone: int, known: int, wanted: bool) -> None:
    assert pull.is_emptied(gone, known) is wanted


def cached(site: Site, monkeypatch: pytest.MonkeyPatch, id: str, minutes: int) -> None:
    """For so long every answer about one resource comes from a cache that does not know it yet."""
    until, right = site.time + timedelta(minutes=minutes), site.ehr.read

    def read(type: str, asked: str) -> Json:
        if asked == id and site.time < until:
            raise Missing("HTTP 404", 404)
        return right(type, asked)

    monkeypatch.setattr(site.ehr, "read", read)


def check_an_old_cache_is_no_deletion(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(site, monkeypatch, site.one("refill", "R-1")["id"], 1)
    site.send(REFILL | {"version": 2, "note": "left side"})
    site.ehr.after.append(lose_answer)
    for _ in range(2):  # the answer is lost; what is read back does not know it
        assert push_due(site.store, site.endpoint, site.ehr, site.now) == {"pending": 1}
        site.time += timedelta(seconds=5)
    assert asked(site) == []
    site.time += timedelta(minutes=1)
    assert site.push() == {"sent": 1}
    assert asked(site) == []
    assert site.one("refill", "R-1")["note"][0]["text"] == "left side"


def test_what_a_cache_does_not_know_yet_is_not_deleted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    check_an_old_cache_is_no_deletion(site, monkeypatch)


def hinted(site: Site, id: str) -> None:
    """The EHR says that something is to be read."""
    with site.store.write() as c:
        hints.add(c, site.endpoint, [("MedicationAdministration", id)], now=site.now())
    assert pull.read_waiting(site.store, site.ehr, site.endpoint, site.now)


def test_a_notification_of_what_a_cache_does_not_know_yet_deletes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = site.one("refill", "R-1")["id"]
    cached(site, monkeypatch, id, 30)
    hinted(site, id)
    assert asked(site) == []
    site.time += timedelta(minutes=6)  # longer ago than any cache: the server does not keep what is deleted
    hinted(site, id)
    assert [one.kind for one in asked(site)] == ["deleted"]


def test_a_server_without_tombstones_deletes_what_is_missed_for_long(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = site.one("refill", "R-1")["id"]
    site.time += timedelta(minutes=6)
    cached(site, monkeypatch, id, 60 * 24)
    site.send(REFILL | {"version": 2, "note": "left side"})
    site.ehr.after.append(lose_answer)
    site.push()
    assert [one.kind for one in asked(site)] == ["deleted"]


# --- seeded bugs --------------------------------------------------------------------------------------------


def withdrawn_at_once(patch: pytest.MonkeyPatch) -> None:
    right = agreement.ask_deleted

    def wrong(c: Any, endpoint: Any, name: Any, link: Any, now: Any) -> str:
        event = agreement.events.find(c, 1, *name)[-1].event
        gone = {**event, "status": "entered-in-error", "version": event.get("version", 1) + 1}
        agreement.correct(c, endpoint, gone, now, "sync")
        return right(c, endpoint, name, link, now)

    patch.setattr(agreement, "ask_deleted", wrong)


def link_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Without the tombstone the next delivery makes it anew."""

    def wrong(c: Any, endpoint: Any, type: str, id: str, now: Any) -> str:
        links = pull.links
        link = links.find_remote(c, endpoint.id, type, id)
        if link is not None:
            links.forget(c, endpoint.id, link.system, link.value)
        return "deleted"

    patch.setattr(pull, "take_deletion", wrong)


def everything_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pull, "is_emptied", lambda gone, known: False)


def test_a_404_that_is_believed_at_once_is_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "is_past_caches", lambda link, now: True)
    with pytest.raises(AssertionError):
        check_an_old_cache_is_no_deletion(site, monkeypatch)


@pytest.mark.parametrize(
    ("bug", "check"),
    [
        (withdrawn_at_once, check_a_deletion_is_asked),
        (link_forgotten, check_a_deletion_is_asked),
        (everything_believed, check_an_emptied_server_is_no_deletion),
    ],
)
def test_a_seeded_bug_is_seen(site: Site, monkeypatch: pytest.MonkeyPatch, bug: Any, check: Any) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, ValueError)):
        check(site)


def test_the_fake_ehr_says_that_it_is_gone(site: Site) -> None:
    id = delete(site, "refill", "R-1")
    with pytest.raises(Missing):
        site.ehr.read("MedicationAdministration", id)
