"""A large EHR is loaded by its bulk export, whatever breaks on the way; polls go on from its moment.

The EHR is our own service with its `/fhir/$export`, over real HTTP, behind a gate that breaks answers.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from mappings import load_event
from mappings.exact_json import dumps, loads
from service import cli
from service.app import create_app
from service.bulk import source as bulk_source
from service.bulk.source import Lost, SourceError
from service.commands.exits import DONE, STOPPED, USAGE
from service.opening import now
from service.settings import Settings
from service.store import endpoints, events, positions
from service.store import loads as store_loads
from service.store.engine import Store, migrate
from service.sync import first_load, pages
from service.sync.pull import pull
from service.sync.worker import connect
from service.synthetic import clinic

ITB = [sys.executable, "-m", "service.cli"]
Json = Any
Answer = tuple[str, list[tuple[str, str]], list[bytes]]
Break = Callable[[str, Answer], Answer]


class Gate:
    """WSGI: passes requests on, and hands each answer to `breaks`."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.asked: list[str] = []
        self.breaks: Break = lambda path, answer: answer

    def __call__(self, environ: Any, start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.asked.append(path)
        head: list[Any] = []
        body = list(self._app(environ, lambda status, headers, *_: head.extend([status, headers])))
        status, headers, parts = self.breaks(path, (head[0], head[1], body))
        start(status, headers)
        return parts


class Hospital:
    """A service with a clinic's records, and a ledger that has it as its EHR `site`."""

    def __init__(self, folder: Path) -> None:
        self.env = {"ITB_DATABASE_URL": f"sqlite:///{folder}/there.db"}
        key = CliRunner().invoke(cli.main, ["keys", "add", "reader"], env=self.env).stdout.strip()
        app = create_app(Settings(database_url=self.env["ITB_DATABASE_URL"], log_level="error"))
        self.there = app.extensions["itb"].store
        self.gate = Gate(app)
        self._server = make_server("127.0.0.1", 0, self.gate, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.here = Store(f"sqlite:///{folder}/here.db")
        migrate(self.here)
        with self.here.write() as c:
            self.endpoint = endpoints.add(
                c,
                1,
                "site",
                f"http://127.0.0.1:{self._server.server_port}/fhir",
                {"headers": {"Authorization": f"Bearer {key}"}},
                now=now(),
            )
        self.number = 0

    def enter(self, made: list[Json]) -> None:
        with self.there.write() as c:
            for event in made:
                events.accept(c, 1, load_event(event), received_at=now(), actor="t", endpoints=[])
        self.number += len(made)

    def load(self) -> first_load.Loaded:
        return first_load.load(self.here, connect(self.endpoint), self.endpoint, now)

    def held(self) -> list[bytes]:
        """What the ledger holds."""
        with self.here.read() as c:
            return sorted(dumps(one.event) for one in events.search(c, 1, limit=10_000))

    def entered(self) -> list[bytes]:
        """What was entered, as the ledger should call it: records of this EHR."""
        with self.there.read() as c:
            found = [one.event for one in events.search(c, 1, limit=10_000)]
        return sorted(dumps(e | {"source": "site", "id": f"{e['source']}.{e['id']}"}) for e in found)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for thread in threading.enumerate():  # exports that nobody waits for any more
            if thread.name == "itb-bulk":
                thread.join()
        for store in (self.here, self.there):
            store.close()


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    made = Hospital(tmp_path)
    made.enter(list(clinic(2, 1, 2)))
    yield made
    made.stop()


def refuse(status: str, *paths: str, after: int = 0) -> Break:
    """That status for what is asked below one of these paths, once it was asked so often."""
    seen = [0]

    def breaks(path: str, answer: Answer) -> Answer:
        if not any(one in path for one in paths):
            return answer
        seen[0] += 1
        return (status, [("Content-Type", "text/plain")], [b""]) if seen[0] > after else answer

    return breaks


def once(breaks: Break) -> Break:
    """The first answer that it would change, and no other."""
    done = [False]

    def first(path: str, answer: Answer) -> Answer:
        made = answer if done[0] else breaks(path, answer)
        done[0] = done[0] or made is not answer
        return made

    return first


def spoil(change: Callable[[bytes], bytes], *paths: str) -> Break:
    """The content of what is asked below these paths, changed."""

    def breaks(path: str, answer: Answer) -> Answer:
        if not any(one in path for one in paths):
            return answer
        body = change(b"".join(answer[2]))
        headers = [(name, value) for name, value in answer[1] if name != "Content-Length"]
        return answer[0], headers, [body]

    return breaks


def kicked_off(hospital: Hospital) -> int:
    return sum(path.endswith("/$export") for path in hospital.gate.asked)


def test_everything_comes_once(hospital: Hospital) -> None:
    loaded = hospital.load()
    assert loaded.incomplete == ()
    assert hospital.held() == hospital.entered()
    assert "accepted" not in hospital.load().counts
    assert hospital.held() == hospital.entered()


def test_what_is_new_there_is_not_asked_for_one_by_one(hospital: Hospital) -> None:
    hospital.load()
    assert not [path for path in hospital.gate.asked if path.startswith("/fhir/Procedure/")]


def test_the_next_poll_begins_a_while_before_the_export(hospital: Hospital) -> None:
    hospital.load()
    with hospital.here.read() as c:
        reached = positions.of(c, hospital.endpoint.id)
    assert len(set(reached.values())) == 1
    hospital.enter(list(clinic(1, 2, 2)))
    ehr, asked = connect(hospital.endpoint), []
    right = ehr.search
    ehr.search = lambda type, params: asked.append(params) or right(type, params)  # type: ignore[method-assign,func-returns-value]
    pull(hospital.here, ehr, hospital.endpoint, now, thorough=False)
    begun = {params["_lastUpdated"].removeprefix("ge") for params in asked if "_lastUpdated" in params}
    assert begun == {pages.before(next(iter(reached.values())), 300)}
    assert hospital.held() == hospital.entered()


@pytest.mark.parametrize("file", [1, 4])
def test_a_load_that_was_broken_off_goes_on_with_its_export(hospital: Hospital, file: int) -> None:
    hospital.gate.breaks = refuse("403 Forbidden", ".ndjson", after=file - 1)
    with pytest.raises(SourceError, match="403"):
        hospital.load()
    with hospital.here.read() as c:
        going = store_loads.find(c, hospital.endpoint.id)
        assert positions.of(c, hospital.endpoint.id) == {}
    assert going is not None
    assert len(going.done) == file - 1
    hospital.gate.breaks = lambda path, answer: answer
    asked = len(hospital.gate.asked)
    hospital.load()
    files = [path for path in hospital.gate.asked[asked:] if path.endswith(".ndjson")]
    assert not {path.rpartition("/")[2] for path in files} & {u.rpartition("/")[2] for u in going.done}
    assert kicked_off(hospital) == 1
    assert hospital.held() == hospital.entered()


def test_a_file_that_ends_early_is_not_taken_for_whole(hospital: Hospital) -> None:
    """The server promised a number of lines; what came of them is kept, and nothing is missed in the end."""
    hospital.gate.breaks = once(
        spoil(lambda body: b"".join(body.splitlines(True)[:-1]), "Procedure.1.ndjson")
    )
    with pytest.raises(SourceError, match="promised"):
        hospital.load()
    hospital.load()
    assert hospital.held() == hospital.entered()


def test_a_line_that_cannot_be_read_stops_nothing_and_is_found_by_the_next_poll(hospital: Hospital) -> None:
    hospital.gate.breaks = spoil(lambda body: body.replace(b"{", b"<", 1), "Procedure.1.ndjson")
    loaded = hospital.load()
    assert loaded.incomplete == ("line 1 of a file of Procedures cannot be read",)
    assert loaded.counts["unreadable"] == 1
    with hospital.here.read() as c:
        assert positions.of(c, hospital.endpoint.id) == {}
    pull(hospital.here, connect(hospital.endpoint), hospital.endpoint, now, thorough=False)
    assert hospital.held() == hospital.entered()


def test_what_the_server_left_out_itself_is_found_by_the_next_poll(hospital: Hospital) -> None:
    issue = {"severity": "error", "code": "not-supported"}
    outcome = dumps({"resourceType": "OperationOutcome", "issue": [issue]})

    def breaks(path: str, answer: Answer) -> Answer:
        if path.endswith("/error.ndjson"):
            return "200 OK", [("Content-Type", "application/fhir+ndjson")], [outcome]
        if "$export-poll-status" not in path or path.endswith(".ndjson") or answer[0][:3] != "200":
            return answer
        told = loads(b"".join(answer[2]))
        kept = [one for one in told["output"] if one["type"] != "Procedure"]
        url = told["output"][0]["url"].rpartition("/")[0] + "/error.ndjson"
        made = dumps(told | {"output": kept, "error": [{"type": "OperationOutcome", "url": url}]})
        return answer[0], [("Content-Type", "application/json")], [made]

    hospital.gate.breaks = breaks
    assert hospital.load().incomplete == ("the server left something out: not-supported",)
    assert len(hospital.held()) < hospital.number
    pull(hospital.here, connect(hospital.endpoint), hospital.endpoint, now, thorough=False)
    assert hospital.held() == hospital.entered()


@pytest.mark.parametrize(
    ("where", "status", "words"),
    [
        ("$export-poll-status", "404 Not Found", "know"),
        ("$export-poll-status", "500 Internal Server Error", "failed"),
        (".ndjson", "410 Gone", "expired"),
    ],
)
def test_an_export_that_is_lost_is_said_and_begun_anew(
    hospital: Hospital, where: str, status: str, words: str
) -> None:
    hospital.gate.breaks = once(refuse(status, where))
    with pytest.raises(Lost, match=words):
        hospital.load()
    hospital.load()
    assert kicked_off(hospital) > 1
    assert hospital.held() == hospital.entered()


@pytest.mark.parametrize(
    ("where", "status"), [("/$export", "429 Too Many Requests"), ("$export-poll-status", "503 Unavailable")]
)
def test_a_busy_server_is_waited_for_as_long_as_it_asks(
    hospital: Hospital, where: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(bulk_source.time, "sleep", waits.append)

    def busy(path: str, answer: Answer) -> Answer:
        return (status, [("Retry-After", "7")], [b""]) if where in path else answer

    hospital.gate.breaks = once(busy)
    hospital.load()
    assert 7 in waits
    assert hospital.held() == hospital.entered()


def test_a_refused_export_is_said(hospital: Hospital) -> None:
    hospital.gate.breaks = refuse("403 Forbidden", "/$export")
    with pytest.raises(SourceError, match="403"):
        hospital.load()


# --- the command ------------------------------------------------------------------------------------------


def sync(hospital: Hospital, *more: str) -> Any:
    env = {"ITB_DATABASE_URL": str(hospital.here.engine.url)}
    return CliRunner().invoke(cli.main, ["sync", "site", "--bulk", "--report", "json", *more], env=env)


def report_of(done: Any) -> Json:
    return loads(done.stdout.splitlines()[-1].encode())


def test_the_command_loads_and_goes_on(hospital: Hospital) -> None:
    done = sync(hospital)
    assert done.exit_code == DONE, done.output
    assert report_of(done)["counts"]["read_accepted"] == hospital.number
    assert hospital.held() == hospital.entered()


def test_a_server_without_an_export_is_read_page_by_page(hospital: Hospital) -> None:
    hospital.gate.breaks = spoil(lambda body: body.replace(b'"export"', b'"other"'), "/metadata")
    done = sync(hospital)
    assert done.exit_code == DONE, done.output
    assert "site offers no $export in its CapabilityStatement: it is read page by page" in done.stderr
    assert kicked_off(hospital) == 0
    assert hospital.held() == hospital.entered()


@pytest.mark.parametrize(("status", "code"), [("410 Gone", STOPPED), ("403 Forbidden", STOPPED)])
def test_the_command_says_why_it_cannot_go_on(hospital: Hospital, status: str, code: int) -> None:
    hospital.gate.breaks = refuse(status, "$export-poll-status")
    done = sync(hospital)
    assert done.exit_code == code
    assert report_of(done)["message"].startswith("site: ")


@pytest.mark.parametrize("at", range(1, 6))
def test_a_command_that_was_killed_goes_on_with_its_export(hospital: Hospital, at: int) -> None:
    """SIGKILL of the real process while it waits for its file number `at`."""
    env = os.environ | {"ITB_DATABASE_URL": str(hospital.here.engine.url)}
    running: list[subprocess.Popen[bytes]] = []
    files = itertools.count(1)

    def killing(path: str, answer: Answer) -> Answer:
        if path.endswith(".ndjson") and next(files) == at:
            os.killpg(running[0].pid, signal.SIGKILL)
        return answer

    hospital.gate.breaks = killing
    with subprocess.Popen(
        [*ITB, "sync", "site", "--bulk"], env=env, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        running.append(process)
        assert process.wait(60) == -signal.SIGKILL
    done = sync(hospital)
    assert done.exit_code == DONE, done.output
    assert kicked_off(hospital) == 1
    assert hospital.held() == hospital.entered()


def test_bulk_is_for_one_endpoint(hospital: Hospital) -> None:
    assert sync(hospital, "--dry-run").exit_code == USAGE


# --- seeded bugs ------------------------------------------------------------------------------------------


def every_file_counts_as_done(patch: pytest.MonkeyPatch) -> None:
    """Lines are not counted."""
    right = first_load._take_file
    patch.setattr(
        first_load,
        "_take_file",
        lambda round, source, file: right(round, source, {k: v for k, v in file.items() if k != "count"}),
    )


def test_a_seeded_bug_is_seen(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    every_file_counts_as_done(monkeypatch)
    hospital.gate.breaks = once(
        spoil(lambda body: b"".join(body.splitlines(True)[:-1]), "Procedure.1.ndjson")
    )
    hospital.load()
    assert len(hospital.held()) < hospital.number
