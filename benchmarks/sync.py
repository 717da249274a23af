"""Delivering to a real HAPI beside a bare loop that posts the very same bundles, in one run, in turns.

Drain: a backlog of refills, delivered by the runner's own steps (claim, map, validate, look up, send, check
the answer, record, audit) on N threads; the loop posts the same transactions, recorded before, under other
names on N threads. Idle: from an event accepted until HAPI holds it, beside a direct POST of a like bundle.

    python benchmarks/sync.py [--events 5000] [--rounds 3] [--threads 2] [--at-least 0.9] [--hapi URL]
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from mappings.codes import sid
from mappings.exact_json import dumps
from service.hapi_server import start_hapi
from service.intake import load, take
from service.store import deliveries, endpoints
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync.ehr import HttpEhr
from service.sync.outbox import Keeper, step
from service.sync.patient_cache import Patients
from service.sync.push import Route
from service.sync.worker import Runner, step_name

PUMPS = 200
OURS = re.compile(rb"itb-([0-9a-f]{8}-[0-9a-f]{4}-)")
"""An id of our own choice: that of a Provenance."""
FHIR = {"Content-Type": "application/fhir+json", "Prefer": "return=representation"}


def now() -> datetime:
    return datetime.now(UTC)


def refill(name: str, number: int) -> dict[str, Any]:
    pump = number % PUMPS
    return {
        "type": "refill",
        "source": "bench",
        "id": f"{name}-{number}",
        "patient": {"system": "http://hospital.invalid/mrn", "value": f"{name}-{pump}"},
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


class Recorder(HttpEhr):
    """Counts the time that calls take, and what they send."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.bundles: list[bytes] = []
        self.called_s = 0.0

    def transaction(self, bundle: Any) -> list[Any]:
        self.bundles.append(dumps(bundle))
        return super().transaction(bundle)

    def _call(self, *args: Any, **more: Any) -> Any:
        started = time.perf_counter()
        try:
            return super()._call(*args, **more)
        finally:
            self.called_s += time.perf_counter() - started


def site(folder: Path, url: str, name: str, events: int) -> Store:
    """A ledger with a backlog for HAPI."""
    store = Store(f"sqlite:///{folder}/{name}.db")
    migrate(store)
    with store.write() as c:
        endpoints.add(c, 1, "hapi", url, {"create_missing_patients": True, "poll_seconds": 86_400}, now=now())
    for _ in take(store, Caller(1, "bench"), (load(refill(name, n)) for n in range(events)), clock=now):
        pass
    return store


def on_threads(number: int, work: Callable[[int], None]) -> float:
    """Seconds that it takes with so many threads."""
    threads = [threading.Thread(target=work, args=(n,)) for n in range(number)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def drain(store: Store, url: str, name: str, threads: int) -> tuple[float, list[bytes], float]:
    """(seconds, the transactions sent, seconds of them in calls to HAPI) until nothing waits."""
    with store.read() as c:
        endpoint = endpoints.every(c)[0]
    names = [("http://hospital.invalid/mrn", f"{name}-{pump}") for pump in range(PUMPS)]
    Patients(endpoint, now).resolve(HttpEhr(url), names)  # an EHR has its patients already
    patients, keeper = Patients(endpoint, now), Keeper(store, now)
    ehrs = [Recorder(url) for _ in range(threads)]

    def work(number: int) -> None:
        route = Route(store, ehrs[number], endpoint, patients, now)
        while True:
            if step(route, keeper, step_name()) is None:
                with store.read() as c:
                    if not deliveries.counts(c)["pending"]:
                        return
                time.sleep(0.01)

    took = on_threads(threads, work)
    with store.read() as c:
        counts = deliveries.counts(c)
    assert counts["sent"] == sum(counts.values()), counts
    return took, [bundle for ehr in ehrs for bundle in ehr.bundles], sum(ehr.called_s for ehr in ehrs)


def post(url: str, bundles: list[bytes], threads: int) -> float:
    """Seconds of a bare loop."""
    left: Iterator[bytes] = iter(bundles)
    lock = threading.Lock()

    def work(_: int) -> None:
        session = requests.Session()
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            session.post(url, data=body, headers=FHIR).raise_for_status()

    return on_threads(threads, work)


def renamed(bundles: list[bytes], name: str, other: str) -> list[bytes]:
    """The same transactions about other records, of which HAPI has none; ids of ours are made anew."""
    return [OURS.sub(rb"itb-z\1", bundle.replace(name.encode(), other.encode())) for bundle in bundles]


def resources(bundles: list[bytes]) -> int:
    return sum(bundle.count(b'"fullUrl"') for bundle in bundles)


def latencies(folder: Path, url: str, number: int) -> tuple[list[float], list[float]]:
    """Seconds from accepted to readable with the runner, and of direct POSTs of like bundles, in turns."""
    name = f"i{uuid.uuid4().hex[:8]}"
    store = site(folder, url, name, 0)
    runner = Runner(store, now)
    session = requests.Session()
    ours, direct = [], []

    def bundle_of(event: dict[str, Any]) -> bytes:
        recorder = Recorder(url)
        other = site(folder, url, f"{name}x{event['id'][-3:]}", 0)
        list(take(other, Caller(1, "bench"), [load(event)], clock=now))
        drain_one(other, recorder)
        other.close()
        return recorder.bundles[-1]

    def drain_one(other: Store, ehr: Recorder) -> None:
        with other.read() as c:
            endpoint = endpoints.every(c)[0]
        step(Route(other, ehr, endpoint, Patients(endpoint, now), now), Keeper(other, now), step_name())

    first = refill(name, 0)
    list(take(store, Caller(1, "bench"), [load(first)], clock=now))
    runner.start()
    probe = bundle_of(refill(name, 500_000))
    for n in range(number):
        event = refill(name, PUMPS * (n + 1))
        list(take(store, Caller(1, "bench"), [load(event)], clock=now))
        started = time.perf_counter()
        named = f"{sid('refill')}|bench.{event['id']}"
        query = f"{url}/MedicationAdministration?identifier={named}&_summary=count"
        while not session.get(query, headers={"Cache-Control": "no-cache"}).json()["total"]:
            time.sleep(0.002)
        ours.append(time.perf_counter() - started)
        body = probe.replace(b"500000", f"{600_000 + n}".encode())
        body = OURS.sub(f"itb-{n}z".encode() + rb"\1", body)
        started = time.perf_counter()
        session.post(url, data=body, headers=FHIR).raise_for_status()
        direct.append(time.perf_counter() - started)
    runner.stop()
    store.close()
    return ours, direct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--at-least", type=float, default=0.9, help="fail below this ratio of the medians")
    parser.add_argument("--hapi", help="a HAPI that runs already; else one is started")
    chosen = parser.parse_args()
    server = None if chosen.hapi else start_hapi()
    url = chosen.hapi or server.base_url  # type: ignore[union-attr]
    ours, bare, inside = [], [], []
    try:
        with tempfile.TemporaryDirectory() as kept:
            folder = Path(kept)
            for number in range(chosen.rounds + 1):
                name = f"b{uuid.uuid4().hex[:8]}a"
                events = chosen.events // chosen.rounds if number else 200  # the first one warms HAPI up
                store = site(folder, url, name, events)
                took, bundles, called = drain(store, url, name, chosen.threads)
                store.close()
                other = renamed(bundles, name, f"{name[:-1]}z")
                loop = post(url, other, chosen.threads)
                if number:
                    ours.append(resources(bundles) / took)
                    bare.append(resources(bundles) / loop)
                    inside.append(called / (took * chosen.threads))
            idle, direct = latencies(folder, url, 20)
    finally:
        if server is not None:
            server.stop()
    print(f"{'resources a second':40} {'min':>8} {'median':>8} {'max':>8}")
    for title, found in (("itb-fhir, drained", ours), ("bare loop, the same bundles", bare)):
        print(f"{title:40} {min(found):8.0f} {statistics.median(found):8.0f} {max(found):8.0f}")
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"ratio of the medians: {ratio:.2f} (bar: {chosen.at_least})")
    print(
        f"of the threads' time in calls to the EHR: {statistics.median(inside):.0%}; the rest is the safety"
    )
    ours_ms, direct_ms = (statistics.median(found) * 1000 for found in (idle, direct))
    bar = 1.5 * direct_ms + 50
    print(f"accepted to readable: median {ours_ms:.0f} ms; direct POST {direct_ms:.0f} ms (bar: {bar:.0f})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"resident memory at most: {peak:.0f} MB (bar: 200)")
    raise SystemExit(ratio < chosen.at_least or ours_ms > bar or peak > 200)


if __name__ == "__main__":
    main()
