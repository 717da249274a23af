"""The sockets of the fake EHR: HTTP/1.1 on loopback, a thread a connection, one request at a time.

Beside FHIR: `GET /_fake` tells what was asked and what went wrong, `PUT /_fake/faults` takes another plan.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mappings import MappingError
from mappings.exact_json import loads

from .damage import Sending, answer, sending
from .faults import NO_FAULTS, Call, Fault, Plan, PlanError, draw, plan_of
from .personality import Personality, overridden
from .state import State
from .wire import Refusal, Request, Response, outcome, route

Clock = Callable[[], datetime]
BASE = "/fhir"
MOST_BYTES = 50_000_000


def utc_now() -> datetime:
    """The clock of a server that is started by hand."""
    return datetime.now(UTC)


class FakeEhr:
    """The server's state, its plan and its counts, behind one lock."""

    def __init__(self, personality: Personality, plan: Plan = NO_FAULTS, clock: Clock = utc_now) -> None:
        self.plan = plan
        self.state = State(overridden(personality, plan.server))
        self.calls: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._personality = personality
        self._clock = clock
        self._lock = threading.Lock()
        self._former: Response | None = None

    def now(self) -> datetime:
        """The server's time, wrong by the plan's `clock_skew_s`."""
        return self._clock() + timedelta(seconds=float(self.plan.server.get("clock_skew_s", 0)))

    def replan(self, plan: Plan) -> None:
        """Go on under another plan."""
        with self._lock:
            self.plan = plan
            self.state.personality = overridden(self._personality, plan.server)

    def handle(self, request: Request) -> tuple[Response, Fault | None]:
        """The answer, and what goes wrong with it on the wire."""
        with self._lock:
            try:
                at = route(request)
            except Refusal as refusal:
                return refusal.response(), None
            self.calls[at.name] += 1
            call = Call(self.calls.total(), self.calls[at.name], at.name, at.type)
            fault = draw(self.plan, call)
            if fault is not None:
                self.faults[named(fault)] += 1
            former = self._former
        made = self.answer(request, fault, former)
        if made.status == 200:
            self._former = made
        return made, fault

    def answer(self, request: Request, fault: Fault | None, former: Response | None) -> Response:
        """The answer of the server's core; one request at a time."""
        with self._lock:
            return answer(self.state, request, self.now(), fault, former)

    def register(self, system: str, value: str) -> None:
        """A patient whom the hospital has known since yesterday."""
        with self._lock:
            patient = {"resourceType": "Patient", "identifier": [{"system": system, "value": value}]}
            self.state.write(
                ("Patient", self.state.new_id()), patient, "POST", self.now() - timedelta(days=1)
            )

    def told(self) -> Any:
        """Counts for whoever tests: calls by route, faults by kind, versions held."""
        with self._lock:
            return {
                "personality": self.state.personality.name,
                "calls": dict(self.calls),
                "faults": dict(self.faults),
                "resources": len(self.state.versions),
                "versions": len(self.state.log),
            }


def named(fault: Fault) -> str:
    """A kind, with its status where it has one."""
    status = fault.parameters.get("status")
    return f"{fault.kind}={status}" if status is not None else fault.kind


class Server(ThreadingHTTPServer):
    """Listens on loopback; `url` is the base of the FHIR server."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, fake: FakeEhr, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.fake = fake
        self.url = f"http://127.0.0.1:{self.server_address[1]}{BASE}"
        fake.state.url = self.url

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


@contextmanager
def serving(fake: FakeEhr, port: int = 0) -> Iterator[str]:
    """The base URL of a server that runs in a thread until the block ends."""
    server = Server(fake, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name="fake-ehr")
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Reads one request, has it answered, and sends what the fault leaves of the answer."""

    protocol_version = "HTTP/1.1"
    server: Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent: `/_fake` tells."""

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MOST_BYTES))
        if parts.path.startswith("/_fake"):
            return self._tell(parts.path, body)
        fake = self.server.fake
        if parts.path != BASE and not parts.path.startswith(f"{BASE}/"):
            return self._send(sending(Response(404, outcome(404, f"the server is at {BASE}")), fake.now()))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            content = _read(body, headers.get("content-type", ""))
        except MappingError as error:
            refused = Response(400, outcome(400, error.issues[0].message))
            return self._send(sending(refused, fake.now()))
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(self.command, parts.path[len(BASE) :].strip("/"), query, headers, content)
        made, fault = fake.handle(request)
        return self._send(sending(made, fake.now(), fault))

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _tell(self, path: str, body: bytes) -> None:
        fake = self.server.fake
        made = Response(404, outcome(404, "there are /_fake and /_fake/faults"))
        if self.command == "GET" and path.rstrip("/") == "/_fake":
            made = Response(200, fake.told())
        elif self.command == "PUT" and path == "/_fake/faults":
            try:
                fake.replan(plan_of(body.decode()))
                made = Response(200, fake.told())
            except (PlanError, ValueError) as error:
                made = Response(400, outcome(400, str(error)))
        self._send(sending(made, fake.now()))

    def _send(self, what: Sending) -> None:
        if what.wait_s:
            time.sleep(what.wait_s)
        if what.resets:
            # With a linger of 0 the end of the connection is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            for one in (self.rfile, self.wfile, self.connection):
                one.close()
            return
        for number, chunk in enumerate(what.chunks):
            if number and what.pause_s:
                time.sleep(what.pause_s)
            self.wfile.write(chunk)
        if what.ends:
            self.close_connection = True


def _read(body: bytes, content_type: str) -> Any:
    if not body:
        return None
    if content_type.startswith("application/x-www-form-urlencoded"):
        return body.decode("utf-8", "replace")
    return loads(body)
