"""Power loss by proxy (R3): the WAL is on the disk before the answer is on the wire, as the kernel saw it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mappings.exact_json import dumps
from samples import REFILL
from service.server import free_port

ACKS = 1000
CALLS = "openat,close,fdatasync,fsync,write,writev,sendto,sendmsg"

SERVE = """
import os
from werkzeug.serving import run_simple
from service.app import create_app, utc_now
from service.settings import from_environment
run_simple("127.0.0.1", {port}, create_app(from_environment(os.environ), utc_now), threaded=True)
"""

FORGETFUL = """
from service.store import engine
right = engine._sqlite_connect
def wrong(connection, record):
    right(connection, record)
    connection.execute("PRAGMA synchronous={}")
engine._sqlite_connect = wrong
engine.Store._check_durable = lambda self: None
"""


@contextlib.contextmanager
def traced(folder: Path, before: str = "") -> Iterator[tuple[str, Path]]:
    """The service under strace: its URL, and the trace, complete when the block has ended."""
    port, trace = free_port("127.0.0.1"), folder / "trace"
    program = f"{before}\n{SERVE.format(port=port)}"
    env = os.environ | {"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db", "ITB_REQUIRE_KEY": "false"}
    env |= {"ITB_LOG_LEVEL": "error", "ITB_MIN_FREE_BYTES": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        "strace",
        "-f",
        "-y",
        "-e",
        f"trace={CALLS}",
        "-e",
        "signal=none",
        "-s",
        "24",
        "-o",
        str(trace),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, sys.executable, "-c", program], env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process, folder / "log")
        yield url, trace
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def send(url: str, number: int) -> None:
    with requests.Session() as session:
        for n in range(number):
            body = dumps(REFILL | {"id": f"R-{n}"})
            headers = {"Content-Type": "application/json"}
            assert (
                session.post(f"{url}/api/v1/events", data=body, headers=headers, timeout=30).status_code
                == 201
            )


def unsynced(trace: Path) -> tuple[int, int]:
    """How many answers 201 there were, and how many of them before a sync of the WAL had returned."""
    answers = early = 0
    is_synced = False
    for line in trace.read_text(errors="replace").splitlines():
        if line.endswith("= 0") and ("sync resumed" in line or ("sync(" in line and "itb.db-wal" in line)):
            is_synced = True
        elif "HTTP/1.1 201" in line or "HTTP/1.0 201" in line:
            answers += 1
            early += not is_synced
            is_synced = False
    return answers, early


def test_an_answer_leaves_only_after_the_disk_has_it(tmp_path: Path) -> None:
    with traced(tmp_path) as (url, trace):
        send(url, ACKS)
    assert unsynced(trace) == (ACKS, 0)


@pytest.mark.parametrize("mode", ["OFF", "NORMAL"])
def test_the_trace_catches_a_database_that_does_not_wait(tmp_path: Path, mode: str) -> None:
    with traced(tmp_path, FORGETFUL.format(mode)) as (url, trace):
        send(url, 40)
    answers, early = unsynced(trace)
    assert (answers, early > 30) == (40, True)
