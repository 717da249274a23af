"""A watched folder: whole files are taken once, and moved to where their fate can be seen."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mappings import to_fhir
from mappings.exact_json import dumps, loads
from service.cli import main
from service.dropfolder import DropFolder, FolderBusy, Outcome
from service.file_intake import Taking, take_file
from service.mllp.framing import framed
from service.mllp.senders import load
from service.store import events
from service.store.engine import Store
from service.store.keys import Caller
from site_of_mllp import SENDERS, interrogation, message

NOW = datetime(2026, 1, 12, tzinfo=UTC)
EVENTS = [interrogation(1, n) for n in range(3)]
LINES = b"\n".join(dumps(event) for event in EVENTS) + b"\n"
MESSAGES = [message(event) for event in EVENTS]


@dataclass
class Site:
    """A folder, the ledger behind it, and a clock that the test moves."""

    folder: DropFolder
    store: Store
    senders: Path
    time: float = 0.0

    def put(self, name: str, content: bytes) -> Path:
        file = self.folder.path / "in" / name
        file.write_bytes(content)
        return file

    def look(self) -> list[Outcome]:
        """Look, let everything stand still, and look again."""
        found = list(self.folder.look())
        self.time += 2
        return found + list(self.folder.look())

    def files(self, name: str) -> list[str]:
        return sorted(p.name for p in (self.folder.path / name).iterdir())

    def ids(self) -> list[str]:
        with self.store.read() as c:
            return [stored.event["id"] for stored in events.search(c, 1, limit=1000)]

    def reason(self, name: str) -> Any:
        return loads((self.folder.path / "failed" / f"{name}.reason.json").read_bytes())


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    senders = tmp_path / "senders.toml"
    senders.write_text(SENDERS)

    def take(stream: Any) -> Any:
        return take_file(Taking(store, Caller(1, "watch"), load(senders), "ehr", lambda: NOW), stream)

    made = Site(DropFolder(tmp_path / "inbox", take, 2.0, lambda: made.time), store, senders)
    with made.folder.opened():
        yield made


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("events.ndjson", LINES, "events"),
        ("events.json", json.dumps([json.loads(dumps(e)) for e in EVENTS], indent=1).encode(), "events"),
        ("no-name", b"\r".join(MESSAGES), "hl7"),
        ("framed.hl7", b"".join(map(framed, MESSAGES)), "hl7"),
        ("bundles.ndjson", b"\n".join(dumps(to_fhir(e)) for e in EVENTS), "fhir"),
        ("bundle.json", json.dumps(json.loads(dumps(to_fhir(EVENTS[0]))), indent=1).encode(), "fhir"),
    ],
)
def test_what_a_file_holds_is_told_by_its_content(site: Site, name: str, content: bytes, format: str) -> None:
    site.put(name, content)
    (outcome,) = site.look()
    assert (outcome.ok, outcome.contents.format) == (True, format)
    assert (site.files("in"), site.files("done"), site.files("failed")) == ([], [name], [])
    assert site.ids() == [e["id"] for e in EVENTS][: len(site.ids())]
    assert len(site.ids()) == (1 if name == "bundle.json" else 3)


def test_a_file_with_a_bad_item_fails_with_the_reason_and_the_good_items_are_taken(site: Site) -> None:
    bad = b'{"type": "refill"}\nnot json\n'
    site.put("mixed.ndjson", LINES + b"\n" + bad)
    (outcome,) = site.look()
    assert not outcome.ok
    assert site.ids() == [e["id"] for e in EVENTS]
    assert site.files("failed") == ["mixed.ndjson", "mixed.ndjson.reason.json"]
    reason = site.reason("mixed.ndjson")
    assert reason["counts"] == {"accepted": 3, "rejected": 2}
    assert {error["item"] for error in reason["errors"]} == {5, 6}
    assert "MRN1" not in json.dumps(reason)


def test_a_parked_message_is_read_again_when_the_file_is_put_in_again(site: Site) -> None:
    without_zone = MESSAGES[0].replace(b"20260112000000-0600", b"20260112000000")
    site.put("a.hl7", without_zone + b"\r" + MESSAGES[1])
    site.look()
    reason = site.reason("a.hl7")
    assert reason["counts"] == {"parked": 1, "taken": 1}
    assert [(e["item"], e["path"], e["rule"]) for e in reason["errors"]] == [(1, "OBR[1]-7", "time-zone")]
    (site.senders.parent / "a.toml").write_text('zone = "America/Chicago"')
    site.senders.write_text(SENDERS + 'map = "a.toml"\n')
    (site.folder.path / "failed" / "a.hl7").rename(site.folder.path / "in" / "a.hl7")
    (outcome,) = site.look()
    assert outcome.contents.counts == {"taken": 1, "repeated": 1}
    assert site.files("done") == ["a.hl7"]
    assert sorted(site.ids()) == ["I-1-0", "I-1-1"]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "format"),
        (b"%PDF-1.7", "format"),
        (b"{", "json"),
        (b"[1, 2]", "type"),
        (b'{"resourceType": "Bundle"}', None),
        (b"MSH|", "separators"),
        (MESSAGES[0].replace(b"PUMPS", b"OTHER"), "sender"),
    ],
)
def test_a_file_that_is_not_understood_fails(site: Site, content: bytes, rule: str | None) -> None:
    site.put("x", content)
    (outcome,) = site.look()
    assert site.ids() == []
    if rule is not None:
        assert not outcome.ok
        assert rule in {error["rule"] for error in site.reason("x")["errors"]}


def test_a_file_that_grows_is_not_read(site: Site) -> None:
    file = site.put("slow.ndjson", LINES[:50])
    assert list(site.folder.look()) == []
    for piece in (LINES[50:100], LINES[100:]):
        site.time += 1.5
        with file.open("ab") as stream:
            stream.write(piece)
        assert list(site.folder.look()) == []
    site.time += 2
    (outcome,) = site.folder.look()
    assert (outcome.ok, site.ids()) == (True, [e["id"] for e in EVENTS])


@pytest.mark.parametrize("name", [".hidden", "a.tmp", "a.PART", "b.filepart"])
def test_an_unfinished_name_is_left_alone_until_it_is_renamed(site: Site, name: str) -> None:
    file = site.put(name, LINES)
    assert site.look() == []
    file.rename(file.with_name("whole.ndjson"))
    assert [outcome.name for outcome in site.look()] == ["whole.ndjson"]


def test_a_file_that_somebody_holds_a_lock_on_is_not_read(site: Site) -> None:
    file = site.put("locked.ndjson", LINES)
    with file.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert site.look() == []
    assert [outcome.ok for outcome in site.look()] == [True]


def test_a_file_that_is_changed_while_it_is_read_stays_and_is_read_again(site: Site) -> None:
    file = site.put("late.ndjson", LINES)
    take = site.folder.take

    def interrupted(stream: Any) -> Any:
        found = take(stream)
        if len(site.ids()) == 3:
            with file.open("ab") as writer:
                writer.write(dumps(interrogation(1, 99)) + b"\n")
        return found

    site.folder.take = interrupted
    assert site.look() == []
    site.folder.take = take
    (outcome,) = site.look()
    assert outcome.contents.counts == {"replayed": 3, "accepted": 1}


def test_a_kill_before_the_move_takes_the_file_again_without_effect(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("a.ndjson", LINES), ("b.hl7", b"\r".join(MESSAGES))):
        site.put(name, content)
        with monkeypatch.context() as patch:

            def killed(*args: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(Path, "rename", killed)
            with pytest.raises(KeyboardInterrupt):
                site.look()
        before = site.ids()
        assert site.files("in") == [name]
        (outcome,) = site.look()
        assert outcome.ok
        assert site.ids() == before == [e["id"] for e in EVENTS]


def test_another_file_of_the_same_name_replaces_none(site: Site) -> None:
    site.put("a.ndjson", LINES)
    site.look()
    site.put("a.ndjson", dumps(interrogation(2, 1)))
    site.look()
    assert len(site.files("done")) == 2


def test_files_are_taken_the_oldest_first(site: Site) -> None:
    for at, name in ((3, "a"), (1, "c"), (2, "b")):
        os.utime(site.put(name, dumps(interrogation(5, at))), ns=(at, at))
    assert [outcome.name for outcome in site.look()] == ["c", "b", "a"]
    assert site.ids() == ["I-5-1", "I-5-2", "I-5-3"]


def test_one_folder_has_one_watcher(site: Site) -> None:
    other = DropFolder(site.folder.path, site.folder.take, 0, lambda: 0.0)
    with pytest.raises(FolderBusy), other.opened():
        pass


# --- the command ----------------------------------------------------------------------------------------


def itb_watch(folder: Path, *more: str) -> Result:
    command = ["watch", str(folder / "inbox"), "--once", "--settle", "0", "--report", "json", *more]
    return CliRunner().invoke(main, command, env={"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db"})


def test_the_command_reports_each_file_and_ends_with_its_status(tmp_path: Path) -> None:
    assert itb_watch(tmp_path).exit_code == 0
    inbox = tmp_path / "inbox" / "in"
    (inbox / "good.ndjson").write_bytes(LINES)
    (inbox / "still.tmp").write_bytes(LINES)
    done = itb_watch(tmp_path)
    report = loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, report["counts"]) == (0, {"done": 1, "items accepted": 3, "waiting": 1})
    (inbox / "bad.ndjson").write_bytes(b"{}")
    (tmp_path / "senders.toml").write_text(SENDERS)
    (inbox / "m.hl7").write_bytes(MESSAGES[0])
    failed = itb_watch(tmp_path, "--senders", str(tmp_path / "senders.toml"))
    items = loads(failed.stdout.splitlines()[-1])["items"]
    assert failed.exit_code == 1
    assert {(i["file"], i["outcome"]) for i in items} == {("bad.ndjson", "failed"), ("m.hl7", "done")}


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    assert itb_watch(tmp_path, "--senders", str(tmp_path / "none.toml")).exit_code == 2
    assert itb_watch(tmp_path, "--source", "NOT OK").exit_code == 2
    (tmp_path / "inbox").write_text("a file")
    assert itb_watch(tmp_path).exit_code == 2


def test_a_second_command_ends_busy(site: Site, tmp_path: Path) -> None:
    assert itb_watch(tmp_path).exit_code == 5
