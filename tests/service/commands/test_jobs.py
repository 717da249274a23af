"""Long commands as jobs: how they end, what they report, and that a killed one goes on where it was."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import golden
from mappings.exact_json import dumps, loads
from samples import PUMP, REFILL
from service import cli, conversion
from service.commands import checkpoint, convert
from service.commands.exits import BUSY, DONE, EXITS, REFUSED, STOPPED, UNREACHABLE, USAGE
from service.synthetic import clinic

Json = Any
ITB = [sys.executable, "-m", "service.cli"]
STORIES = sorted(golden.FIXTURES.glob("storyline/*.ndjson"))
BAD = b'{"type":"refill"}'
NOBODY = "http://127.0.0.1:9/fhir"


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ITB_DATABASE_URL": f"sqlite:///{tmp_path}/itb.db"}


def run(*arguments: str | Path, env: dict[str, str] | None = None, stdin: bytes = b"") -> Any:
    done = CliRunner().invoke(cli.main, [str(a) for a in arguments], env=env, input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def report(done: Any) -> Json:
    return loads(done.output.splitlines()[-1].encode())


def stream() -> list[bytes]:
    """The stories one after the other, with lines that are refused: before, between and after."""
    lines = [line for path in STORIES for line in path.read_bytes().splitlines()]
    for at in (60, 33, 7):
        lines.insert(at, BAD)
    return lines


# --- how a job ends -------------------------------------------------------------------------------------


def test_each_status_is_what_the_table_says(tmp_path: Path, env: dict[str, str]) -> None:
    good, bad, job = tmp_path / "good.ndjson", tmp_path / "bad.ndjson", tmp_path / "job.ck"
    good.write_bytes(dumps(REFILL) + b"\n")
    bad.write_bytes(BAD + b"\n" + dumps(REFILL) + b"\n")
    broken = {"ITB_DATABASE_URL": "sqlite:////nowhere/itb.db"}
    seen = {}
    for status, done in (
        (DONE, run("import", good, "--report", "json", env=env)),
        (REFUSED, run("import", bad, "--report", "json", env=env)),
        (USAGE, run("import", good, "--report", "xml", env=env)),
        (UNREACHABLE, run("import", good, "--report", "json", env=broken)),
        (STOPPED, run("export", tmp_path / "no" / "folder", "--report", "json", env=env)),
    ):
        assert done.exit_code == status, done.output
        if status != USAGE:
            said = report(done) if status in (DONE, REFUSED) else loads(done.stdout.splitlines()[-1].encode())
            assert (said["status"], said["meaning"]) == (status, EXITS[status].word)
            assert (said["message"] is None) == (status in (DONE, REFUSED))
        seen[status] = done
    with Path(f"{job}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("import", good, "--checkpoint", job, "--report", "json", env=env)
    assert done.exit_code == BUSY and report_of(done)["meaning"] == "busy"
    assert {*seen, BUSY, 130} == set(EXITS)


def report_of(done: Any) -> Json:
    return loads(done.stdout.splitlines()[-1].encode())


def test_an_ehr_that_is_not_there_is_3_and_a_dry_run_calls_nobody(
    env: dict[str, str],
) -> None:
    run("endpoints", "add", "ehr", NOBODY, env=env)
    run("import", env=env, stdin=dumps(PUMP))
    done = run("sync", "--dry-run", "--report", "json", env=env)
    assert (done.exit_code, report_of(done)["counts"]) == (DONE, {"pending": 1})
    done = run("sync", "--report", "json", env=env)
    said = report_of(done)
    assert (done.exit_code, said["status"], said["items"][0]["endpoint"]) == (UNREACHABLE, UNREACHABLE, "ehr")


def test_ctrl_c_says_so(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(conversion, "to_fhir", interrupted)
    done = run("convert", "to-fhir", "--report", "json", stdin=BAD)
    assert (done.exit_code, report(done)["meaning"]) == (130, "interrupted")


def test_a_report_names_what_was_refused_and_leaves_the_data_alone(env: dict[str, str]) -> None:
    lines = stream()
    plain = run("convert", "to-fhir", stdin=b"\n".join(lines))
    done = run("convert", "to-fhir", "--report", "json", stdin=b"\n".join(lines))
    assert (done.exit_code, done.stdout_bytes) == (REFUSED, plain.stdout_bytes)
    said = loads(done.stderr.splitlines()[-1].encode())
    assert said["counts"]["refused"] == 3 and said["lines"] == len(lines)
    assert [item["line"] for item in said["items"]] == [n for n, line in enumerate(lines, 1) if line == BAD]
    assert {issue["rule"] for item in said["items"] for issue in item["issues"]} == {"required"}


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_dry_run_says_what_the_run_then_does_and_keeps_nothing(tmp_path: Path, database_url: str) -> None:
    env = {"ITB_DATABASE_URL": database_url}
    file = tmp_path / "in.ndjson"
    other = {"system": "http://hospital.invalid/mrn", "value": "another"}
    odd = [PUMP, REFILL, REFILL, REFILL | {"note": "x"}, REFILL | {"note": "y", "version": 2}]
    odd += [REFILL | {"id": "R-2", "patient": other}, REFILL | {"id": "R-3"}]
    file.write_bytes(b"\n".join([*map(dumps, odd), BAD, *stream()]))
    before = report(run("import", file, "--dry-run", "--report", "json", env=env))
    assert run("export", env=env).stdout == ""
    real = report(run("import", file, "--report", "json", env=env))
    assert before["counts"] == real["counts"] and len(before["items"]) == sum(real["counts"].values())
    assert before["counts"].keys() == {"accepted", "replayed", "corrected", "conflict", "rejected"}
    told = [i for i in before["items"] if i["outcome"] in ("rejected", "conflict")]
    assert told == real["items"]
    assert run("verify", env=env).exit_code == DONE


# --- kill, and go on ------------------------------------------------------------------------------------


class Disk:
    """What of the output a power cut leaves: no more than was synced."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.safe = path, 0
        real = os.fsync

        def fsync(fd: int) -> None:
            real(fd)
            if path.exists() and os.fstat(fd).st_ino == path.stat().st_ino:
                self.safe = os.fstat(fd).st_size

        monkeypatch.setattr(os, "fsync", fsync)

    def cut(self) -> None:
        """Lose what was not synced; then half of the next line may be there all the same."""
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(min(self.safe, self.path.stat().st_size))
                file.seek(0, 2)
                file.write(b'{"half of a li')


def killed_at(line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next conversion ends when it has converted `line` lines."""
    real = conversion.line_to_fhir

    def dying(converter: Any, number: int, text: bytes) -> Any:
        if number == line:
            monkeypatch.setattr(conversion, "line_to_fhir", real)
            raise Killed
        return real(converter, number, text)

    monkeypatch.setattr(conversion, "line_to_fhir", dying)


def converted_with_kills(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes, Json]:
    """What a conversion leaves that is killed again and again: status, output, report."""
    file, out, job = folder / "in.ndjson", folder / "out.ndjson", folder / "job.ck"
    file.write_bytes(b"\n".join(stream()))
    disk = Disk(out, monkeypatch)
    arguments = ("convert", "to-fhir", file, "--out", out, "--checkpoint", job, "--report", "json")
    for line in range(4, len(stream()), 9):
        killed_at(line, monkeypatch)
        with pytest.raises(Killed):
            run(*arguments)
        disk.cut()
    done = run(*arguments)
    return done.exit_code, out.read_bytes(), report_of(done)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 5)


def whole() -> bytes:
    return run("convert", "to-fhir", stdin=b"\n".join(stream())).stdout_bytes


def test_a_conversion_killed_at_every_place_writes_what_one_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: None
) -> None:
    status, out, said = converted_with_kills(tmp_path, monkeypatch)
    assert out == whole()
    assert (status, said["counts"]["refused"], said["counts"]["converted"]) == (REFUSED, 3, len(stream()) - 3)


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "the output is not cut back": (
        checkpoint.Output,
        "__init__",
        lambda self, path, mark: self.__dict__.update(path=path, _file=path.open("ab")),
    ),
    "the checkpoint is written before the output is on the disk": (
        checkpoint.Output,
        "settle",
        lambda self: self._file.tell(),
    ),
    "nothing is learned from the lines before": (conversion, "teaches", lambda line: False),
    "what was refused before is forgotten": (
        checkpoint,
        "load",
        lambda path, job, real=checkpoint.load: checkpoint.Mark(
            **{**{n: getattr(real(path, job), n) for n in ("line", "digest", "outputs")}, "counts": {}}
        ),
    ),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_seeded_bug_is_noticed(
    bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: None
) -> None:
    wanted = whole()
    monkeypatch.setattr(*MUTANTS[bug])
    try:
        status, out, said = converted_with_kills(tmp_path, monkeypatch)
    except (pytest.fail.Exception, AssertionError):
        return
    good = len(stream()) - 3
    assert (status, out, said["counts"].get("refused"), said["counts"].get("converted")) != (
        1,
        wanted,
        3,
        good,
    )


def test_a_killed_process_goes_on_as_two(tmp_path: Path) -> None:
    """SIGKILL of the real process, when it tells of a bad line that stands behind the first checkpoint."""
    events = [dumps(event) for event in clinic(36, 3, 5)]
    file, out, job = tmp_path / "in.ndjson", tmp_path / "out.ndjson", tmp_path / "job.ck"
    events.insert(checkpoint.EVERY + 500, BAD)
    assert len(events) > checkpoint.EVERY + 600
    file.write_bytes(b"\n".join(events))
    files = [str(file), "--out", str(out), "--checkpoint", str(job)]
    command = [*ITB, "convert", "to-fhir", *files]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None and process.stderr.readline().startswith(b"line 1501: ")
        os.killpg(process.pid, signal.SIGKILL)
    assert loads(job.read_bytes())["line"] == checkpoint.EVERY
    command += ["--jobs", "2"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == REFUSED
    assert loads(job.read_bytes())["line"] == len(events)
    assert out.read_bytes() == run("convert", "to-fhir", stdin=file.read_bytes()).stdout_bytes


@pytest.mark.usefixtures("often")
def test_an_import_killed_at_every_place_takes_each_event_once(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.commands import ledger_files

    real: Callable[[bytes], Any] = ledger_files.load_line
    monkeypatch.setattr("service.intake.PER_TRANSACTION", 4)
    file, job = tmp_path / "in.ndjson", tmp_path / "job.ck"
    file.write_bytes(b"\n".join(stream()))
    arguments = ("import", file, "--checkpoint", job, "--report", "json")
    for turn in range(1, 8):
        left = iter(range(turn + 2))

        def dying(line: bytes, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise Killed
            return real(line)

        monkeypatch.setattr(ledger_files, "load_line", dying)
        with pytest.raises(Killed):
            run(*arguments, env=env)
    monkeypatch.setattr(ledger_files, "load_line", real)
    done = run(*arguments, env=env)
    counts = report_of(done)["counts"]
    good = [line for line in stream() if line != BAD]
    assert (done.exit_code, run("export", env=env).stdout_bytes.splitlines()) == (REFUSED, good)
    assert counts["rejected"] == 3 and counts["accepted"] + counts.get("replayed", 0) == len(good)
    assert report_of(run(*arguments, env=env))["counts"] == counts


# --- what a checkpoint does not let pass ----------------------------------------------------------------


def test_a_checkpoint_notices_another_input_another_output_and_another_job(
    tmp_path: Path, often: None, env: dict[str, str]
) -> None:
    file, out, job = tmp_path / "in.ndjson", tmp_path / "out.ndjson", tmp_path / "job.ck"
    lines = stream()
    file.write_bytes(b"\n".join(lines) + b"\n")
    arguments = ("convert", "to-fhir", file, "--checkpoint", job, "--out")
    assert run(*arguments, out).exit_code == REFUSED
    done, saved = out.read_bytes(), job.read_bytes()

    file.write_bytes(b"\n".join([lines[0].replace(b'"source":"', b'"source":"x'), *lines[1:]]) + b"\n")
    assert (run(*arguments, out).exit_code, out.read_bytes(), job.read_bytes()) == (STOPPED, done, saved)
    file.write_bytes(b"\n".join(lines[:-3]) + b"\n")
    assert (run(*arguments, out).exit_code, out.read_bytes()) == (STOPPED, done)
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert run(*arguments, tmp_path / "other.ndjson").exit_code == STOPPED
    assert run("import", file, "--checkpoint", job, env=env).exit_code == STOPPED
    assert run("convert", "to-fhir", file, "--checkpoint", job).exit_code == USAGE
    out.write_bytes(done[:-1])
    assert run(*arguments, out).exit_code == STOPPED
    out.write_bytes(done)

    file.write_bytes(b"\n".join([*lines, dumps(REFILL)]) + b"\n")
    assert run(*arguments, out).exit_code == REFUSED
    assert (
        out.read_bytes().startswith(done) and len(out.read_bytes().splitlines()) == len(done.splitlines()) + 1
    )


def test_without_the_check_an_edited_input_would_pass(
    tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.Trail, "_check", lambda self: None)
    with pytest.raises(AssertionError):
        test_a_checkpoint_notices_another_input_another_output_and_another_job(tmp_path, None, {})


def test_an_export_goes_on_where_it_was(tmp_path: Path, env: dict[str, str]) -> None:
    out, job = tmp_path / "out.ndjson", tmp_path / "job.ck"
    run("import", STORIES[0], env=env)
    assert run("export", out, "--checkpoint", job, env=env).exit_code == DONE
    run("import", STORIES[1], env=env)
    assert run("export", out, "--checkpoint", job, env=env).exit_code == DONE
    assert out.read_bytes() == STORIES[0].read_bytes() + STORIES[1].read_bytes()
    assert out.read_bytes() == run("export", env=env).stdout_bytes


def test_what_convert_keeps_is_all_that_it_needs() -> None:
    """Every command that makes a long output or intake has the options of a job."""
    for command in (convert.to_fhir, convert.from_fhir):
        assert {"checkpoint", "report", "out"} <= {p.name for p in command.params}
    for name in ("import", "export"):
        assert {"checkpoint", "report"} <= {p.name for p in cli.main.commands[name].params}
