"""A backup under load is one moment of the ledger, verified, and never half a file."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from service import cli, verify
from service.store import backup, events
from service.store.engine import Store, StoreError, migrate
from site_of_tests import HISTORY, Site

WRITER = """
import sys
from datetime import UTC, datetime
from service.intake import load, take
from service.store.engine import Store
from service.store.keys import Caller
from site_of_tests import REFILL
store = Store(sys.argv[1])
for n in range(100_000):
    refill = load(REFILL | {"id": f"{sys.argv[2]}-{n}"})
    (done,) = take(store, Caller(1, "load"), [refill], clock=lambda: datetime.now(UTC))
    assert done.outcome == "accepted"
    print(f"{sys.argv[2]}-{n}", flush=True)
"""


class Load:
    """Two processes that write as fast as they can; `acknowledged` is what they were told is on the disk."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[str] = []
        self.grown = threading.Event()
        command = [sys.executable, "-c", WRITER, url]
        path = {"PYTHONPATH": ":".join(sys.path)}
        self.processes = [
            subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True, env=path) for name in "ab"
        ]
        self.threads = [threading.Thread(target=self._read, args=(p,)) for p in self.processes]
        for thread in self.threads:
            thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.acknowledged.append(line.strip())
            self.grown.set()

    def wait_for_more(self, number: int) -> None:
        wanted = len(self.acknowledged) + number
        while len(self.acknowledged) < wanted:
            self.grown.clear()
            assert self.grown.wait(60), "the writers stand still"

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        for thread in self.threads:
            thread.join()


def stored(url: str) -> list[str]:
    store = Store(url)
    try:
        assert [f.what for f in verify.findings(store) if not f.ok] == []
        with store.read() as c:
            return [found.event["id"] for found in events.search(c, 1, limit=1_000_000)]
    finally:
        store.close()


def back_up_under_load(folder: Path, times: int) -> None:
    """R19: each backup holds all that was acknowledged before it began, and is a beginning of the ledger."""
    url = f"sqlite:///{folder}/itb.db"
    store = Store(url)
    migrate(store)
    load = Load(url)
    try:
        kept = []
        for n in range(times):
            load.wait_for_more(10)
            before = list(load.acknowledged)
            anchors = backup.back_up(store, folder / f"{n}.bak", verify.verified, lambda step: None)
            kept.append((before, anchors))
            assert len(load.acknowledged) >= len(before)
    finally:
        load.stop()
    whole = stored(url)
    for n, (before, anchors) in enumerate(kept):
        copied = stored(f"sqlite:///{folder}/{n}.bak")
        assert copied == whole[: len(copied)]
        assert set(before) <= set(copied)
        assert [f.what for f in verify.findings(store, anchors) if not f.ok] == []
    store.close()
    assert not list(folder.glob("*.part*"))


def test_a_backup_under_load_is_one_moment_of_the_ledger(tmp_path: Path) -> None:
    back_up_under_load(tmp_path, 20)


def the_file_alone_is_copied(patch: pytest.MonkeyPatch) -> None:
    """The usual mistake: what is still in the WAL is left behind."""
    patch.setattr(backup, "_copy", lambda source, target, seen: shutil.copy(source, target))


def an_older_moment(patch: pytest.MonkeyPatch) -> None:
    right, first = backup._copy, []

    def wrong(source: Path, target: Path, seen: Any) -> None:
        if not first:
            first.append(target.with_name("first"))
            right(source, first[0], seen)
        shutil.copy(first[0], target)

    patch.setattr(backup, "_copy", wrong)


def rows_are_left_out(patch: pytest.MonkeyPatch) -> None:
    right = backup._copy

    def wrong(source: Path, target: Path, seen: Any) -> None:
        right(source, target, seen)
        with contextlib.closing(backup.sqlite3.connect(target)) as c:
            c.execute("DROP TRIGGER events_no_DELETE")
            c.execute("DELETE FROM deliveries")
            c.execute("DELETE FROM events WHERE seq = 3")
            c.commit()

    patch.setattr(backup, "_copy", wrong)


@pytest.mark.parametrize(
    "bug", [the_file_alone_is_copied, an_older_moment, rows_are_left_out], ids=lambda bug: bug.__name__
)
def test_the_backup_under_load_catches_a_seeded_bug(
    bug: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, StoreError)):
        back_up_under_load(tmp_path, 4)


def itb(url: str, *arguments: str) -> Any:
    return CliRunner().invoke(cli.main, arguments, env={"ITB_DATABASE_URL": url})


def test_the_command_says_what_it_copied_and_overwrites_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.send(*HISTORY)
    target = tmp_path / "itb.bak"
    done = itb(site.url, "backup", str(target))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith(f"{target}\tevents/1:5:")
    content = target.read_bytes()
    done = itb(site.url, "backup", str(target))
    assert (done.exit_code, "is there already" in done.stderr) == (1, True)
    assert target.read_bytes() == content
    done = itb(site.url, "backup", str(tmp_path / "nowhere" / "x"))
    assert done.exit_code == 1
    site.store.close()


def test_a_damaged_ledger_gives_no_backup(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.send(*HISTORY)
    with site.store.write() as c:
        c.exec_driver_sql("DROP TRIGGER events_no_UPDATE")
        c.exec_driver_sql("UPDATE events SET pump = 'X' WHERE seq = 2")
    done = itb(site.url, "backup", str(tmp_path / "itb.bak"))
    assert (done.exit_code, "events of tenant 1: row 2 was changed" in done.stderr) == (1, True)
    assert not list(tmp_path.glob("itb.bak*"))
    site.store.close()


def test_a_ledger_on_postgresql_is_backed_up_by_its_own_tool(postgresql_url: str, tmp_path: Path) -> None:
    done = itb(postgresql_url, "backup", str(tmp_path / "x"))
    assert (done.exit_code, "pg_dump" in done.stderr) == (1, True)
