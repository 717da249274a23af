"""An endpoint is changed while it is in use: a new secret, a server that has moved, another map."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from service import cli
from service.fake_ehr.personality import load as personality
from service.fake_ehr.server import FakeEhr, serving
from service.fake_ehr.wire import Request, Response, outcome
from service.intake import load, take
from service.store import capabilities, deliveries, endpoints, tables
from service.store.deliveries import Outcome
from service.store.endpoints import Endpoint
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync import moved
from service.sync.worker import Runner, sync_once
from site_of_tests import HISTORY, REFILL

Json = Any
LINE = "mllp://engine.invalid:2575"


def now() -> datetime:
    return datetime.now(UTC)


class Guarded(FakeEhr):
    """Answers those who know its secret."""

    secret = "Bearer one"

    def handle(self, request: Request) -> Any:
        if request.headers.get("authorization") != self.secret:
            return Response(401, outcome(401, "who are you?")), None
        return super().handle(request)


class Site:
    """A ledger, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/itb.db"
        self.store = Store(self.url)
        migrate(self.store)

    def itb(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli.main, ["endpoints", *arguments], env={"ITB_DATABASE_URL": self.url})

    def fine(self, *arguments: str) -> None:
        done = self.itb(*arguments)
        assert done.exit_code == 0, done.output

    def send(self, *events: Json) -> None:
        for result in take(self.store, Caller(1, "test"), [load(one) for one in events], clock=now):
            assert result.outcome in ("accepted", "corrected")

    def deliver(self) -> None:
        assert sync_once(self.store, self.endpoint, now).ok

    @property
    def endpoint(self) -> Endpoint:
        with self.store.read() as c:
            found = endpoints.find(c, 1, "ehr")
        assert found is not None
        return found

    def statuses(self) -> set[str]:
        with self.store.read() as c:
            return {one.status for one in deliveries.search(c, 1, limit=100)}

    def audited(self) -> list[str]:
        with self.store.read() as c:
            query = select(tables.audit.c.detail).where(tables.audit.c.action == "change")
            return list(c.execute(query.order_by(tables.audit.c.id)).scalars())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_worker_that_runs_goes_on_with_the_new_secret(site: Site) -> None:
    ehr = Guarded(personality("hapi"))
    with serving(ehr) as url:
        options = ("--create-missing-patients", "--poll-seconds", "3600", "--header")
        site.fine("add", "ehr", url, *options, "Authorization: Bearer none")
        runner = Runner(site.store, now)
        runner.start()
        try:
            site.send(*HISTORY)
            until(lambda: "parked" in site.statuses())
            site.fine("change", "ehr", "--header", "Authorization: Bearer one")
            site.fine("retry", "ehr")
            until(lambda: site.statuses() == {"sent"})
            until(lambda: site.endpoint.cursor is not None)  # the poll did not wait for its hour either
        finally:
            runner.stop()
    assert site.audited() == ["options.headers"]
    assert site.endpoint.options["poll_seconds"] == 3600


def test_a_server_that_has_moved_is_written_on_where_it_is(site: Site) -> None:
    ehr = FakeEhr(personality("hapi"))
    with serving(ehr) as url:
        site.fine("add", "ehr", url, "--create-missing-patients")
        site.send(*HISTORY)
        site.deliver()
    with serving(ehr) as url:
        site.fine("change", "ehr", "--url", url)
        assert site.endpoint.url == url
        with site.store.read() as c:
            assert capabilities.find(c, site.endpoint.id) is not None  # asked again by `change`
        site.send(REFILL | {"version": 2, "note": "corrected"})
        site.deliver()
        assert site.statuses() == {"sent"}
    refills = [key for key in ehr.state.versions if key[0] == "MedicationAdministration"]
    notes = [v.resource.get("note") for key in refills for v in ehr.state.versions[key][-1:]]
    assert [{"text": "corrected"}] in notes
    assert site.audited() == ["url"]


def emptied(ehr: FakeEhr) -> None:
    ehr.state.versions.clear()


def renumbered(ehr: FakeEhr) -> None:
    """The ids mean other records there, as on a server that was filled anew."""
    for key in [key for key in ehr.state.versions if key[0] == "Provenance"]:
        del ehr.state.versions[key]
    for versions in ehr.state.versions.values():
        for one in (versions[-1].resource or {}).get("identifier", []):
            one["value"] += "-other"


@pytest.mark.parametrize(("change", "why"), [(emptied, "holds nothing"), (renumbered, "is not the one")])
def test_another_server_is_refused(site: Site, change: Callable[[FakeEhr], None], why: str) -> None:
    ehr = FakeEhr(personality("hapi"))
    with serving(ehr) as url:
        site.fine("add", "ehr", url, "--create-missing-patients")
        site.send(*HISTORY)
        site.deliver()
    change(ehr)
    with serving(ehr) as other:
        done = site.itb("change", "ehr", "--url", other)
    assert (done.exit_code, why in done.stderr) == (1, True)
    assert (site.endpoint.url, site.audited()) == (url, [])


def test_a_url_that_does_not_answer_is_refused_once_anything_was_written(site: Site) -> None:
    ehr = FakeEhr(personality("hapi"))
    nobody = "http://127.0.0.1:9/fhir"
    with serving(ehr) as url:
        site.fine("add", "ehr", url, "--create-missing-patients")
        site.fine("change", "ehr", "--url", nobody)
        site.fine("change", "ehr", "--url", url)
        site.send(*HISTORY)
        site.deliver()
        done = site.itb("change", "ehr", "--url", nobody)
    assert (done.exit_code, "could not be asked: Unreachable" in done.stderr) == (1, True)
    assert site.endpoint.url == url


# --- the map of a receiver of HL7 v2 --------------------------------------------------------------------


def receiver(site: Site, folder: Path) -> Site:
    """The site with a receiver that has one event to be told, and a file with another map for it."""
    (folder / "map.toml").write_text('receiving = ["ENGINE", "WARD"]\n')
    site.fine("add", "ehr", LINE)
    site.send(REFILL)
    return site


@pytest.fixture
def told(site: Site, tmp_path: Path) -> Site:
    return receiver(site, tmp_path)


def change_map(site: Site, folder: Path) -> str:
    """What `change --map` says; "" when it was done."""
    done = site.itb("change", "ehr", "--map", str(folder / "map.toml"))
    assert (done.exit_code == 0) is ("hl7v2" in site.endpoint.options)
    return done.stderr if done.exit_code else ""


def test_a_map_is_changed_while_nothing_is_on_its_way(told: Site, tmp_path: Path) -> None:
    assert "pause it first" in change_map(told, tmp_path)
    told.fine("pause", "ehr")
    assert change_map(told, tmp_path) == ""
    assert told.endpoint.options["hl7v2"] == {"receiving": ["ENGINE", "WARD"]}
    told.fine("change", "ehr", "--default", "hl7v2")
    assert "hl7v2" not in told.endpoint.options


def test_a_map_is_not_changed_while_it_is_unknown_what_became_of_a_message(
    told: Site, tmp_path: Path
) -> None:
    with told.store.write() as c:
        (one,) = deliveries.search(c, 1, limit=10)
        deliveries.record(
            c, [Outcome(one, "pending", "cut", "Ambiguous", next_try_at=one.next_try_at)], now=now()
        )
    told.fine("pause", "ehr")
    assert "what became of a message is not known" in change_map(told, tmp_path)
    told.fine("cancel", "ehr", "--reason", "the receiver has it")
    assert change_map(told, tmp_path) == ""


def test_a_map_is_not_changed_while_a_worker_holds_a_lane_or_died_at_it(told: Site, tmp_path: Path) -> None:
    with told.store.write() as c:
        c.execute(tables.lanes.update().values(owner="gone", until="2020-01-01T00:00:00.000000Z"))
    told.fine("pause", "ehr")
    assert "what became of a message is not known" in change_map(told, tmp_path)


# --- seeded bugs ----------------------------------------------------------------------------------------


def any_server_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("service.api.endpoints.why_not_the_same", lambda *a: None)


def ids_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(moved, "_is_of", lambda *a: True)


def nothing_is_ever_under_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("service.steering._check_quiet", lambda *a: None)


def refuses_an_empty_server(site: Site, folder: Path) -> None:
    test_another_server_is_refused(site, emptied, "holds nothing")


def refuses_other_records(site: Site, folder: Path) -> None:
    test_another_server_is_refused(site, renumbered, "is not the one")


def refuses_a_map_too_early(site: Site, folder: Path) -> None:
    test_a_map_is_changed_while_nothing_is_on_its_way(receiver(site, folder), folder)


@pytest.mark.parametrize(
    ("bug", "test"),
    [
        (any_server_will_do, refuses_an_empty_server),
        (ids_are_not_looked_at, refuses_other_records),
        (nothing_is_ever_under_way, refuses_a_map_too_early),
    ],
)
def test_a_seeded_bug_is_seen(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Any, test: Any
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        test(site, tmp_path)
