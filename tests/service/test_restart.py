"""The real service, killed in mid-sync against a real HAPI and started again: none lost, none doubled.

And told to end while clients hang in the middle of a request.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from mappings import identity, load_event
from mappings.exact_json import dumps, loads
from mappings.stream import Converter
from service.server import free_port

STORYLINE = Path(__file__).resolve().parents[2] / "fixtures" / "storyline" / "girl-9y.ndjson"
ITB = [sys.executable, "-m", "service.cli"]
FRESH = {"Cache-Control": "no-cache"}


class Site:
    """`itb serve` on a ledger of its own; `kill` is SIGKILL, `start` may be called again."""

    def __init__(self, folder: Path) -> None:
        self.env = os.environ | {"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db"}
        self.port = free_port("127.0.0.1")
        self.key = self.itb("keys", "add", "test").strip()
        self.process: subprocess.Popen[bytes] | None = None

    def itb(self, *arguments: str) -> str:
        done = subprocess.run([*ITB, *arguments], env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        command = [*ITB, "serve", "--port", str(self.port)]
        # A group of its own, so that a kill takes the web server's worker process along.
        self.process = subprocess.Popen(command, env=self.env, start_new_session=True)
        wait_for(lambda: self.answers("/readyz"))

    def answers(self, path: str) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = requests.request(method, url, headers=headers, timeout=30)
        assert answer.status_code < 300, answer.text
        return loads(answer.content)

    def send(self, events: list[Any]) -> bytes:
        """The NDJSON answer to the events sent as NDJSON."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/x-ndjson"}
        url = f"http://127.0.0.1:{self.port}/api/v1/events"
        body = b"\n".join(dumps(event) for event in events)
        answer = requests.post(url, data=body, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.content

    def waiting(self) -> int:
        return len(self.call("GET", "/api/v1/deliveries?status=pending")["deliveries"])


def wait_for(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def held(hapi: str, type: str, system: str, value: str) -> list[Any]:
    """What HAPI holds under an identity of ours."""
    if type == "Provenance":
        answer = requests.get(f"{hapi}/Provenance/{value}", headers=FRESH, timeout=30)
        return [loads(answer.content)] if answer.status_code == 200 else []
    url = f"{hapi}/{type}?identifier={identity.token(system, value)}"
    found = loads(requests.get(url, headers=FRESH, timeout=30).content)
    return [entry["resource"] for entry in found.get("entry", [])]


def check_once_each(hapi: str, events: list[Any]) -> None:
    """Each identity once in HAPI, saying what the whole history says; exactly one segment runs."""
    converter = Converter()
    last: dict[tuple[str, str, str], Any] = {}
    for event in events:
        for entry in converter.to_fhir(event)["entry"]:
            resource = entry["resource"]
            last[resource["resourceType"], *identity.resource_identity(resource)] = resource
    for (type, system, value), wanted in last.items():
        found = held(hapi, type, system, value)
        assert len(found) == 1, f"{len(found)} of {system}|{value}"
        if type != "Provenance":  # its `recorded` is the ledger's
            assert identity.content_hash(found[0]) == identity.content_hash(wanted), f"{type} {value}"
    for type, system, value in last:
        (resource,) = held(hapi, type, system, value)
        closed = resource.get("status") in ("stopped", "completed") and system.endswith(
            ("/program", "/segment")
        )
        assert resource["meta"]["versionId"] == ("2" if closed else "1"), f"{type} {value} was written again"


@pytest.mark.parametrize("after_s", [0.15, 0.6, 1.5])
def test_a_kill_in_mid_sync_loses_and_doubles_nothing(after_s: float, hapi: str, tmp_path: Path) -> None:
    name = f"kill-{uuid.uuid4().hex[:8]}"
    events = []
    for line in STORYLINE.read_bytes().splitlines():
        event = loads(line) | {
            "source": name,
            "patient": {"system": "http://hospital.invalid/mrn", "value": name},
        }
        for field in ("pump", "serial", "parent"):
            if field in event:
                event[field] = f"{event[field]}-{name}"
        events.append(load_event(event))
    body = {"resourceType": "Patient", "identifier": [events[0]["patient"]]}
    requests.post(f"{hapi}/Patient", json=body, timeout=30).raise_for_status()
    site = Site(tmp_path)
    site.itb("endpoints", "add", "hapi", hapi, "--poll-seconds", "1")
    site.start()
    try:
        assert site.send(events).count(b'"accepted"') == len(events)
        time.sleep(after_s)
        site.kill()
        site.start()
        wait_for(lambda: not site.waiting())
        for status in ("failed", "parked"):
            assert site.call("GET", f"/api/v1/deliveries?status={status}")["deliveries"] == []
        time.sleep(2)  # two polls: our own writes must not come back as changes
        stored = site.call("GET", "/api/v1/events?limit=1000")["events"]
        # Other tests write to the same HAPI meanwhile; what they write is read in as the EHR's own.
        assert [dumps(e) for e in stored if name in dumps(e).decode()] == [dumps(e) for e in events]
        check_once_each(hapi, events)
    finally:
        site.kill()


HANGING = 6
"""More than `itb serve` has threads for requests."""


def hang(site: Site) -> socket.socket:
    """A client whose request stops in the middle of its body."""
    client = socket.create_connection(("127.0.0.1", site.port), timeout=30)
    client.sendall(
        b"POST /api/v1/events HTTP/1.1\r\nHost: itb\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + site.key.encode() + b"\r\nContent-Length: 1000\r\n\r\n{"
    )
    return client


def test_told_to_end_it_ends_though_clients_hang(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.start()
    assert site.process is not None
    clients = [hang(site) for _ in range(HANGING)]
    time.sleep(0.5)  # their requests have begun
    try:
        site.process.terminate()
        assert site.process.wait(30) == 0
        site.start()
    finally:
        for client in clients:
            client.close()
        site.kill()
