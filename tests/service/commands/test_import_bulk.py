"""`itb import-bulk`: another server's export becomes the same events, once, whatever breaks in between."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from werkzeug.serving import make_server

import golden
from mappings import load_event
from mappings.exact_json import dumps, loads
from service import cli
from service.app import create_app
from service.bulk import source as bulk_source
from service.commands.exits import DONE, REFUSED, STOPPED, UNREACHABLE
from service.fhir.record import EVENTS_OF
from service.settings import Settings
from service.store.spool import Spool
from service.synthetic import clinic

Json = Any
STORIES = sorted(golden.FIXTURES.glob("storyline/*.ndjson"))


def ledger(path: Path) -> dict[str, str]:
    return {"ITB_DATABASE_URL": f"sqlite:///{path}"}


def run(*arguments: str | Path, env: dict[str, str], stdin: bytes = b"") -> Any:
    done = CliRunner().invoke(cli.main, [str(a) for a in arguments], env=env, input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def report_of(done: Any) -> Json:
    return loads(done.stdout.splitlines()[-1].encode())


def exported(env: dict[str, str]) -> list[bytes]:
    return sorted(run("export", env=env).stdout_bytes.splitlines())


def history() -> list[bytes]:
    lines = [line for path in STORIES for line in path.read_bytes().splitlines()]
    return lines + [dumps(event) for event in clinic(4, 1, 3)]


@contextmanager
def serving(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Our own service over real HTTP, and a key for it."""
    env = ledger(path)
    key = run("keys", "add", "reader", env=env).stdout.strip()
    app = create_app(Settings(database_url=env["ITB_DATABASE_URL"], log_level="error"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/fhir", {"Authorization": f"Bearer {key}"}
    finally:
        server.shutdown()
        thread.join()
        app.extensions["itb"].store.close()


def kicked_off(base: str, key: dict[str, str], **query: str) -> str:
    headers = {"Prefer": "respond-async", "Accept": "application/fhir+json", **key}
    answer = requests.get(f"{base}/$export", params=query, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    return answer.headers["Content-Location"]


def command(
    place: str | Path, key: dict[str, str] | None = None, *more: str | Path
) -> tuple[str | Path, ...]:
    header = ("--header", f"Authorization: {key['Authorization']}") if key else ()
    return ("import-bulk", place, "--source", "other", *header, *more, "--report", "json")


def saved(folder: Path, base: str, key: dict[str, str]) -> Path:
    """The files of an export in a folder, as a download tool leaves them."""
    source = bulk_source.Server(kicked_off(base, key), key, lambda _: None)
    told = source.manifest()
    folder.mkdir()
    for entry in told["output"]:
        content = b"".join(line + b"\n" for line in source.lines(entry["url"]))
        (folder / entry["url"].rpartition("/")[2]).write_bytes(content)
    (folder / "manifest.json").write_bytes(dumps(told))
    return folder / "manifest.json"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    run("import", env=ledger(folder / "there.db"), stdin=b"\n".join(history()))
    with serving(folder / "there.db") as (base, key):
        return saved(folder / "files", base, key)


# --- the same events ------------------------------------------------------------------------------------


def test_what_a_service_exports_over_http_another_takes_in_as_it_was(tmp_path: Path) -> None:
    there, here = ledger(tmp_path / "there.db"), ledger(tmp_path / "here.db")
    run("import", env=there, stdin=b"\n".join(history()))
    with serving(tmp_path / "there.db") as (base, key):
        dry = run(*command(kicked_off(base, key), key, "--dry-run"), env=here)
        assert (report_of(dry)["counts"]["accepted"], exported(here)) == (len(history()), [])
        first = report_of(run(*command(kicked_off(base, key), key), env=here))
        assert first["counts"]["accepted"] == len(history()) and first["status"] == DONE
        assert exported(here) == exported(there) == sorted(history())
        again = report_of(run(*command(kicked_off(base, key), key), env=here))
        assert again["counts"]["replayed"] == len(history()) and "accepted" not in again["counts"]

        gone = next(e for e in map(loads, history()) if e["type"] == "refill")
        run("import", env=there, stdin=dumps({**gone, "version": 2, "status": "entered-in-error"}))
        last = run(*command(kicked_off(base, key, _since="2020-01-01T00:00:00Z"), key), env=here)
        (item,) = [i for i in report_of(last)["items"] if i["outcome"] == "deleted_there"]
        assert report_of(last)["counts"]["deleted_there"] == 1
        assert f"{item['id']}: deleted there; nothing was retracted here" in last.stderr
        assert exported(here) == sorted(history())
    assert audited(here, f"other: {item['id']}") == ["deleted there"]


def audited(env: dict[str, str], subject: str) -> list[str]:
    from service.store import audit
    from service.store.engine import Store

    store = Store(env["ITB_DATABASE_URL"])
    with store.read() as c:
        found = [row.action for row in audit.of(c, 1, subject)]
    store.close()
    return found


def test_what_hapi_holds_comes_back_as_it_was(tmp_path: Path, hapi: str) -> None:
    """Delivered to a real HAPI, read out of it type by type as NDJSON, and taken in elsewhere."""
    there, here = ledger(tmp_path / "there.db"), ledger(tmp_path / "here.db")
    name = f"bulk-{uuid.uuid4().hex[:8]}"
    patient = {"system": "http://hospital.invalid/mrn", "value": name}
    sent = []
    for raw in map(loads, STORIES[0].read_bytes().splitlines()):
        own = {field: name for field in ("pump", "serial", "parent") if field in raw}
        sent.append(load_event({**raw, "source": name, "patient": patient, **own}))
    run("import", env=there, stdin=b"\n".join(map(dumps, sent)))
    run("endpoints", "add", "hapi", hapi, "--create-missing-patients", "--backfill", env=there)
    assert run("sync", env=there).exit_code == DONE
    token = f"{patient['system']}|{name}"
    output = []
    for type in ("Patient", *EVENTS_OF):
        by = "identifier" if type == "Patient" else "patient.identifier"
        if type in ("Provenance",):
            continue
        query = {("patient:Patient.identifier" if by != "identifier" else by): token, "_count": "500"}
        answer = requests.get(f"{hapi}/{type}", query, headers={"Cache-Control": "no-cache"}, timeout=60)
        held = [entry["resource"] for entry in loads(answer.content).get("entry", [])]
        if answer.status_code == 200 and held:
            (tmp_path / f"{type}.ndjson").write_bytes(b"\n".join(map(dumps, held)))
            output.append({"type": type, "url": f"{hapi}/files/{type}.ndjson"})
    assert {"Patient", "Device", "Procedure", "MedicationRequest"} <= {entry["type"] for entry in output}
    manifest = {"transactionTime": "2026-01-01T00:00:00Z", "output": output}
    (tmp_path / "manifest.json").write_bytes(dumps(manifest))
    done = run(*command(tmp_path / "manifest.json"), env=here)
    assert report_of(done)["counts"].get("accepted") == len(sent), done.stderr
    assert exported(here) == sorted(map(dumps, sent))


def test_what_others_say_anew_is_the_next_version(tmp_path: Path, files: Path) -> None:
    here, folder = ledger(tmp_path / "here.db"), tmp_path / "foreign"
    folder.mkdir()
    line = next((files.parent / "MedicationAdministration.1.ndjson").open("rb"))
    foreign = loads(line)
    foreign["identifier"] = [{"system": "http://ehr.invalid/id", "value": "A-77"}]
    foreign["note"] = [{"text": "first"}]
    manifest = {"transactionTime": "2026-01-01T00:00:00Z", "output": [{"type": "X", "url": "x.ndjson"}]}
    (folder / "manifest.json").write_bytes(dumps(manifest))
    for text, outcome in (
        ("first", "accepted"),
        ("second", "corrected"),
        ("second", "replayed"),
        ("first", "replayed"),
    ):
        foreign["note"] = [{"text": text}]
        (folder / "x.ndjson").write_bytes(dumps(foreign))
        counts = report_of(run(*command(folder / "manifest.json"), env=here))["counts"]
        assert counts == {"resources": 1, outcome: 1}


def test_a_line_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path: Path, files: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in files.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    target = folder / "MedicationAdministration.1.ndjson"
    lines = target.read_bytes().splitlines()
    refill = next(n for n, line in enumerate(lines) if b"pump-reservoir" in line)
    lines[refill] = lines[refill].replace(b'"status":"completed"', b'"status":"on-hold"')
    target.write_bytes(b"\n".join([b"{", b"[]", b'{"resourceType":"Device"}', *lines]))
    done = run(*command(folder / "manifest.json"), env=ledger(tmp_path / "here.db"))
    told = report_of(done)
    assert (done.exit_code, told["counts"]["refused"], told["counts"]["rejected"]) == (REFUSED, 3, 1)
    assert [i["line"] for i in told["items"] if i["outcome"] == "refused"] == [1, 2, 3]
    assert told["counts"]["accepted"] == len(history()) - 1


# --- what is not done -----------------------------------------------------------------------------------


class Elsewhere:
    """A server that must not be asked; it keeps what it was sent."""

    def __init__(self) -> None:
        self.asked: list[str] = []

        def app(environ: Json, start: Callable[..., Any]) -> list[bytes]:
            self.asked.append(environ.get("HTTP_AUTHORIZATION", ""))
            start("200 OK", [("Content-Type", "application/fhir+ndjson")])
            return [b""]

        self._server = make_server("127.0.0.1", 0, app)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()


@contextmanager
def answering(content: bytes, status: str = "200 OK", **headers: str) -> Iterator[str]:
    def app(environ: Json, start: Callable[..., Any]) -> list[bytes]:
        start(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
        return [content]

    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/manifest"
    server.shutdown()
    thread.join()


def secret_goes_elsewhere(env: dict[str, str]) -> tuple[int, list[str]]:
    elsewhere = Elsewhere()
    told = {
        "transactionTime": "2026-01-01T00:00:00Z",
        "output": [{"type": "Device", "url": f"{elsewhere.url}/x"}],
    }
    try:
        with answering(dumps(told)) as url:
            done = run(*command(url, {"Authorization": "Bearer secret"}), env=env)
    finally:
        elsewhere.stop()
    return done.exit_code, elsewhere.asked


def test_a_secret_goes_to_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret_goes_elsewhere(ledger(tmp_path / "here.db")) == (STOPPED, [])
    # The seeded bug: without the check, the secret is sent.
    monkeypatch.setattr(bulk_source, "urlsplit", lambda url: ("http", "same", "/x", "", ""))
    assert secret_goes_elsewhere(ledger(tmp_path / "here.db"))[1] == ["Bearer secret"]


@pytest.mark.parametrize(
    ("content", "status", "wanted"),
    [
        (b"{", "200 OK", STOPPED),
        (b'{"resourceType":"OperationOutcome"}', "200 OK", STOPPED),
        (b'{"transactionTime":"2026-01-01T00:00:00Z","output":{}}', "200 OK", STOPPED),
        (b"", "302 Found", STOPPED),
        (b"", "404 Not Found", STOPPED),
    ],
)
def test_what_is_no_manifest_stops_it(tmp_path: Path, content: bytes, status: str, wanted: int) -> None:
    with answering(content, status, Location="http://127.0.0.1:9/") as url:
        assert run(*command(url), env=ledger(tmp_path / "here.db")).exit_code == wanted


def test_a_server_or_file_that_is_not_there(tmp_path: Path) -> None:
    env = ledger(tmp_path / "here.db")
    assert run(*command("http://127.0.0.1:9/manifest"), env=env).exit_code == UNREACHABLE
    assert run(*command(tmp_path / "none.json"), env=env).exit_code == STOPPED
    told = {"transactionTime": "2026-01-01T00:00:00Z", "output": [{"type": "X", "url": "../../etc/passwd"}]}
    (tmp_path / "manifest.json").write_bytes(dumps(told))
    assert run(*command(tmp_path / "manifest.json"), env=env).exit_code == STOPPED


# --- kill, and go on ------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


def after_kills(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Json, list[bytes], int]:
    """The report, the ledger and the number of lines read, of an import that is killed again and again."""
    env, job = ledger(tmp_path / "here.db"), tmp_path / "job.ck"
    monkeypatch.setattr("service.intake.PER_TRANSACTION", 3)
    read = 0
    longest = max(len(f.read_bytes().splitlines()) for f in files.parent.glob("*.ndjson"))
    fetched, taken = [0], [0]
    real_lines, real_done = bulk_source.Folder.lines, Spool.set_done

    def dying(left: list[int]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def lines(self: Any, url: str) -> Iterator[bytes]:
        nonlocal read
        for line in real_lines(self, url):
            dying(fetched)
            read += 1
            yield line

    def done(self: Any, patient: str) -> None:
        dying(taken)
        real_done(self, patient)

    monkeypatch.setattr(bulk_source.Folder, "lines", lines)
    monkeypatch.setattr(Spool, "set_done", done)
    kills = 0
    while True:
        fetched[0], taken[0] = longest + 5, 2
        try:
            ended = run(*command(files, None, "--checkpoint", job), env=env)
            break
        except Killed:
            kills += 1
            assert kills < 60, "it does not get on"
    assert kills > 4 and not job.exists()
    return report_of(ended), exported(env), read


def test_a_killed_import_goes_on(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, held, read = after_kills(tmp_path, files, monkeypatch)
    lines = sum(len(f.read_bytes().splitlines()) for f in files.parent.glob("*.ndjson"))
    assert held == sorted(history()) and told["counts"]["resources"] == lines
    assert lines <= read < 2 * lines


def test_a_file_taken_for_whole_would_be_noticed(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Any, url: str, found: Any) -> tuple[int, int]:
        self._c.execute("INSERT OR IGNORE INTO files VALUES (?, 0, 0)", (url,))
        for one in found:
            self._c.execute("INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?)", one)
        return 0, 0

    monkeypatch.setattr(Spool, "add", add)
    with pytest.raises(AssertionError):
        test_a_killed_import_goes_on(tmp_path, files, monkeypatch)


def test_a_checkpoint_of_another_manifest_is_noticed(tmp_path: Path, files: Path) -> None:
    job = tmp_path / "job.ck"
    spool = Spool(job)
    assert spool.belongs_to("another")
    spool.close()
    assert (job.stat().st_mode & 0o777) == 0o600
    env = ledger(tmp_path / "here.db")
    assert run(*command(files, None, "--checkpoint", job), env=env).exit_code == STOPPED
    job.write_bytes(b"not a spool" * 100)
    assert run(*command(files, None, "--checkpoint", job), env=env).exit_code == STOPPED
