"""A ledger, an EHR in memory and a clock that the test moves: what the sync tests share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fakes import MemoryEhr
from mappings import identity
from mappings.codes import sid
from mappings.paths import copy
from service.intake import load, take
from service.store import conflicts, deliveries, endpoints, events
from service.store.conflicts import Conflict
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync.pull import pull
from service.sync.resolve import decide
from service.sync.worker import push_due

PATIENT = {"system": "http://hospital.invalid/mrn", "value": "MRN001"}
STRENGTH = {"value": 500, "unit": "ug/mL"}
NOON = "2025-02-03T12:00:00-06:00"


def program(dose: int) -> dict[str, Any]:
    return {"mode": "simple", "daily_dose": {"value": dose, "unit": "ug/d"}, "concentration": STRENGTH}


def event(type: str, id: str, **more: Any) -> dict[str, Any]:
    made = {"type": type, "source": "clinic-a", "id": id, "patient": PATIENT, "occurred_at": NOON}
    return made | ({} if type == "device" else {"pump": "NGP1"}) | more


DEVICE = event("device", "D-1", kind="pump", serial="NGP1", reservoir_capacity={"value": 20, "unit": "mL"})
DRUG = {"name": "baclofen", "concentration": STRENGTH, "lot": "A1234", "expires_on": "2027-09-30"}
REFILL = event("refill", "R-1", drug=DRUG, volume_instilled={"value": 20, "unit": "mL"})
START = event("dose-change", "P-1", after=program(100))
SECOND = event(
    "dose-change", "P-2", occurred_at="2025-02-05T12:00:00-06:00", before=program(100), after=program(110)
)
THIRD = event(
    "dose-change", "P-3", occurred_at="2025-02-07T12:00:00-06:00", before=program(110), after=program(125)
)
HISTORY = (DEVICE, REFILL, START, SECOND, THIRD)

Json = Any


class Site:
    """One ledger (on SQLite in `folder`, or where `url` says) and one endpoint; a restart opens it anew."""

    def __init__(self, folder: Path, url: str = "", **options: Any) -> None:
        self.url = url or f"sqlite:///{folder}/itb.db"
        self.store = Store(self.url)
        migrate(self.store)
        self.ehr = MemoryEhr()
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        with self.store.write() as c:
            endpoints.add(c, 1, "hapi", "http://ehr.invalid/fhir", options, now=self.now())

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    def restart(self) -> None:
        self.time += timedelta(minutes=1)  # what the process before it held has ended
        self.store.close()
        self.store = Store(self.url)

    def register(self, value: str = "MRN001") -> dict[str, Any]:
        """The EHR registers a patient (a second call with the same value: one more of that identity)."""
        made = {"resourceType": "Patient", "id": f"p{len(self.ehr.history)}"}
        return dict(self.ehr.place(made | {"identifier": [PATIENT | {"value": value}]}))

    @property
    def endpoint(self) -> Endpoint:
        with self.store.read() as c:
            found = endpoints.find(c, 1, "hapi")
        assert found is not None
        return found

    def send(self, *sent: dict[str, Any]) -> list[str]:
        caller = Caller(1, "test")
        return [r.outcome for r in take(self.store, caller, [load(s) for s in sent], clock=self.now)]

    def push(self, rounds: int = 100) -> dict[str, int]:
        """Deliver until nothing is due; an hour passes between rounds, so that no retry is waited for."""
        total: dict[str, int] = {}
        for number in range(rounds):
            step = push_due(self.store, self.endpoint, self.ehr, self.now)
            for status, number in step.items():
                total[status] = total.get(status, 0) + number
            if not step and number:
                break
            self.time += timedelta(hours=1)
        return total

    def pull(self) -> dict[str, int]:
        return pull(self.store, self.ehr, self.endpoint, self.now).counts

    def deliveries(self) -> list[Delivery]:
        with self.store.read() as c:
            return deliveries.search(c, 1, limit=100)

    def versions(self, source: str, id: str) -> list[dict[str, Any]]:
        with self.store.read() as c:
            return [stored.event for stored in events.find(c, 1, source, id)]

    def held(self, kind: str, id: str, type: str | None = None) -> list[list[dict[str, Any]]]:
        """The histories of what the EHR holds under clinic-a's identity of that kind."""
        wanted = (sid(kind), identity.business_value("clinic-a", id))
        return [
            versions
            for (t, _), versions in self.ehr.history.items()
            if type in (None, t)
            and wanted in {(i["system"], i["value"]) for i in versions[-1].get("identifier", [])}
        ]

    def one(self, kind: str, id: str) -> dict[str, Any]:
        (history,) = self.held(kind, id)
        return history[-1]

    def running(self) -> list[str]:
        """The segments without an end."""
        return [
            versions[-1]["identifier"][0]["value"]
            for versions in self.ehr.history.values()
            if versions[-1].get("status") == "in-progress"
        ]


def delivered(folder: Path, url: str) -> Site:
    """A site whose EHR holds the whole history, read back from there."""
    made = Site(folder, url)
    made.register()
    made.send(*HISTORY)
    made.push()
    made.pull()
    return made


def edit(site: Site, kind: str, id: str, change: Any, type: str | None = None) -> None:
    """A user of the EHR changes a resource there: `change` is given a copy."""
    (history,) = site.held(kind, id, type)
    resource = copy(history[-1])
    change(resource)
    site.ehr.update(resource)


def open_conflicts(site: Site) -> list[Conflict]:
    with site.store.read() as c:
        return conflicts.search(c, 1, limit=100, status="open")


def the_conflict(site: Site) -> Conflict:
    (found,) = open_conflicts(site)
    return found


def say(site: Site, choices: dict[str, str], person: str) -> Conflict:
    """A person decides about the one conflict that is open."""
    found = decide(site.store, 1, the_conflict(site).id, choices, person, site.now())
    assert found is not None
    return found


def newest(site: Site, id: str) -> Json:
    return site.versions("clinic-a", id)[-1]
