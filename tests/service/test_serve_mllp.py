"""`itb serve` with ITB_MLLP_LISTEN: one process takes HL7 v2, shows it over HTTP, knows it after a kill."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mappings.exact_json import dumps, loads
from mappings.hl7v2 import parse
from service.mllp.client import MllpClient
from service.server import free_port
from service.sync.ehr import Ambiguous, Unreachable
from site_of_mllp import SENDERS, connect, interrogation, message, within

ITB = [sys.executable, "-m", "service.cli"]


class Served:
    """`itb serve` on a ledger of its own, with both ports."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "senders.toml").write_text(SENDERS)
        self.http, self.mllp = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.env = os.environ | {
            "ITB_DATABASE_URL": url,
            "ITB_REQUIRE_KEY": "false",
            "ITB_MLLP_LISTEN": f"127.0.0.1:{self.mllp}",
            "ITB_MLLP_SENDERS": str(folder / "senders.toml"),
            "ITB_LOG_LEVEL": "error",
        }
        self.start()

    def start(self) -> None:
        command = [*ITB, "serve", "--port", str(self.http)]
        # A group of its own, so that a kill takes the web server's worker process along.
        self.process = subprocess.Popen(command, env=self.env, start_new_session=True)
        until(lambda: self.get("/readyz") is not None)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path: str) -> Any:
        try:
            answer = requests.get(f"http://127.0.0.1:{self.http}{path}", timeout=5)
        except requests.RequestException:
            return None
        return answer.content if answer.status_code == 200 else None

    def exchange(self, sent: bytes) -> bytes:
        async def talk() -> bytes:
            return await (await connect(self.mllp)).exchange(sent)

        return bytes(within(20, talk()))


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[Served]:
    made = Served(tmp_path, database_url)
    yield made
    made.kill()


def test_a_message_is_shown_over_http_and_known_again_after_a_kill(served: Served) -> None:
    event = interrogation(1, 1)
    first = served.exchange(message(event))
    assert parse(first).field("MSA", 1) == "AA"
    served.kill()
    served.start()
    (stored,) = loads(served.get("/api/v1/events"))["events"]
    assert dumps(stored) == dumps(event)
    (kept,) = loads(served.get("/api/v1/messages"))["messages"]
    assert (kept["status"], kept["sender"]) == ("taken", "engine-a")
    assert served.exchange(message(event)) == first
    assert b'itb_mllp_messages_total{outcome="repeated"} 1.0' in served.get("/metrics")
    client = MllpClient("127.0.0.1", served.mllp)
    assert client.exchange(parse(message(interrogation(1, 2)))).is_good
    client.close()
    assert len(loads(served.get("/api/v1/events"))["events"]) == 2


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The web server's worker processes."""
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_without_a_file_descriptor_left_nothing_acknowledged_is_lost_and_it_recovers(served: Served) -> None:
    """A crowd takes every descriptor that the process may open; when it has left, all goes on as before."""
    acknowledged = [interrogation(1, 1)]
    assert parse(served.exchange(message(acknowledged[0]))).field("MSA", 1) == "AA"
    for pid in workers_of(served.process):
        most = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 8
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    crowd = []
    for n in range(60):
        one = socket.socket()
        one.settimeout(0.5)
        one.connect(("127.0.0.1", (served.http, served.mllp)[n % 2]))
        crowd.append(one)
    time.sleep(0.5)
    assert any(len(os.listdir(f"/proc/{pid}/fd")) >= most - 2 for pid in workers_of(served.process))
    refused = 0
    for n in range(2, 8):
        client = MllpClient("127.0.0.1", served.mllp, timeout_s=1)
        try:
            good = client.exchange(parse(message(interrogation(1, n)))).is_good
        except (Unreachable, Ambiguous):
            good = False
        finally:
            client.close()
        refused += not good
        acknowledged += [interrogation(1, n)] if good else []
    assert refused, "the crowd took nothing away"
    for one in crowd:
        one.close()
    until(lambda: served.get("/readyz") is not None)
    client = MllpClient("127.0.0.1", served.mllp)
    for n in range(2, 8):
        assert client.exchange(parse(message(interrogation(1, n)))).is_good
    client.close()
    stored = sorted(dumps(e) for e in loads(served.get("/api/v1/events"))["events"])
    assert stored == sorted(dumps(interrogation(1, n)) for n in range(1, 8))
