"""Starts and stops the real HAPI FHIR R4 server of fixtures/hapi: for the demo, tests, `make hapi`."""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from mappings import ig

from . import guide

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "fixtures" / "hapi"
CLASSPATH = PROJECT / "target" / "classpath"
JAR = PROJECT / "target" / "hapi.jar"
ARCHIVE = PROJECT / "target" / "hapi.jsa"

READY = "ready "
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 15
LOG_TAIL = 15

JAVA = (
    "java",
    # A short life: the second compiler costs more than it gives, and one collector thread is enough.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # Of the JVM's own messages only errors, and none on standard output, which says when it is ready.
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
)


class HapiUnavailable(Exception):
    """HAPI could not be built or started; the message says what to do."""


@dataclass(frozen=True)
class HapiServer:
    """A running server. It ends with `stop`, or by itself when the process that started it is gone."""

    base_url: str
    process: subprocess.Popen[str]

    def stop(self) -> None:
        """End the server, the hard way when it does not end by itself. Twice is once."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_hapi(
    port: int = 0,
    *,
    db: str | Path | None = None,
    log_path: Path | None = None,
    search_cache_ms: int | None = None,
    allow_external_references: bool = False,
    jobs_every_ms: int | None = None,
    load_guide: bool = True,
    memory: str = "2g",
) -> HapiServer:
    """Build the server where that is due, start it on loopback, wait until it answers.

    With `load_guide` it has loaded our implementation guide (mappings/ig), and so knows the profiles that our
    resources claim. `port` 0 takes a free one. `db` is the path of an H2 file or a JDBC URL of H2; None keeps
    it in memory. `search_cache_ms` None answers every search anew (HAPI's own default is 60000).
    `memory` is the most that its heap takes, as Java writes it: all its records are there without a `db`.
    `jobs_every_ms` None goes on with jobs once a minute, as HAPI does: a bulk export then takes minutes.
    Raises `HapiUnavailable`.
    """
    build_hapi()
    options: dict[str, object] = {
        "port": port,
        "allowExternalReferences": allow_external_references,
        "exitWithParent": True,
    }
    if db is not None:
        options["db"] = db if isinstance(db, str) else db.resolve()
    if load_guide:
        options["igPackage"] = _guide()
    if search_cache_ms is not None:
        options["searchCacheMillis"] = search_cache_ms
    if jobs_every_ms is not None:
        options["jobsEveryMillis"] = jobs_every_ms
    log = log_path.open("a+") if log_path else tempfile.TemporaryFile("a+")  # noqa: SIM115 (outlives this)
    with log:
        process = subprocess.Popen(
            _command(memory, options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Ctrl-C in a terminal reaches the starter alone, which then stops the server in its own order.
            start_new_session=True,
        )
        server = HapiServer("", process)
        try:
            return HapiServer(_wait_until_ready(process, log), process)
        except BaseException:
            server.stop()
            raise


@contextmanager
def hapi_at(url: str | None, *, memory: str = "2g") -> Iterator[tuple[str, int | None]]:
    """(base URL, process) of what runs at `url`, its process not known; else of one that runs for as long."""
    if url is not None:
        yield url, None
        return
    server = start_hapi(memory=memory)
    try:
        yield server.base_url, server.process.pid
    finally:
        server.stop()


def _guide() -> Path:
    """The guide as this code says it, written where the server's build is; replaced whole."""
    content = ig.package(guide.definitions())
    target = PROJECT / "target" / f"itb-fhir-{hashlib.sha256(content).hexdigest()[:12]}.tgz"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.replace(target)
    return target


def build_hapi() -> None:
    """`make hapi-build`: does nothing when the build is up to date, and names a missing prerequisite."""
    if not PROJECT.is_dir():
        raise HapiUnavailable("fixtures/hapi is not here: HAPI is started from a checkout of the project")
    make = ["make", "--silent", "--directory", str(ROOT), "hapi-build"]
    try:
        done = subprocess.run(make, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError:
        raise HapiUnavailable("missing: make; on Debian: sudo apt-get install make") from None
    if done.returncode:
        raise HapiUnavailable(f"HAPI could not be built: {done.stderr.strip()}")


def _command(memory: str, options: dict[str, object]) -> list[str]:
    properties = [f"-Dhapi.{name}={_text(value)}" for name, value in options.items()]
    archive = [f"-XX:SharedArchiveFile={ARCHIVE}"] if ARCHIVE.exists() else []
    classpath = f"{JAR}:{CLASSPATH.read_text().strip()}"
    java = [*JAVA, f"-Xmx{memory}", *archive, *properties]
    return [*java, "-classpath", classpath, "itb.fixtures.hapi.HapiServer"]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wait_until_ready(process: subprocess.Popen[str], log: IO[str]) -> str:
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(process, lines), daemon=True, name="hapi-output").start()
    started = time.monotonic()
    while (waited := time.monotonic() - started) < START_TIMEOUT_S:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            _progress(f"HAPI is starting: {waited:.0f} s")
            continue
        if line is None:
            raise HapiUnavailable(f"HAPI ended before it was ready:\n{_tail(log)}")
        if line.startswith(READY):
            _progress("")
            return line.removeprefix(READY).strip()
    raise HapiUnavailable(f"HAPI was not ready after {START_TIMEOUT_S} s:\n{_tail(log)}")


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    # It reads to the end: a server whose pipe is full would stand still.
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-LOG_TAIL:]).rstrip()


@click.command()
@click.option("--port", default=0, help="0 takes a free port.")
@click.option("--db", help="Path of an H2 file that keeps the content; without it the content is in memory.")
@click.option("--search-cache-ms", type=int, help="How long HAPI may answer a search from an old result.")
@click.option("--no-guide", is_flag=True, help="Do not load the ITB implementation guide.")
@click.option("--allow-external-references", is_flag=True, help="Store references to other servers.")
def main(
    port: int,
    db: str | None,
    search_cache_ms: int | None,
    no_guide: bool,
    allow_external_references: bool,
) -> None:
    """Start a real HAPI FHIR R4 server on loopback; Ctrl-C stops it."""
    # As after Ctrl-C: the server is stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server = start_hapi(
            port,
            db=db if db is None or db.startswith("jdbc:") else Path(db),
            search_cache_ms=search_cache_ms,
            allow_external_references=allow_external_references,
            load_guide=not no_guide,
        )
    except HapiUnavailable as reason:
        raise click.ClickException(str(reason)) from None
    except KeyboardInterrupt:
        return
    click.echo(f"HAPI FHIR R4: {server.base_url} (Ctrl-C stops it)")
    try:
        server.process.wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
