"""A ledger that tells another by HL7 v2: its endpoint, a line that misbehaves, our own receiver behind it."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from mappings.hl7v2 import ack, parse
from mappings.hl7v2 import dump as er7
from mappings.rows import Issue
from service.intake import load, take
from service.mllp.client import MllpClient
from service.mllp.framing import Frames, framed
from service.store import deliveries, endpoints, messages, tables
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync.worker import push_due
from site_of_mllp import Beside, all_events, settings_in

MAP = {"sending": ["PUMPS", "CHILDRENS"], "receiving": ["ENGINE", "WARD"]}
FAULTS = (
    "cut-before",
    "cut-after",
    "reset-after",
    "half",
    "late",
    "garbage",
    "noise",
    "other-id",
    "twice",
    "locked",
    "ar",
)
"""What the line does with a message; none of these needs a person."""


class Peer:
    """Takes connections and passes each message on, or does what `plan` says for it: a fault, or "".

    Where the plan ends, `rest` of the messages (0 to 1) meet a fault drawn by `seed`.
    """

    def __init__(self, port: int, plan: Sequence[str] = (), rest: float = 0.0, seed: int = 0) -> None:
        self._to, self._plan, self._rest = port, list(plan), rest
        self._chance, self._lock = random.Random(seed), threading.Lock()
        self.done: Counter[str] = Counter()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.ended = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):  # closed already
            self._server.shutdown(socket.SHUT_RDWR)  # else the thread that waits in accept takes one more
        self._server.close()

    def _listen(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _next(self) -> str:
        with self._lock:
            if self._plan:
                fault = self._plan.pop(0)
            else:
                fault = self._chance.choice(FAULTS) if self._chance.random() < self._rest else ""
            self.done[fault] += 1
            return fault

    def _talk(self, line: socket.socket) -> None:
        frames = Frames(1_000_000)
        with line, contextlib.suppress(OSError):
            while data := line.recv(65_536):
                for frame in frames.feed(data):
                    if not self._answer(line, frame.content, self._next()):
                        return

    def _answer(self, line: socket.socket, message: bytes, fault: str) -> bool:
        """Do it; False where the connection ends."""
        if fault in NOT_PASSED_ON:
            answer = NOT_PASSED_ON[fault](message)
            line.sendall(answer)
            return bool(answer)
        answer = self._pass_on(message)
        if fault == "late":
            self.ended.wait(LATE_S)
        if fault == "half":
            line.sendall(answer[: len(answer) // 2])
        if fault == "reset-after":
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("half", "cut-after", "reset-after"):
            return False
        line.sendall(answer * (2 if fault == "twice" else 1))
        return True

    def _pass_on(self, message: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._to)) as there:
            there.sendall(framed(message))
            found, frames = list[bytes](), Frames(1_000_000)
            while not found:
                found = [frame.content for frame in frames.feed(there.recv(65_536))]
        return framed(found[0])


def answered(message: bytes, code: str, issue: Issue | None = None, control_id: str = "") -> bytes:
    """An acknowledgement of a receiver that stored nothing."""
    of = parse(message)
    if control_id:
        of.segments[0][10] = control_id
    issues = [issue] if issue is not None else []
    return framed(er7(ack(of, code, issues, control_id="X", made_at="20260101000000+0000")))


NOT_PASSED_ON: dict[str, Any] = {
    "cut-before": lambda message: b"",
    "garbage": lambda message: framed(b"<html>502 Bad Gateway</html>"),
    "noise": lambda message: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "other-id": lambda message: answered(message, "AA", control_id="ANOTHER"),
    "locked": lambda message: answered(message, "AE", Issue("MSH[1]-10", "unavailable", "later")),
    "ar": lambda message: answered(message, "AR"),
    "ae": lambda message: answered(message, "AE", Issue("OBX[1]-5", "code", "no")),
    "unknown-patient": lambda message: answered(message, "AE", Issue("PID[1]-3", "patient", "no")),
}
LATE_S = 0.4
TIMEOUT_S = 0.2
"""Of the sender in these tests: shorter than the answer is late."""


class Pair:
    """Ledger A, its endpoint and a clock that the test moves; the line; ledger B behind our own receiver."""

    def __init__(
        self, folder: Path, plan: Sequence[str] = (), rest: float = 0.0, seed: int = 0, url: str = ""
    ) -> None:
        self.url = url or f"sqlite:///{folder}/a.db"
        self.a = Store(self.url)
        migrate(self.a)
        self.b = Store(f"sqlite:///{folder}/b.db")
        migrate(self.b)
        self.behind = Beside(self.b, settings_in(folder))
        self.peer = Peer(self.behind.port, plan, rest, seed)
        self.client = MllpClient("127.0.0.1", self.peer.port, timeout_s=TIMEOUT_S)
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.add("ward")

    def add(self, name: str, **options: Any) -> None:
        url = f"mllp://127.0.0.1:{self.peer.port}"
        with self.a.write() as c:
            endpoints.add(c, 1, name, url, {"hl7v2": MAP, "answer_seconds": 1} | options, now=self.now())

    def close(self) -> None:
        self.client.close()
        self.peer.close()
        self.a.close()
        self.b.close()

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    @property
    def endpoint(self) -> Endpoint:
        with self.a.read() as c:
            found = endpoints.find(c, 1, "ward")
        assert found is not None
        return found

    def send(self, *sent: Any) -> None:
        for result in take(self.a, Caller(1, "test"), [load(one) for one in sent], clock=self.now):
            assert result.outcome in ("accepted", "corrected"), result.issues

    def push(self, rounds: int = 400) -> None:
        """Deliver until nothing is due; an hour passes between rounds, so that no retry is waited for."""
        for number in range(rounds):
            if not push_due(self.a, self.endpoint, self.client, self.now) and number:
                return
            self.time += timedelta(hours=1)
        raise AssertionError("it goes on and on")

    def deliveries(self) -> list[Delivery]:
        with self.a.read() as c:
            return deliveries.search(c, 1, limit=10_000)


@contextlib.contextmanager
def pair(folder: Path, **how: Any) -> Iterator[Pair]:
    folder.mkdir(exist_ok=True)
    made = Pair(folder, **how)
    try:
        yield made
    finally:
        made.close()


def wrong(a: Store, b: Store) -> Counter[str]:
    """What is not as it should be, by kind: B holds what A sent, equal, once, in the order of each lane."""
    found: Counter[str] = Counter()
    with a.read() as c:
        every = deliveries.search(c, 1, limit=100_000)
        audited = Counter(c.execute(select(tables.audit.c.subject, tables.audit.c.action)).all())
        lanes = {one.event_seq: one.lane for one in every}
    found["not sent"] = sum(one.status != "sent" for one in every)
    found["sent twice in the audit"] = sum(
        audited[f"delivery/{one.id}", "sent"] != (one.status == "sent") for one in every
    )
    theirs = all_events(b)
    ours = [one for one in all_events(a) if one.seq in lanes]
    there = Counter(one.content_hash for one in theirs)
    superseded = {one.event_seq for one in every if "superseded" in (one.reason or "")}
    wanted = [one for one in ours if one.seq not in superseded]
    found["lost"] = sum(not there[one.content_hash] for one in wanted)
    found["doubled"] = sum(there[one.content_hash] > 1 for one in wanted)
    found["another"] = len(there.keys() - {one.content_hash for one in wanted})
    place = {one.content_hash: one.seq for one in theirs}
    for lane in set(lanes.values()):
        seqs = [
            place[one.content_hash] for one in wanted if lanes[one.seq] == lane and there[one.content_hash]
        ]
        found["out of order"] += sum(x > y for x, y in zip(seqs, seqs[1:], strict=False))
    with b.read() as c:
        kept = messages.search(c, 1, limit=100_000)
        by_event = [messages.of_event(c, 1, one.seq) for one in theirs]
    found["told by several messages"] = sum(len(ids) != 1 for ids in by_event)
    found["not taken"] = sum(one.status != "taken" for one in kept)
    return +found
