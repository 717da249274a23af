"""The database fails at the k-th statement, for every k until none is left: all arrives once, in order.

A failure is told before a statement or a commit is done, as a disk that fails tells it; whoever asked asks
again. Nothing may be lost, doubled, or left to a person, wherever it struck.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from chaos import left_behind
from history import Breach, Write, check
from service.intake import load
from service.store import faults
from service.store.engine import Store, migrate
from service.sync import outbox
from service.sync.pull import pull
from service.sync.worker import push_due
from site_of_tests import HISTORY, Site

SENT = HISTORY[:2]
MOST = 1000
"""Statements of a run: far more than there are."""


class Failing:
    """Fails one statement or commit of an engine: the `at`-th."""

    def __init__(self, store: Store, at: int) -> None:
        self.left, self.struck = at, False
        event.listen(store.engine, "before_cursor_execute", self._statement)
        event.listen(store.engine, "commit", lambda connection: self._count())

    def _statement(self, *_: Any) -> None:
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.struck = True
            failed = sqlite3.OperationalError("disk I/O error")
            failed.sqlite_errorname = "SQLITE_IOERR_WRITE"  # type: ignore[misc]
            raise OperationalError("a statement", None, failed)


def stubborn(do: Callable[[], Any]) -> Any:
    """Ask again after a failure, as a sender, a worker and a poll do."""
    try:
        return do()
    except OperationalError:
        return do()


def is_sent(folder: Path) -> bool:
    """Past the engine whose statements are counted."""
    with contextlib.closing(sqlite3.connect(folder / "itb.db")) as c:
        return not c.execute("SELECT count(*) FROM deliveries WHERE status = 'pending'").fetchone()[0]


def failed_once(folder: Path, at: int) -> tuple[bool, list[Breach]]:
    """Whether the failure struck, and what is wrong after all was sent, delivered and read."""
    site = Site(folder)
    site.register()
    failing = Failing(site.store, at)
    acknowledged = []
    for one in SENT:
        if stubborn(lambda one=one: site.send(one)) in (["accepted"], ["replayed"]):  # type: ignore[misc]
            acknowledged.append(load(one).event)
    for _ in range(20):
        if is_sent(folder):
            break
        site.time += timedelta(minutes=1)  # what a failed step held has ended
        stubborn(lambda: push_due(site.store, site.endpoint, site.ehr, site.now))
    stubborn(lambda: pull(site.store, site.ehr, site.endpoint, site.now))
    writes = [Write(v.key[0], v.key[1], v.number, n, v.resource) for n, v in enumerate(site.ehr.state.log)]
    failing.left = 0  # none from here on
    assert len(acknowledged) == len(SENT)
    found = check(left_behind(site.store, writes, acknowledged, folder / "no log", 0.0))
    site.store.close()
    return failing.struck, found


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Folders with a migrated database each, made as they are asked for."""
    first = tmp_path / "first"
    first.mkdir()
    made = Store(f"sqlite:///{first}/itb.db")
    migrate(made)
    made.close()
    return (shutil.copytree(first, tmp_path / str(n)) for n in range(MOST))


def every_failure(folders: Iterator[Path]) -> int:
    """How many failures there were before the first that did not strike."""
    for at, folder in enumerate(folders, start=1):
        struck, found = failed_once(folder, at)
        assert found == [], f"after a failure at statement {at}"
        if not struck:
            return at - 1
    raise AssertionError(f"more than {MOST} statements")


def test_a_failure_at_each_statement_loses_and_doubles_nothing(folders: Iterator[Path]) -> None:
    assert every_failure(folders) > 100


def taken_for_a_bug(patch: pytest.MonkeyPatch) -> None:
    """A failure of the ledger is laid at the door of the delivery, and parks it."""
    patch.setattr(outbox, "is_outage", lambda error: False)


def half_committed(patch: pytest.MonkeyPatch) -> None:
    """The outcome is committed and its audit row is not."""
    right = outbox.audit.write_many

    def wrong(c: Any, *given: Any) -> None:
        c.exec_driver_sql("COMMIT")
        c.exec_driver_sql("BEGIN IMMEDIATE")
        right(c, *given)

    patch.setattr(outbox.audit, "write_many", wrong)


def swallowed(patch: pytest.MonkeyPatch) -> None:
    """A transaction that failed is passed over."""
    right = Store.write

    @contextlib.contextmanager
    def wrong(self: Store) -> Iterator[Any]:
        with contextlib.suppress(OperationalError), right(self) as c:
            yield c

    patch.setattr(Store, "write", wrong)


@pytest.mark.parametrize("bug", [taken_for_a_bug, half_committed, swallowed], ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_seen(bug: Any, folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, OperationalError, RuntimeError)):
        every_failure(folders)


def test_an_outage_is_no_bug_of_a_statement() -> None:
    assert faults.is_outage(OperationalError("x", None, sqlite3.OperationalError("gone")))
    assert not faults.is_outage(ValueError("x"))
