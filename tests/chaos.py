"""Chaos: a clinic's events through the service into a misbehaving EHR, its processes killed all the time.

`run` is one run, `tests/chaos_seeds.py` many (`make chaos`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import requests

import crash_points
from chaos_fork import clock
from history import Breach, History, Sent, Write, check
from mappings.exact_json import dumps, loads
from service import verify
from service.fake_ehr.faults import plan_of
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, Server
from service.server import free_port
from service.store import deliveries, endpoints, events
from service.store.engine import Store, migrate
from service.store.tables import audit
from service.synthetic import clinic

ROOT = Path(__file__).resolve().parent.parent
ENDPOINT = "ward"


@dataclass(frozen=True, slots=True)
class Run:
    """How much of what; `speed`: how many times as fast as ours the clock of the site goes."""

    events: int = 10_000
    pumps: int = 200
    kills: int = 1_000
    faults: str = "20%"
    seed: int = 1
    workers: int = 3
    senders: int = 2
    speed: float = 2.5
    batch_size: int = 50
    patience_s: float = 60.0
    """How long nothing may move before the run is given up, and how long it may take to be quiet."""
    bug: str | None = None
    every_point: int = 0
    """Crash points are armed until each has fired so often; then, and with 0, at random, beside the kills."""
    ahead: int = 1_000
    """So many events at most are acknowledged and not applied: the service is busy as long as the workers."""
    engine: str = "embedded"


@dataclass(slots=True)
class Outcome:
    """What a run left, and its figures."""

    breaches: list[Breach]
    seconds: float
    killed: int
    fired: Counter[str]
    """At which crash point how many died."""
    faults: Counter[str] = field(default_factory=Counter)
    quiet_after_s: float = 0.0

    @property
    def kills(self) -> int:
        """How many processes died, by SIGKILL or at a crash point."""
        return self.killed + self.fired.total()


class Target(Protocol):
    """The EHR of a run."""

    url: str

    def register(self, patients: Sequence[Any]) -> None:
        """The hospital knows these patients."""

    def applied(self) -> int:
        """How many events it holds: each has one Provenance."""

    def disturb(self, progress: float) -> None:
        """Called often, with how much of the run is done."""

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""

    def writes(self) -> list[Write]:
        """Every version it was given, in the order of application."""

    def faults(self) -> Counter[str]:
        """What went wrong how often."""

    def stop(self) -> None:
        """End it."""


class FakeTarget:
    """The fake EHR, in a thread of this process."""

    def __init__(self, faults: str, seed: int) -> None:
        self.fake = FakeEhr(load("hapi"), plan_of(faults, seed))
        self._server = Server(self.fake)
        self.url = self._server.url
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def register(self, patients: Sequence[Any]) -> None:
        for one in patients:
            self.fake.register(one["system"], one["value"])

    def applied(self) -> int:
        return self.fake.state.count("Provenance")

    def disturb(self, progress: float) -> None:
        """Its plan does that."""

    def calm(self) -> None:
        self.fake.replan(plan_of(""))

    def writes(self) -> list[Write]:
        return [
            Write(v.key[0], v.key[1], v.number, position, v.resource)
            for position, v in enumerate(self.fake.state.log)
        ]

    def faults(self) -> Counter[str]:
        return self.fake.faults

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class Child:
    """A process: what it was told, and the crash point that it is to die at."""

    order: dict[str, Any]
    point: str | None


class Processes:
    """The children of `chaos_fork`: started, killed, and started again."""

    def __init__(self, orders: Sequence[dict[str, Any]], rng: random.Random, plan: Run, log: Path) -> None:
        self._rng, self._log = rng, log
        self._by_chance, self._every_point = plan.kills > 0, plan.every_point
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [sys.executable, str(ROOT / "tests" / "chaos_fork.py")]
        self._fork = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self.killed = 0
        self.fired: Counter[str] = Counter()
        self._alive: dict[int, Child] = {}
        for order in orders:
            self._start(order)

    @property
    def died(self) -> int:
        """How many died: by a signal, or at a crash point."""
        return self.killed + self.fired.total()

    def _ask(self, order: Any) -> Any:
        assert self._fork.stdin is not None
        assert self._fork.stdout is not None
        self._fork.stdin.write(json.dumps(order) + "\n")
        self._fork.stdin.flush()
        return json.loads(self._fork.stdout.readline())

    def _start(self, order: dict[str, Any]) -> None:
        point, times = self._point(order["role"])
        pid = self._ask(order | {"crash_at": f"{point}:{times}" if point else None})
        self._alive[pid] = Child(order, point)

    def _point(self, role: str) -> tuple[str | None, int]:
        """Where a process is to die, and the how many-th time it comes by; the least seen points first."""
        points = [name for name, point in crash_points.POINTS.items() if point.role == role]
        if waiting := [name for name in points if name in self.waiting()]:
            armed = Counter(child.point for child in self._alive.values())
            return min(waiting, key=lambda name: self.fired[name] + armed[name]), self._rng.randint(1, 2)
        if self._by_chance and self._rng.random() < 0.5:
            return self._rng.choice(points), self._rng.randint(1, 12)
        return None, 0

    def waiting(self) -> set[str]:
        """The crash points that have not fired as often as they must."""
        return {name for name in crash_points.POINTS if self.fired[name] < self._every_point}

    def kill_one(self) -> None:
        """SIGKILL to one of them, and another in its place."""
        pid = self._rng.choice(sorted(self._alive))
        self._replace(*self._kill(pid))

    def _kill(self, pid: int) -> tuple[Child, int]:
        """What it was, and its exit status: it may have died at its point a moment before."""
        os.kill(pid, signal.SIGKILL)
        return self._alive.pop(pid), int(self._ask({"reap": pid}))

    def replace_ended(self) -> None:
        """Another in the place of each that died at a crash point."""
        ended = [(self._alive.pop(pid), status) for pid, status in self._ask({"ended": True})]
        for child, status in ended:
            self._replace(child, status)

    def _replace(self, child: Child, status: int) -> None:
        """Count the end of a process by what it was, and start another; an end of another kind is a bug."""
        if status == crash_points.DIED and child.point is not None:
            self.fired[child.point] += 1
        elif status == -signal.SIGKILL:
            self.killed += 1
        else:
            who = f"a {child.order['role']} (armed: {child.point})"
            raise AssertionError(f"{who} ended with {status}:\n{self._log.read_text()[-3000:]}")
        self._start(child.order)

    def disarm(self) -> None:
        """Every process anew, without a crash point."""
        self._by_chance, self._every_point = False, 0
        for pid in list(self._alive):
            self._replace(*self._kill(pid))

    def stop(self) -> None:
        for pid in list(self._alive):
            self._kill(pid)
        assert self._fork.stdin is not None
        self._fork.stdin.close()
        self._fork.wait()


class Sender(threading.Thread):
    """A programmer export that sends batches until each is acknowledged, event by event.

    It waits before a batch while `may_send` is not set.
    """

    def __init__(self, url: str, sent: Sequence[Any], seed: int, may_send: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._sent, self._rng, self._may_send = url, sent, random.Random(seed), may_send
        self.acknowledged: dict[tuple[str, str], Any] = {}
        self.refused: list[str] = []

    def run(self) -> None:
        waiting = list(self._sent)
        while waiting:
            size = self._rng.randint(1, 60)
            batch = waiting[:size]
            self._may_send.wait()
            while not all((e["source"], e["id"]) in self.acknowledged for e in batch):
                if self.refused:
                    return
                self._post(batch)
            waiting = waiting[size:]

    def _post(self, batch: list[Any]) -> None:
        body = b"\n".join(dumps(event) for event in batch)
        headers = {"Content-Type": "application/x-ndjson"}
        by_name = {(e["source"], e["id"]): e for e in batch}
        try:
            with requests.post(self._url, data=body, headers=headers, timeout=20, stream=True) as answer:
                if answer.status_code != 200:
                    return
                for line in answer.iter_lines():
                    result = loads(line)
                    if result["outcome"] not in ("accepted", "replayed"):
                        self.refused.append(line.decode())
                    name = (result["source"], result["id"])
                    self.acknowledged[name] = by_name[name]
        except (requests.RequestException, ValueError):
            time.sleep(0.02)


def run(plan: Run, database: str, folder: Path, target: Target, tell: Callable[[str], None]) -> Outcome:
    """One run, checked. `folder` takes its log."""
    began = time.monotonic()
    rng = random.Random(plan.seed)
    sent = list(islice(clinic(plan.pumps, 60, plan.seed), plan.events))
    assert len(sent) == plan.events
    target.register([dict(p) for p in {tuple(e["patient"].items()): e["patient"] for e in sent}.values()])
    now = clock(plan.speed)
    store = Store(database)
    migrate(store)
    with store.write() as c:
        options = {"poll_seconds": 5, "overlap_seconds": 2, "batch_size": plan.batch_size}
        endpoints.add(c, 1, ENDPOINT, target.url, options, now=now())
    log, port = folder / "log", free_port("127.0.0.1")
    shared = {"url": database, "speed": plan.speed, "log": str(log), "bug": plan.bug, "engine": plan.engine}
    orders = [{"role": "service", "port": port, **shared}] + [{"role": "worker", **shared}] * plan.workers
    processes = Processes(orders, rng, plan, log)
    url = f"http://127.0.0.1:{port}/api/v1/events"
    may_send = threading.Event()
    pumps = sorted({_pump(event) for event in sent})
    shares = [set(pumps[n :: plan.senders]) for n in range(plan.senders)]
    senders = [
        Sender(url, [event for event in sent if _pump(event) in share], n, may_send)
        for n, share in enumerate(shares)
    ]
    for sender in senders:
        sender.start()
    quiet = 0.0
    try:
        quiet = _drive(plan, store, target, processes, senders, may_send, tell)
    finally:
        processes.stop()
    refused = [line for sender in senders for line in sender.refused]
    assert not refused, refused[:3]
    acknowledged = [e for sender in senders for e in sender.acknowledged.values()]
    history = left_behind(store, target.writes(), acknowledged, log, quiet)
    store.close()
    breaches = check(history)
    took = time.monotonic() - began
    return Outcome(breaches, took, processes.killed, processes.fired, target.faults(), quiet)


def _drive(
    plan: Run,
    store: Store,
    target: Target,
    processes: Processes,
    senders: Sequence[Sender],
    may_send: threading.Event,
    tell: Callable[[str], None],
) -> float:
    """Kill while the work goes on; how long it took to be quiet after the last fault, seconds."""
    last, moved = -1.0, time.monotonic()
    while time.monotonic() - moved < plan.patience_s:
        acknowledged, applied = sum(len(s.acknowledged) for s in senders), target.applied()
        progress = (acknowledged + applied) / (2 * plan.events)
        if progress > last:
            last, moved = progress, time.monotonic()
            tell(f"{acknowledged} acknowledged, {applied} applied, {processes.died} kills")
        may_send.set() if acknowledged - applied < plan.ahead else may_send.clear()
        target.disturb(progress)
        processes.replace_ended()
        if progress >= 0.97 and processes.died >= plan.kills and not processes.waiting():
            break
        if processes.died < plan.kills * progress / 0.97 or (progress >= 1.0 and processes.died < plan.kills):
            processes.kill_one()
        time.sleep(0.005)
    assert not processes.waiting(), f"never fired: {sorted(processes.waiting())}, {dict(processes.fired)}"
    may_send.set()
    processes.disarm()
    target.calm()
    calm = time.monotonic()
    while time.monotonic() - calm < plan.patience_s:
        if not any(s.is_alive() for s in senders):
            with store.read() as c:
                counts = deliveries.counts(c)
            if not counts["pending"] and target.applied() >= plan.events:
                break
        processes.replace_ended()
        time.sleep(0.05)
    return time.monotonic() - calm


def _pump(event: Any) -> str:
    return str(event.get("pump") or event.get("serial") or event.get("parent"))


def left_behind(
    store: Store, writes: list[Write], acknowledged: list[Any], log: Path, quiet: float
) -> History:
    """What a run left in the ledger and the EHR, for the checker."""
    with store.read() as c:
        kept, after = [], 0
        while page := events.search(c, 1, limit=1000, after_seq=after):
            kept += [(stored.seq, stored.event) for stored in page]
            after = page[-1].seq
        sent, last = [], 0
        while some := deliveries.search(c, 1, limit=1000, after_id=last):
            sent += [Sent(d.id, d.event_seq, d.status, d.reason) for d in some]
            last = some[-1].id
        rows = [(r.action, r.subject) for r in c.execute(audit.select().order_by(audit.c.id))]
    broken = [finding.what for finding in verify.findings(store) if not finding.ok]
    return History(
        acknowledged=acknowledged,
        ledger=kept,
        deliveries=sent,
        audit=rows,
        writes=writes,
        logs=log.read_text() if log.exists() else "",
        chain_problems=broken,
        canaries={e["patient"]["value"] for e in acknowledged},
        quiet_after_s=quiet,
    )
