"""R22: nothing slips between pages, whatever a server does to them; 5,000 resources, 0 missed.

The servers here cut their pages in three ways: kept searches (HAPI), anew by an offset (most others), and
unsorted. Meanwhile users edit and delete.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mappings.fields import instant
from service.store import positions
from service.sync import pages, survey
from service.sync.ehr import Gone, Page, Refused
from service.sync.pages import ahead, changes
from service.sync.pull import pull
from site_of_tests import REFILL, Site

Json = Any
START = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = 5000
SIZE = 200


class Server:
    """Resources by id with the time of their last change; many share one, as a load writes them."""

    def __init__(self, kind: str, seed: int, number: int = NUMBER) -> None:
        self.kind = kind
        self.chance = random.Random(seed)
        self.time = START
        self.there: dict[str, datetime] = {}
        self.kept: dict[int, list[str]] = {}
        self.asked = 0
        self.expire_at: set[int] = set()
        self.between: Callable[[Server], None] = lambda server: None
        for n in range(number):
            if n % 37 == 0:
                self.time += timedelta(milliseconds=self.chance.choice([0, 1, 60_000]))
            self.there[str(n)] = self.time

    def edit(self) -> None:
        self.time += timedelta(milliseconds=self.chance.choice([0, 1, 50]))
        self.there[self.chance.choice(list(self.there))] = self.time

    def delete(self) -> None:
        del self.there[self.chance.choice(list(self.there))]

    def search(self, type: str, params: Mapping[str, str]) -> Iterator[Page]:
        if self.kind == "unsorted" and "_sort" in params:
            raise Refused("it cannot sort", 400)
        since = instant(params["_lastUpdated"].removeprefix("ge")) if "_lastUpdated" in params else START
        kept = self._found(since) if self.kind == "kept" else None
        offset = 0
        while True:
            self.asked += 1
            if self.asked in self.expire_at and offset:
                raise Gone("the search has expired", 410)
            found = kept if kept is not None else self._found(since)
            page = [self._resource(id) for id in found[offset : offset + SIZE] if id in self.there]
            offset += SIZE
            more = f"http://ehr.invalid/fhir?{'_getpages=1&' if self.kind == 'kept' else ''}_offset={offset}"
            yield Page(page, self._stamp(self.time), more if offset < len(found) else None)
            if offset >= len(found):
                return
            self.between(self)

    def _found(self, since: datetime) -> list[str]:
        found = [id for id, at in self.there.items() if at >= since]
        return sorted(found, key=lambda id: (self.there[id], int(id))) if self.kind != "unsorted" else found

    def _resource(self, id: str) -> Json:
        return {"resourceType": "Basic", "id": id, "meta": {"lastUpdated": self._stamp(self.there[id])}}

    def _stamp(self, at: datetime) -> str:
        return at.isoformat(timespec="milliseconds")


def missed(server: Server, rounds: int = 3) -> set[str]:
    """What is there in the end and was never seen so, after some polls as `pull` does them."""
    seen: set[tuple[str, str]] = set()
    position: str | None = None
    for _ in range(rounds):
        since = pages.before(position, 300) if position is not None else None
        begun = None
        for window in changes(server, "Basic", since):  # type: ignore[arg-type]  # of the port only `search` is used
            begun = begun or window.begun
            seen |= {(r["id"], r["meta"]["lastUpdated"]) for r in window.page.resources}
        position = begun
        server.between = lambda _: None
    return {id for id, at in server.there.items() if (id, server._stamp(at)) not in seen}


def restless(server: Server) -> None:
    for _ in range(server.chance.randrange(4)):
        server.edit()
    for _ in range(server.chance.randrange(3)):
        server.delete()
    # Long after the window that is being read: the overlap of the next poll alone does not reach back so far.
    server.time += timedelta(seconds=40)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["kept", "cut"])
def test_nothing_is_missed_however_pages_move(kind: str, seed: int) -> None:
    server = Server(kind, seed)
    server.between = restless
    assert missed(server) == set()


def test_a_server_that_cannot_sort_is_read_all_the_same() -> None:
    assert missed(Server("unsorted", 1)) == set()


@pytest.mark.parametrize("kind", ["kept", "cut"])
def test_more_resources_of_one_instant_than_a_page_holds(kind: str) -> None:
    server = Server(kind, 1, 0)
    server.there = {str(n): START for n in range(3 * SIZE)} | {"9999": START + timedelta(seconds=1)}
    assert missed(server) == set()


def test_a_page_that_is_no_longer_kept_begins_the_search_again_where_it_was() -> None:
    server = Server("kept", 1)
    server.expire_at = {4, 9}
    server.between = restless
    assert missed(server) == set()
    assert server.asked < 3 * NUMBER / SIZE  # not from the start each time


def test_a_search_that_is_never_kept_ends_with_the_failure() -> None:
    server = Server("kept", 1)
    server.expire_at = set(range(2, 100))
    with pytest.raises(Gone):
        missed(server)


def test_reading_ahead_gives_every_item_in_order_and_its_failure() -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise Gone("no more", 410)

    found = []
    with pytest.raises(Gone):
        for item in ahead(failing()):
            found.append(item)
    assert found == list(range(5))


# --- seeded bugs --------------------------------------------------------------------------------------------


def offsets_are_trusted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pages, "KEPT", "")


def after_and_not_from(patch: pytest.MonkeyPatch) -> None:
    """Of one instant some are on the next page: `gt` skips them."""
    right = pages._search

    def wrong(ehr: Any, type: str, since: str | None, *, sort: bool) -> Any:
        later = (instant(since) + timedelta(milliseconds=1)).isoformat() if since else None
        return right(ehr, type, later, sort=sort)

    patch.setattr(pages, "_search", wrong)


def the_last_time_seen_is_the_position(patch: pytest.MonkeyPatch) -> None:
    """Begun is what was read last: what changed while the pages were read is behind it."""
    right = pages._once

    def wrong(*arguments: Any) -> Iterator[Any]:
        for window in right(*arguments):
            yield pages.Window(window.page, "2030-01-01T00:00:00.000+00:00", window.reached)

    patch.setattr(pages, "_once", wrong)


@pytest.mark.parametrize("bug", [offsets_are_trusted, after_and_not_from, the_last_time_seen_is_the_position])
def test_a_seeded_bug_is_seen(monkeypatch: pytest.MonkeyPatch, bug: Any) -> None:
    bug(monkeypatch)
    found = set()
    for seed in range(5):
        for kind in ("cut", "kept"):
            server = Server(kind, seed)
            server.between = restless
            found |= missed(server)
    assert found


# --- with a ledger ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Site:
    made = Site(tmp_path, database_url)
    made.register()
    return made


def entered(site: Site, number: int) -> list[str]:
    """Refills that the EHR's users enter, each about a pump that nobody else names."""
    site.send(REFILL | {"id": "R-0"})
    site.push()
    model = site.one("refill", "R-0")
    names = []
    for n in range(number):
        made = {k: v for k, v in model.items() if k not in ("id", "meta")}
        made["identifier"] = [{"system": "http://ehr.invalid/administration", "value": f"A-{n}"}]
        site.ehr.create(made, f"identifier=http://ehr.invalid/administration|A-{n}")
        names.append(f"A-{n}")
    return names


def check_all_once(site: Site, names: list[str]) -> None:
    assert [len(site.versions("hapi", name)) for name in names] == [1] * len(names)


@pytest.mark.parametrize("at", range(1, 5))
def test_a_kill_between_pages_neither_loses_nor_doubles(
    site: Site, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PER_PAGE", "4")
    names = entered(site, 20)
    right, calls = positions.save, [0]

    def dying(*arguments: Any, **more: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise Killed
        right(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(positions, "save", dying)
        with pytest.raises(Killed):
            site.pull()
    site.restart()
    site.pull()
    check_all_once(site, names)


def test_a_long_reading_that_failed_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PER_PAGE", "4")
    names = entered(site, 40)
    right = site.ehr._get
    left = [9]

    def failing(url: str, *more: Any) -> Any:
        if "MedicationAdministration" in url or "_getpages" in url:
            left[0] -= 1
            if left[0] == 0:
                raise Refused("no more today", 400)
        return right(url, *more)

    with monkeypatch.context() as patch:
        patch.setattr(site.ehr, "_get", failing)
        with pytest.raises(Refused):
            site.pull()
    with site.store.read() as c:
        assert "MedicationAdministration" in positions.of(c, site.endpoint.id)
    site.pull()
    check_all_once(site, names)


def test_a_server_that_was_set_up_anew_is_read_from_the_start(site: Site) -> None:
    """Its clock stands before what was read, and its versions count from 1 again."""
    names = entered(site, 3)
    site.pull()
    with site.store.write() as c:
        for what in ("MedicationAdministration", "Device"):
            positions.save(c, site.endpoint, what, "2031-01-01T00:00:00.000+00:00", now=site.now())
    site.pull()
    check_all_once(site, names)
    with site.store.read() as c:
        assert positions.of(c, site.endpoint.id)["MedicationAdministration"] < "2027"


def test_a_type_that_cannot_be_searched_by_time_is_read_by_patient(site: Site, tmp_path: Path) -> None:
    names = entered(site, 3)
    survey.refresh(site.store, site.ehr, site.endpoint, site.now)
    with site.store.write() as c:
        c.exec_driver_sql("UPDATE capabilities SET matrix = replace(matrix, '\"_lastUpdated\",', '')")
    assert pull(site.store, site.ehr, site.endpoint, site.now, thorough=False).counts == {}
    assert site.pull()["accepted"] == 3
    check_all_once(site, names)
    assert site.pull() == {}


def test_what_a_server_withholds_is_not_gone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of mode `outcome` says that some were left out."""
    entered(site, 2)
    site.pull()
    right = site.ehr._call

    def withholding(method: str, url: str, *more: Any, **named: Any) -> Any:
        found = right(method, url, *more, **named)
        if found.get("type") == "searchset":
            issue = {"severity": "warning", "code": "suppressed"}
            outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
            found = {**found, "entry": [{"resource": outcome, "search": {"mode": "outcome"}}]}
        return found

    monkeypatch.setattr(site.ehr, "_call", withholding)
    assert site.pull() == {}
