"""Many writers of the same events, each with a ledger of its own, at one real HAPI: none doubled, none lost.

Nothing but the EHR stands between them: as after a backup was restored twice, or two sites were set up alike.
It is small in the suite; `make writers` has 64 writers of 500 events (`ITB_WRITERS`, `ITB_WRITTEN`).
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mappings import identity, resources
from mappings.event import load_event
from service.intake import load, take
from service.store import deliveries, endpoints, links
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync.ehr import HttpEhr
from service.sync.outbox import Keeper, step
from service.sync.patient_cache import Patients
from service.sync.push import Route
from service.sync.worker import step_name
from site_of_tests import DRUG

Json = Any
Key = tuple[str, str]
MRN = "http://hospital.invalid/mrn"
WRITERS = int(os.environ.get("ITB_WRITERS", "16"))
WRITTEN = int(os.environ.get("ITB_WRITTEN", "50"))
PUMPS = 50
TAKEN = datetime(2026, 1, 1, tzinfo=UTC)
"""When every ledger took the events in: what they say is the same, digit for digit."""


def now() -> datetime:
    return datetime.now(UTC)


def refill(run: str, number: int) -> Json:
    pump = number % PUMPS
    return {
        "type": "refill",
        "source": "writers",
        "id": f"{run}-{number}",
        "patient": {"system": MRN, "value": f"{run}-{pump}"},
        "pump": f"{run}{pump}",
        "occurred_at": f"2025-{number // PUMPS % 12 + 1:02}-03T12:00:00-06:00",
        "drug": DRUG,
        "volume_instilled": {"value": 20, "unit": "mL"},
    }


class Writer:
    """A ledger that took the events in, and brings them to HAPI."""

    def __init__(self, folder: Path, hapi: str, events: list[Json]) -> None:
        self.store = Store(f"sqlite:///{folder}/{uuid.uuid4().hex}.db")
        migrate(self.store)
        with self.store.write() as c:
            self.endpoint = endpoints.add(c, 1, "hapi", hapi, {}, now=now())
        list(take(self.store, Caller(1, "test"), map(load, events), clock=lambda: TAKEN))

    def work(self, together: threading.Barrier) -> None:
        """Deliver until nothing waits; a retry is waited for as in a running service."""
        route = Route(
            self.store, HttpEhr(self.endpoint.url), self.endpoint, Patients(self.endpoint, now), now
        )
        keeper = Keeper(self.store, now)
        together.wait()
        while self.waits():
            heard = self.store.bell.count(self.endpoint.id)
            if step(route, keeper, step_name()) is None:
                self.store.bell.wait(self.endpoint.id, heard, 0.1)

    def waits(self) -> int:
        with self.store.read() as c:
            return deliveries.counts(c)["pending"]

    def told(self, keys: list[Key]) -> dict[Key, str]:
        """Which resource of HAPI it believes each identity to be; of what it holds as sent."""
        with self.store.read() as c:
            counts = deliveries.counts(c)
            assert counts["sent"] == sum(counts.values()), counts
            return {key: link.remote_id for key, link in links.find_many(c, self.endpoint.id, keys).items()}


def registered(ehr: HttpEhr, value: str) -> str:
    """`Patient/id` of a patient who is there now."""
    named = [{"system": MRN, "value": value}]
    made = ehr.create({"resourceType": "Patient", "identifier": named}, f"identifier={MRN}|{value}")
    return f"Patient/{made['id']}"


def wanted(events: list[Json]) -> dict[Key, Json]:
    """Every resource that HAPI should hold, by its identity."""
    at = "2026-01-01T00:00:00.000Z"
    made = [one for event in events for one in resources(load_event(event), recorded=at)]
    return {identity.resource_identity(one): one for one in made}


def everything(ehr: HttpEhr, patients: list[str], expected: dict[Key, Json]) -> dict[Key, list[Json]]:
    """What the patients' records in the EHR hold, and the Provenances, which no patient's record has."""
    held: dict[Key, list[Json]] = {}
    for patient in patients:
        for page in ehr.search("MedicationAdministration", {"patient": patient}):
            for one in page.resources:
                held.setdefault(identity.resource_identity(one), []).append(one)
    ids = sorted(id for type, id in expected if type == "Provenance")
    for at in range(0, len(ids), 20):
        for page in ehr.search("Provenance", {"_id": ",".join(ids[at : at + 20])}):
            for one in page.resources:
                held.setdefault(identity.resource_identity(one), []).append(one)
    return held


def wrong(ehr: HttpEhr, writers: list[Writer], events: list[Json], patients: list[str]) -> Counter[str]:
    """What HAPI or a writer has other than once, other than it was sent, or in a later version."""
    expected = wanted(events)
    found = Counter[str]()
    held = everything(ehr, patients, expected)
    for key, resource in expected.items():
        there = held.get(key, [])
        found["lost"] += not there
        found["doubled"] += len(there) > 1
        said = identity.content_hash(resource)
        found["changed"] += any(identity.content_hash(one) != said for one in there)
        found["written again"] += any(one["meta"]["versionId"] != "1" for one in there)
    found["of nobody"] = len(held.keys() - expected.keys())
    for writer in writers:
        told = writer.told(list(expected))
        for key, there in held.items():
            found["linked elsewhere"] += told.get(key) not in {one["id"] for one in there}
    return +found


@pytest.fixture
def run() -> str:
    return f"w{uuid.uuid4().hex[:8]}"


def at_once(folder: Path, hapi: str, run: str, number: int, written: int) -> Counter[str]:
    events = [refill(run, n) for n in range(written)]
    ehr = HttpEhr(hapi)
    patients = [registered(ehr, value) for value in sorted({event["patient"]["value"] for event in events})]
    together = threading.Barrier(number)
    writers = [Writer(folder, hapi, events) for _ in range(number)]
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(lambda writer: writer.work(together), writers))
    made = wrong(ehr, writers, events, patients)
    for writer in writers:
        writer.store.close()
    return made


def test_many_writers_of_the_same_events_double_and_lose_nothing(tmp_path: Path, hapi: str, run: str) -> None:
    assert at_once(tmp_path, hapi, run, WRITERS, WRITTEN) == {}


def test_writers_that_ask_no_condition_are_seen_to_double(
    tmp_path: Path, hapi: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = HttpEhr.transaction

    def plain(self: HttpEhr, bundle: Json) -> list[Json]:
        for entry in bundle["entry"]:
            entry["request"].pop("ifNoneExist", None)
        return right(self, bundle)

    monkeypatch.setattr(HttpEhr, "transaction", plain)
    assert at_once(tmp_path, hapi, run, 4, 10)["doubled"]
