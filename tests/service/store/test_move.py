"""A site moves between SQLite and PostgreSQL: all of it, once, whatever kills the move."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event as listen
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from postgresql_server import PostgresqlServer
from service import cli, verify
from service.store import endpoints, events, leases, move
from service.store.engine import Store, StoreError, migrate
from service.store.tables import metadata
from site_of_tests import HISTORY, Site
from site_of_tests import REFILL as SENT

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def itb(url: str, *arguments: str) -> Any:
    return CliRunner().invoke(cli.main, arguments, env={"ITB_DATABASE_URL": url})


def live(folder: Path, url: str) -> Site:
    """A history that was delivered, something that waits, a second tenant, and leases that ended."""
    site = Site(folder, url)
    site.register()
    site.send(*HISTORY)
    site.push()
    site.pull()
    site.send(
        *(SENT | {"id": f"R-{n}", "note": "ä 'quoted' \n", "pump": f"P{n % 7}"} for n in range(100, 160))
    )
    with site.store.write() as c:
        c.exec_driver_sql("INSERT INTO tenants (id, name) VALUES (2, 'other')")
        endpoints.add(c, 2, "second", "http://second.invalid", {"headers": {"X": "y"}}, now=NOW)
    return site


@pytest.fixture(params=["to postgresql", "to sqlite"])
def urls(request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgresqlServer) -> tuple[str, str]:
    server, file = postgresql.database(migrated=False), f"sqlite:///{tmp_path}/itb.db"
    return (file, server) if request.param == "to postgresql" else (server, file)


def rows(url: str) -> dict[str, list[Any]]:
    store = Store(url)
    with store.read() as c:
        found = {t.name: sorted(map(repr, c.execute(select(t)).all())) for t in metadata.sorted_tables}
    store.close()
    return found


def test_a_site_moves_with_everything_and_goes_on(urls: tuple[str, str], tmp_path: Path) -> None:
    old, new = urls
    site = live(tmp_path, old)
    site.store.close()
    before = rows(old)
    done = itb(old, "migrate-to", new)
    assert done.exit_code == 0, done.output
    assert "events\t65 rows, the same in both" in done.stdout.splitlines()
    assert rows(new) == rows(old) == before
    assert itb(new, "verify").stdout == itb(old, "verify").stdout
    site.url, site.store = new, Store(new)
    assert set(site.send(SENT | {"id": "R-after"})) == {"accepted"}
    assert set(site.send(*HISTORY)) == {"replayed"}
    assert site.push()["sent"] == 61
    with site.store.read() as c:
        assert [f.what for f in verify.findings(site.store) if not f.ok] == []
        assert len(events.search(c, 1, limit=1000)) == 66
    site.store.close()


def killed_at(old: str, new: str, statement: int) -> bool:
    """Move in a process that dies before its nth statement on the target; whether it died."""
    child = os.fork()
    if child == 0:
        try:
            source, target, seen = Store(old), Store(new), [0]

            def count(*_: Any) -> None:
                seen[0] += 1
                if seen[0] > statement:
                    os.kill(os.getpid(), signal.SIGKILL)

            listen.listen(target.engine, "before_cursor_execute", count)
            move.move(source, target, now=NOW + timedelta(days=900), bar=verify.no_bar)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_move_killed_again_and_again_goes_on_where_it_stood(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "BATCH", 10)
    old, new = urls
    live(tmp_path, old).store.close()
    migrated = Store(new)
    migrate(migrated)
    migrated.close()
    kills, statement = 0, 5
    while killed_at(old, new, statement):
        kills += 1
        statement += 11  # each run gets a little further than the one before
    assert kills >= 4
    assert rows(new) == rows(old)


def test_a_site_that_runs_is_not_moved(urls: tuple[str, str], tmp_path: Path) -> None:
    old, new = urls
    site = live(tmp_path, old)
    with site.store.write() as c:
        leases.acquire(c, 1, "lane", "worker", now=NOW, until=NOW + timedelta(seconds=10))
    with pytest.raises(StoreError, match="stop it first"):
        move.move(site.store, Store(new), now=NOW, bar=verify.no_bar)
    site.store.close()


def written_meanwhile(site: Site) -> Any:
    """A bar that sends an event when the comparison begins."""

    def bar(what: str, total: int) -> Any:
        if what == "comparing audit":
            site.send(SENT | {"id": "R-late"})
        return verify.no_bar(what, total)

    return bar


def test_what_is_written_meanwhile_is_noticed(urls: tuple[str, str], tmp_path: Path) -> None:
    old, new = urls
    site = live(tmp_path, old)
    target, later = Store(new), NOW + timedelta(days=900)
    with pytest.raises(StoreError, match="run this again"):
        move.move(site.store, target, now=later, bar=written_meanwhile(site))
    move.move(site.store, target, now=later, bar=verify.no_bar)
    target.close()
    site.store.close()
    assert rows(new) == rows(old)


def test_a_target_that_holds_something_else_is_refused(urls: tuple[str, str], tmp_path: Path) -> None:
    old, new = urls
    site = live(tmp_path, old)
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", new)
    other.send(HISTORY[1])
    with pytest.raises(Exception, match="differs|chain|constraint"):
        move.move(site.store, other.store, now=NOW + timedelta(days=900), bar=verify.no_bar)
    for one in (site, other):
        one.store.close()


# --- bugs that these tests must catch -------------------------------------------------------------------


def a_table_is_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(move, "_tables", lambda: [t for t in metadata.sorted_tables if t.name not in LEFT_OUT])


LEFT_OUT = ("links", "chains")


def a_text_changes_on_the_way(patch: pytest.MonkeyPatch) -> None:
    right = move._copy

    def wrong(ours: Any, target: Store, table: Any, advance: Any) -> None:
        right(ours, target, table, advance)
        if table.name == "deliveries":
            with target.write() as c:
                c.exec_driver_sql("UPDATE deliveries SET lane = 'pump:P0' WHERE id = 9")

    patch.setattr(move, "_copy", wrong)


def counters_stay_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(move, "_set_counters", lambda target: None)


def nothing_is_compared(patch: pytest.MonkeyPatch) -> None:
    a_text_changes_on_the_way(patch)
    patch.setattr(move, "_compare", lambda ours, target, bar: {"events": 65})


@pytest.mark.parametrize(
    "bug",
    [a_table_is_left_out, a_text_changes_on_the_way, counters_stay_behind, nothing_is_compared],
    ids=lambda bug: bug.__name__,
)
def test_the_move_catches_a_seeded_bug(
    bug: Any, tmp_path: Path, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    urls = (f"sqlite:///{tmp_path}/itb.db", postgresql.database(migrated=False))
    with pytest.raises((AssertionError, DBAPIError)):
        test_a_site_moves_with_everything_and_goes_on(urls, tmp_path)
