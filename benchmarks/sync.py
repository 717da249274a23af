"""Delivering to a real HAPI beside a bare loop that posts the very same transactions, in one run, in turns.

Drain: a backlog of refills, delivered by the runner's own threads (claim, map, validate, send, check the
answer, record, audit) in a process of its own that does not poll meanwhile, and has delivered before. The
bare loop posts the very transactions that were sent, but for the names of the records, as many at a time, to
the same HAPI. The rounds go ours, bare, bare, ours: a server that grows slower does so for both, and it has
the memory for all that is written. Its patients are there before.
Idle: from an event accepted until HAPI holds it, beside a direct POST of a like transaction.

    python benchmarks/sync.py [--events 5000] [--rounds 1] [--parallel 2] [--at-least 0.9] [--hapi URL]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import requests

from mappings.codes import sid
from mappings.exact_json import dumps, loads
from mappings.identity import content_hash
from mappings.validate import validate
from service.chain import AUDIT, START, seal
from service.hapi_server import hapi_at
from service.intake import load, take
from service.interpreter import tune
from service.store import deliveries, endpoints
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync import worker
from service.sync.ehr import HttpEhr
from service.sync.patient_cache import Patients
from service.sync.worker import Runner

Json = Any
PUMPS = 200
FIRST = 100
"""So many are delivered before the backlog: what is compiled on first use is compiled, here as in HAPI."""
MRN = "http://hospital.invalid/mrn"
OURS = re.compile(rb"itb-([0-9a-f]{8}-[0-9a-f]{4}-)")
"""An id of our own choice: that of a Provenance."""
FHIR = {
    "Accept": "application/fhir+json",
    "Content-Type": "application/fhir+json",
    "Prefer": "return=representation",
}


def now() -> datetime:
    return datetime.now(UTC)


def refill(name: str, number: int) -> Json:
    pump = number % PUMPS
    return {
        "type": "refill",
        "source": "bench",
        "id": f"{name}-{number}",
        "patient": {"system": MRN, "value": f"{name}-{pump}"},
        "pump": f"{name}{pump}",
        "occurred_at": f"2025-0{number % 9 + 1}-03T12:{number % 60:02}:00-06:00",
        "drug": {
            "name": "baclofen",
            "concentration": {"value": 2000, "unit": "ug/mL"},
            "lot": f"A{number}",
            "expires_on": "2027-09-30",
        },
        "volume_instilled": {"value": 20, "unit": "mL"},
        "low_alarm_volume": {"value": 2, "unit": "mL"},
    }


def site(file: Path, url: str, name: str, events: int, **options: Any) -> Store:
    """A ledger with a backlog for HAPI."""
    store = Store(f"sqlite:///{file}")
    migrate(store)
    with store.write() as c:
        options = {"create_missing_patients": True, "poll_seconds": 86_400, **options}
        endpoints.add(c, 1, "hapi", url, options, now=now())
    for _ in take(store, Caller(1, "bench"), (load(refill(name, n)) for n in range(events)), clock=now):
        pass
    return store


def on_threads(number: int, work: Callable[[], None]) -> float:
    """Seconds that it takes with so many threads."""
    threads = [threading.Thread(target=work) for _ in range(number)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


# --- our side, in a process of its own ----------------------------------------------------------------------


class Spent:
    """Seconds that all threads together have spent in something."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def on(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - started


class Recorder(HttpEhr):
    """Keeps what is sent, and counts the time that calls take."""

    spent = Spent()
    kept: IO[bytes]

    def _request(self, method: str, url: str, data: bytes | None, *args: Any) -> Any:
        if data is not None and url == self.url:
            self.kept.write(data + b"\n")
        with self.spent.on():
            return super()._request(method, url, data, *args)


class Ledger(Store):
    """Counts the time that writing takes, waiting for other writers included."""

    spent = Spent()

    @contextmanager
    def write(self) -> Any:
        with self.spent.on(), super().write() as c:
            yield c


class Deliverer(Runner):
    """The runner, but that it only delivers: HAPI is to do nothing else meanwhile."""

    def _pull(self, id: int) -> None:
        return

    def _tend(self, id: int) -> None:
        return


def drain(url: str, hapi: int | None, events: int, sent: Path, **options: int) -> Json:
    """Deliver a new backlog; what it took. The transactions that were sent are lines of the file `sent`."""
    tune()  # as `itb serve` is
    name = f"b{uuid.uuid4().hex[:8]}a"
    site(sent.with_suffix(".db"), url, name, FIRST, **options).close()
    store = Ledger(f"sqlite:///{sent.with_suffix('.db')}")
    with store.read() as c:
        endpoint = endpoints.every(c)[0]
    names = [(MRN, f"{name}-{pump}") for pump in range(PUMPS)]
    Patients(endpoint, now).resolve(HttpEhr(url), names)  # an EHR has its patients already
    deliver(store)
    backlog = (load(refill(name, n)) for n in range(FIRST, FIRST + events))
    for _ in take(store, Caller(1, "bench"), backlog, clock=now):
        pass
    worker.HttpEhr = Recorder  # type: ignore[misc]
    Recorder.kept = sent.open("wb")
    Ledger.spent = Spent()
    started, own, its = time.perf_counter(), processor_s(None), processor_s(hapi)
    deliver(store)
    took, own, its = time.perf_counter() - started, processor_s(None) - own, processor_s(hapi) - its
    with store.read() as c:
        counts = deliveries.counts(c)
    assert counts["sent"] == sum(counts.values()) == FIRST + events, counts
    Recorder.kept.close()
    return {
        "name": name,
        "took": took,
        "cpu": own,
        "hapi": its,
        "calls": Recorder.spent.seconds,
        "writes": Ledger.spent.seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def deliver(store: Store) -> None:
    """Start a runner, and return when nothing waits any more."""
    runner = Deliverer(store, now)
    runner.start()
    waiting = True
    while waiting:
        time.sleep(0.1)  # looking costs our side time that the bare loop need not spend
        with store.read() as c:
            waiting = deliveries.counts(c)["pending"] > 0
    runner.stop()


def drained(url: str, hapi: int | None, events: int, sent: Path, options: Json) -> Json:
    """`drain` in another process: its time and memory are the service's alone."""
    command = [sys.executable, __file__, "--drain", str(sent), "--hapi", url, "--events", str(events)]
    command += ["--pid", str(hapi)] if hapi is not None else []
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


# --- the bare loop ------------------------------------------------------------------------------------------


def post(url: str, bundles: list[bytes], parallel: int) -> float:
    """Seconds that it takes to post them, so many at a time."""
    left = iter(bundles)
    lock = threading.Lock()

    def work() -> None:
        session = requests.Session()
        session.trust_env = False
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            session.post(url, data=body, headers=FHIR).raise_for_status()

    return on_threads(parallel, work)


def renamed(bundles: list[bytes], name: str, other: str) -> list[bytes]:
    """The same transactions about other records, of which HAPI has none; ids of ours are made anew."""
    fresh = b"itb-" + other[-1].encode()
    return [OURS.sub(fresh + rb"\1", bundle.replace(name.encode(), other.encode())) for bundle in bundles]


def resources(bundles: list[bytes]) -> int:
    return sum(bundle.count(b'"fullUrl"') for bundle in bundles)


# --- what is safe about ours, by the piece ------------------------------------------------------------------


def pieces(bundle: bytes) -> dict[str, float]:
    """Microseconds a resource of what the bare loop does not do, measured by itself on one thread."""
    said = [entry["resource"] for entry in loads(bundle)["entry"]]
    row = {"id": 1, "tenant_id": 1, "at": "", "actor": "sync", "action": "sent", "subject": "", "detail": ""}
    work: dict[str, Callable[[], object]] = {
        "R4 validation": lambda: [validate(one) for one in said],
        "content hash, ours and the answer's": lambda: [content_hash(one) for one in said * 2],
        "exact decimals: answer read, bundle written": lambda: (loads(bundle), dumps(said)),
        "audit row sealed": lambda: [seal(AUDIT, row, START) for _ in said],
    }
    return {
        name: min(timeit.repeat(call, number=5, repeat=5)) / 5 / len(said) * 1e6
        for name, call in work.items()
    }


# --- one event at a time ------------------------------------------------------------------------------------


def latencies(folder: Path, url: str, number: int) -> tuple[list[float], list[float]]:
    """Seconds from accepted to readable with the runner, and of direct POSTs of like bundles, in turns."""
    name = f"i{uuid.uuid4().hex[:8]}"
    drained(url, None, 1, folder / "probe", {})
    (probe,) = (folder / "probe").read_bytes().splitlines()
    store = site(folder / "idle.db", url, name, 1)
    runner = Deliverer(store, now)  # a first poll would read all that HAPI has, and it would not be idle
    runner.start()
    session = requests.Session()
    ours, direct = [], []
    for n in range(number):
        event = refill(name, PUMPS * (n + 1))  # always of the same patient: HAPI has her
        list(take(store, Caller(1, "bench"), [load(event)], clock=now))
        started = time.perf_counter()
        named = f"{sid('refill')}|bench.{event['id']}"
        query = f"{url}/MedicationAdministration?identifier={named}&_summary=count"
        while not session.get(query, headers={"Cache-Control": "no-cache"}).json()["total"]:
            time.sleep(0.002)
        ours.append(time.perf_counter() - started)
        (body,) = renamed([probe], "bench.b", f"bench.{name}x{n}z")
        started = time.perf_counter()
        session.post(url, data=body, headers=FHIR).raise_for_status()
        direct.append(time.perf_counter() - started)
    runner.stop()
    store.close()
    return ours, direct


def processor_s(pid: int | None) -> float:
    """Seconds of processor that a process has had; of this one for None."""
    if pid is None:
        return time.process_time()
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def compare(
    url: str, hapi: int | None, folder: Path, events: int, rounds: int, options: Json
) -> tuple[Json, Json, bytes]:
    """(what each of our drains took, what each bare loop did, a bundle); `hapi` is HAPI's process."""
    ours, bare = [], []
    bundles: list[bytes] = []
    name = ""
    for number in range(2 * rounds):
        for is_ours in (True, False) if number % 2 == 0 else (False, True):
            if is_ours:
                sent = folder / f"sent-{number}"
                found = drained(url, hapi, events, sent, options)
                bundles, name = sent.read_bytes().splitlines(), found["name"]
                ours.append(found | {"resources": resources(bundles)})
            else:
                other = renamed(bundles, name, name[:-1] + "cdefghijklmnopqrstuvwxyz"[number])
                before, own = processor_s(hapi), processor_s(None)
                took = post(url, other, options["parallel"])
                cpu = {"cpu": processor_s(None) - own, "hapi": processor_s(hapi) - before}
                bare.append({"took": took, "resources": resources(bundles), "bundles": len(bundles)} | cpu)
    return ours, bare, bundles[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1, help="each is two drains and two bare loops")
    parser.add_argument("--parallel", type=int, default=2, help="transactions at a time")
    parser.add_argument("--batch_size", type=int, default=50, help="about so many resources in one")
    parser.add_argument("--at-least", type=float, default=0.9, help="fail below this ratio of the medians")
    parser.add_argument("--hapi", help="a HAPI that runs already; else one is started")
    parser.add_argument("--drain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    options = {"parallel": chosen.parallel, "batch_size": chosen.batch_size}
    if chosen.drain:
        print(json.dumps(drain(chosen.hapi, chosen.pid, chosen.events, chosen.drain, **options)))
        return
    with (
        hapi_at(chosen.hapi, memory="4g") as (url, pid),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as kept,
    ):
        folder = Path(kept)
        drained(url, pid, chosen.events // 2, folder / "warm", options)  # HAPI compiles while it is new
        ours, bare, bundle = compare(url, pid, folder, chosen.events, chosen.rounds, options)
        idle, direct = latencies(folder, url, 20)
    raise SystemExit(report(ours, bare, bundle, idle, direct, chosen))


def processors(ours: Json, bare: Json, knows_hapi: bool) -> list[str]:
    """Where the processor's time goes: what both sides and HAPI need is what a full machine can give."""
    sides = (("itb-fhir", ours, "cpu"), ("HAPI for it", ours, "hapi"), ("bare loop", bare, "cpu"))
    sides += (("HAPI for the loop", bare, "hapi"),)
    return [
        f"{title} {statistics.median(one[key] / one['resources'] for one in side) * 1000:.2f}"
        for title, side, key in sides
        if key == "cpu" or knows_hapi
    ]


def report(
    ours: Json, bare: Json, bundle: bytes, idle: list[float], direct: list[float], chosen: Any
) -> bool:
    """Print it; True where a bar is not met."""
    rates = [[one["resources"] / one["took"] for one in side] for side in (ours, bare)]
    print(f"{chosen.events} events, {chosen.parallel} transactions at a time, {bare[0]['bundles']} of them")
    print(f"{'resources a second':40} {'min':>8} {'median':>8} {'max':>8}")
    for title, found in zip(("itb-fhir, drained", "bare loop, the same bundles"), rates, strict=True):
        print(f"{title:40} {min(found):8.0f} {statistics.median(found):8.0f} {max(found):8.0f}")
    ratio = statistics.median(rates[0]) / statistics.median(rates[1])
    print(f"ratio of the medians: {ratio:.2f} (bar: {chosen.at_least})")
    each = " ".join(f"{ours / bare:.2f}" for ours, bare in zip(*rates, strict=True))
    print(f"of each drain and its bare loop: {each}")
    for title, key in (("in calls to HAPI", "calls"), ("in transactions that write the ledger", "writes")):
        share = statistics.median(one[key] / one["took"] for one in ours)
        print(f"threads {title}, on average: {share:.2f}")
    print("milliseconds of processor a resource: " + "; ".join(processors(ours, bare, chosen.hapi is None)))
    print("what safety costs of it, each piece by itself:")
    for title, us in pieces(bundle).items():
        print(f"  {title:50} {us / 1000:6.3f} ms")
    ours_ms, direct_ms = (statistics.median(found) * 1000 for found in (idle, direct))
    bar = 1.5 * direct_ms + 50
    print(f"accepted to readable: median {ours_ms:.0f} ms; direct POST {direct_ms:.0f} ms (bar: {bar:.0f})")
    peak = max(one["peak_mb"] for one in ours)
    print(f"resident memory of our process at most: {peak:.0f} MB (bar: 200)")
    return bool(ratio < chosen.at_least or ours_ms > bar or peak > 200)


if __name__ == "__main__":
    main()
