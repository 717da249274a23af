"""A pull of many changed resources beside a bare loop that only reads the same pages.

A real HAPI holds refills that its users entered, of 200 pumps. Both read every page. The pull also keeps each
version raw, finds patient and pump, makes an event of it, checks it against the ledger, seals it into the
chain, and commits once a page. It fails when any is missed or doubled, when memory grows, or below the ratio.

On two cores HAPI needs the other one: on a busy machine the pull, which works while HAPI makes the next page,
loses more than the loop, which waits. So its processor time is told too.

    python benchmarks/pull.py [--resources 20000] [--at-least 0.8] [--url http://127.0.0.1:8090/fhir]
"""

from __future__ import annotations

import argparse
import os
import resource as process
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mappings import load_event
from mappings.bundle import encode
from mappings.codes import sid
from service.hapi_server import hapi_at
from service.interpreter import tune
from service.store import endpoints, events
from service.store.engine import Store, migrate
from service.sync.ehr import HttpEhr
from service.sync.pages import PER_PAGE
from service.sync.pull import pull

Json = Any
MRN = "http://hospital.invalid/mrn"
PUMPS = 200
AT_ONCE = 200


def now() -> datetime:
    return datetime.now(UTC)


def refill(run: str, n: int, patient: str) -> Json:
    """What a user of the EHR entered, n-th of a run."""
    event = load_event(
        {
            "type": "refill",
            "source": "ehr",
            "id": f"{run}-{n}",
            "patient": {"system": MRN, "value": f"{run}-{n % PUMPS}"},
            "pump": f"{run}-{n % PUMPS}",
            "occurred_at": f"2025-{n % 12 + 1:02}-03T12:{n % 60:02}:00-06:00",
            "drug": {
                "name": "baclofen",
                "concentration": {"value": 2000, "unit": "ug/mL"},
                "lot": f"A{n}",
                "expires_on": "2027-09-30",
            },
            "volume_instilled": {"value": 20, "unit": "mL"},
            "note": f"number {n}",
        }
    )
    (made,) = encode(event)
    made["identifier"] = [{"system": "http://ehr.invalid/administration", "value": f"{run}-{n}"}]
    made["subject"] = {"reference": patient}
    for device in made["device"]:
        device.pop("reference", None)
    return made


def fill(ehr: HttpEhr, run: str, number: int) -> None:
    """Put patients and refills into the EHR."""
    patients = []
    for n in range(PUMPS):
        name = {"system": MRN, "value": f"{run}-{n}"}
        patients.append(
            ehr.create({"resourceType": "Patient", "identifier": [name]}, f"identifier={MRN}|{run}-{n}")
        )
    for start in range(0, number, AT_ONCE):
        entries = [
            {
                "resource": refill(run, n, f"Patient/{patients[n % PUMPS]['id']}"),
                "request": {"method": "POST", "url": "MedicationAdministration"},
            }
            for n in range(start, min(start + AT_ONCE, number))
        ]
        ehr.transaction({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def bare(url: str) -> tuple[int, float]:
    """How many resources a loop that only reads the pages gets, and in how many seconds."""
    begun = time.perf_counter()
    found = 0
    for page in HttpEhr(url).search(
        "MedicationAdministration", {"_sort": "_lastUpdated", "_count": PER_PAGE}
    ):
        found += len(page.resources)
    return found, time.perf_counter() - begun


def pulled(url: str, folder: Path) -> tuple[dict[str, int], float, float, Store]:
    """What a pull into an empty ledger made of them, its seconds, and the processor's."""
    store = Store(f"sqlite:///{folder}/itb.db")
    migrate(store)
    with store.write() as c:
        endpoint = endpoints.add(c, 1, "ehr", url, {}, now=now())
    begun, worked = time.perf_counter(), time.process_time()
    found = pull(store, HttpEhr(url), endpoint, now, thorough=False)
    return found.counts, time.perf_counter() - begun, time.process_time() - worked, store


def memory() -> int:
    """The most that this process has held so far, in MB."""
    return process.getrusage(process.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--resources", type=int, default=20_000)
    parser.add_argument("--at-least", type=float, default=0.8, help="fail below this ratio of the rates")
    parser.add_argument("--url", help="an EHR that runs already and holds nothing else; else one is started")
    chosen = parser.parse_args()
    tune()  # as `itb sync` is
    run = f"b{os.getpid()}"
    with hapi_at(chosen.url, memory="4g") as (url, _), tempfile.TemporaryDirectory() as name:
        fill(HttpEhr(url, deadline_s=300), run, chosen.resources)
        first, seconds = bare(url)
        before = memory()
        counts, took, worked, store = pulled(url, Path(name))
        grown = memory() - before
        again, more = bare(url)
        with store.read() as c:
            kept = sum(len(events.find(c, 1, "ehr", f"{run}-{n}")) == 1 for n in range(chosen.resources))
    number = chosen.resources
    # The loop before and the one after: what else the machine does changes meanwhile.
    read = (seconds * number / first + more * number / again) / 2
    ratio = read / took
    print(f"{number} resources of {sid('refill').rpartition('/')[2]}s, {PER_PAGE} a page, one commit a page")
    print(f"bare loop over the pages {number / read:8.0f} resources/s")
    print(f"pull into the ledger     {number / took:8.0f} resources/s   ratio {ratio:.2f}")
    print(f"the pull's own work      {worked / number * 1e6:8.0f} us of the processor for each")
    print(f"each an event once: {kept} of {number}; memory grew by {grown} MB")
    if counts.get("accepted") != number or kept != number:
        raise SystemExit(f"missed or doubled: {counts}")
    if grown > 50:
        raise SystemExit("memory is not flat")
    if ratio < chosen.at_least:
        raise SystemExit(f"ratio {ratio:.2f} is below {chosen.at_least}")


if __name__ == "__main__":
    main()
