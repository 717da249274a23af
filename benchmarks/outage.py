"""An EHR that is away for an hour while 10,000 events wait for it, and others that are there.

Away: a backlog is drained into a real HAPI from a ledger that has nothing else to do, and from one in which
10,000 events wait for an EHR that refuses connections; turn about: a HAPI that grows slower does so for both.
Back: an hour passes (the service's clock is moved on, half a minute at a time), then that EHR (the fake
one, in a process of its own) is there again. It must get everything, of each pump in order, little at first,
never more at a time than it takes; and the service may need hardly more memory than before.

    python benchmarks/outage.py [--waiting 10000] [--events 1500] [--rounds 2] [--at-least 0.95] [--hapi URL]
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from service.hapi_server import hapi_at
from service.intake import load, take
from service.server import free_port
from service.store import deliveries, endpoints
from service.store.endpoints import Endpoint
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync import worker
from service.sync.ehr import HttpEhr
from service.sync.patient_cache import Patients
from sync import MRN, PUMPS, Deliverer, now, refill

Json = Any
STEP = timedelta(seconds=30)
AWAY = timedelta(hours=1)
NAMED = re.compile(rb'/sid/refill","value":"bench\.waits-([0-9]+)"')
OPTIONS = {"create_missing_patients": True, "poll_seconds": 86_400}


def resident_mb() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def add(store: Store, name: str, url: str) -> Endpoint:
    with store.write() as c:
        return endpoints.add(c, 1, name, url, OPTIONS, now=now())


def accept(store: Store, name: str, events: int) -> None:
    """So many events more, each for every endpoint that there is."""
    for _ in take(store, Caller(1, "bench"), (load(refill(name, n)) for n in range(events)), clock=now):
        pass


def waiting(store: Store, endpoint: Endpoint) -> int:
    with store.read() as c:
        return deliveries.counts(c, endpoint.id)["pending"]


def until_sent(store: Store, endpoint: Endpoint) -> float:
    """Seconds until nothing waits for the endpoint any more."""
    started = time.perf_counter()
    while waiting(store, endpoint):
        time.sleep(0.1)
    return time.perf_counter() - started


def backlog(file: Path, away: str, events: int) -> Json:
    """A ledger in which so many events wait for the EHR that is away."""
    store = Store(f"sqlite:///{file}")
    migrate(store)
    add(store, "away", away)
    accept(store, "waits", events)
    store.close()
    return {}


def beside(file: Path, hapi: str, events: int) -> Json:
    """Seconds until HAPI has `events`, beside what else waits in the ledger (if there is one)."""
    store = Store(f"sqlite:///{file}")
    migrate(store)
    endpoint = add(store, "hapi", hapi)
    accept(store, file.stem, events)
    Patients(endpoint, now).resolve(HttpEhr(hapi), [(MRN, f"{file.stem}-{pump}") for pump in range(PUMPS)])
    runner = Deliverer(store, now)
    runner.start()
    took = until_sent(store, endpoint)
    runner.stop()
    return {"took": took}


# --- an hour, and the return --------------------------------------------------------------------------------


class Watched(HttpEhr):
    """Notes the refills of each transaction, and how many calls there were: in all, and at a time."""

    calls = within = most = 0
    sent: list[list[int]] = []
    lock = threading.Lock()

    def _request(self, method: str, url: str, data: bytes | None, *args: Any) -> Any:
        with self.lock:
            Watched.calls += 1
            Watched.within += 1
            Watched.most = max(Watched.most, Watched.within)
            if data is not None and url == self.url:
                self.sent.append([int(number) for number in dict.fromkeys(NAMED.findall(data))])
        try:
            return super()._request(method, url, data, *args)
        finally:
            with self.lock:
                Watched.within -= 1


class Clock:
    """The service's clock, which can be moved on."""

    ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead


def hour(file: Path, backlog: int) -> Json:
    """What an outage of an hour and the return from it take."""
    store, clock = Store(f"sqlite:///{file}"), Clock()
    migrate(store)
    port = free_port("127.0.0.1")
    endpoint = add(store, "away", f"http://127.0.0.1:{port}/fhir")
    accept(store, "waits", backlog)
    worker.HttpEhr = Watched  # type: ignore[misc]
    runner = Deliverer(store, clock)
    runner.start()
    time.sleep(2)
    before, asked = resident_mb(), Watched.calls
    for _ in range(AWAY // STEP):
        clock.ahead += STEP
        time.sleep(0.25)
    away_mb, asked = resident_mb(), Watched.calls - asked
    Watched.sent.clear()
    command = [sys.executable, "-m", "service.cli", "fake-ehr", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        clock.ahead += 2 * STEP
        took = until_sent(store, endpoint)
        runner.stop()
        server.terminate()
    with store.read() as c:
        counts = deliveries.counts(c)
    assert counts["sent"] == backlog, counts
    return {
        "asked": asked,
        "took": took,
        "before_mb": before,
        "away_mb": away_mb,
        "back_mb": resident_mb(),
        "first": [len(one) for one in Watched.sent[:8]],
        "most": Watched.most,
        "parallel": endpoint.options["parallel"],
        "out of order": out_of_order(itertools.chain.from_iterable(Watched.sent)),
    }


def out_of_order(numbers: Any) -> int:
    """How many came after a later one of their pump, or a second time."""
    last: dict[int, int] = {}
    found = 0
    for number in numbers:
        found += number <= last.get(number % PUMPS, -1)
        last[number % PUMPS] = number
    return found


# --- both ---------------------------------------------------------------------------------------------------


def child(*what: object) -> Json:
    """A part of this in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([str(one) for one in what])]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run_child(what: list[str]) -> Json:
    if what[0] == "hour":
        return hour(Path(what[1]), int(what[2]))
    work = {"backlog": backlog, "beside": beside}[what[0]]
    return work(Path(what[1]), what[2], int(what[3]))


def compare(folder: Path, hapi: str, chosen: Any) -> tuple[list[float], list[float]]:
    """Events a second into HAPI, alone and beside the EHR that is away."""
    waits = folder / "waits.db"
    child("backlog", waits, f"http://127.0.0.1:{free_port('127.0.0.1')}/fhir", chosen.waiting)
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * chosen.rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            file = folder / f"o{side}n{number}x{int(time.time())}"
            if side:
                shutil.copy(waits, file)
            found = child("beside", file, hapi, chosen.events)
            rates[side].append(chosen.events / found["took"])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=2, help="each is two drains of either kind")
    parser.add_argument("--at-least", type=float, default=0.95, help="fail below this ratio of the medians")
    parser.add_argument("--hapi", help="a HAPI that runs already; else one is started")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(run_child(chosen.child)))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as kept:
        back = child("hour", Path(kept) / "hour.db", chosen.waiting)
        with hapi_at(chosen.hapi) as (hapi, _):
            child("beside", Path(kept) / "warm", hapi, 500)
            alone, slowed = compare(Path(kept), hapi, chosen)
    raise SystemExit(report(back, alone, slowed, chosen))


def report(back: Json, alone: list[float], slowed: list[float], chosen: Any) -> bool:
    """Print it; True where a bar is not met."""
    print(f"{'events a second into HAPI':50} {'min':>6} {'median':>6} {'max':>6}")
    for title, found in (("alone", alone), (f"beside {chosen.waiting} that wait for another", slowed)):
        print(f"{title:50} {min(found):6.0f} {statistics.median(found):6.0f} {max(found):6.0f}")
    ratio = statistics.median(slowed) / statistics.median(alone)
    print(f"ratio of the medians: {ratio:.2f} (bar: {chosen.at_least})")
    print(f"asked in the hour that it was away: {back['asked']} times")
    print(f"deliveries in its first transactions when it is back: {back['first']}")
    print(f"calls to it at a time: {back['most']} (at most {back['parallel']})")
    print(f"{chosen.waiting} delivered in {back['took']:.0f} s; {back['out of order']} of them out of order")
    memory = [back["before_mb"], back["away_mb"], back["back_mb"]]
    print("resident memory: {:.0f} MB, {:.0f} MB after the hour, {:.0f} MB when all was sent".format(*memory))
    grown = max(memory) - memory[0]
    checks: list[Callable[[], bool]] = [
        lambda: ratio >= chosen.at_least,
        lambda: back["most"] <= back["parallel"],
        lambda: back["out of order"] == 0,
        lambda: back["first"] == sorted(back["first"]) and back["first"][0] == 1,
        lambda: grown < 50,
    ]
    return not all(check() for check in checks)


if __name__ == "__main__":
    main()
