"""On a real HAPI: what its users change and enter comes into the ledger, once, and is not sent back."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from werkzeug.serving import make_server

from mappings.codes import definition, sid
from mappings.exact_json import dumps, loads
from service.app import create_app
from service.bulk import source as bulk_source
from service.cli import main
from service.hapi_server import start_hapi
from service.intake import load, take
from service.settings import Settings
from service.store import conflicts, deliveries, endpoints, events
from service.store.conflicts import Conflict
from service.store.engine import Store, migrate
from service.store.keys import Caller
from service.sync import first_load, readback
from service.sync.ehr import HttpEhr
from service.sync.pull import read_waiting
from service.sync.resolve import decide
from service.sync.worker import connect, sync_once
from site_of_tests import HISTORY

FHIR = {"Content-Type": "application/fhir+json", "Cache-Control": "no-cache"}
MRN = "http://hospital.invalid/mrn"


def now() -> datetime:
    return datetime.now(UTC)


class Ward:
    """A ledger with HAPI as its endpoint, and a child of its own that no other test knows."""

    def __init__(self, folder: Path, hapi: str) -> None:
        self.hapi = hapi
        self.name = f"ward-{uuid.uuid4().hex[:8]}"
        self.store = Store(f"sqlite:///{folder}/itb.db")
        migrate(self.store)
        with self.store.write() as c:
            endpoints.add(c, 1, "hapi", hapi, {}, now=now())

    def send(self) -> list[str]:
        """The history of the sync tests, about this child and pump."""
        sent = [
            e
            | {"source": self.name, "patient": {"system": MRN, "value": self.name}}
            | {field: self.name for field in ("pump", "serial") if field in e}
            for e in HISTORY
        ]
        caller = Caller(1, "test")
        return [result.outcome for result in take(self.store, caller, map(load, sent), clock=now)]

    def sync(self) -> None:
        with self.store.read() as c:
            endpoint = endpoints.find(c, 1, "hapi")
        assert endpoint is not None
        assert sync_once(self.store, endpoint, now).ok

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = dumps(body) if body is not None else None
        answer = requests.request(
            method, f"{self.hapi}/{path}", data=data, headers=FHIR | headers, timeout=60
        )
        answer.raise_for_status()
        return loads(answer.content)

    def register(self) -> None:
        self.call("POST", "Patient", {"resourceType": "Patient", "identifier": [self.patient]})

    @property
    def patient(self) -> Any:
        return {"system": MRN, "value": self.name}

    def find(self, type: str, kind: str, id: str) -> Any:
        """The one resource that HAPI holds under an identity of ours."""
        found = self.call("GET", f"{type}?identifier={sid(kind)}|{self.name}.{id}")
        (entry,) = found["entry"]
        return entry["resource"]

    def put(self, resource: Any) -> None:
        path = f"{resource['resourceType']}/{resource['id']}"
        self.call("PUT", path, resource, **{"If-Match": f'W/"{resource["meta"]["versionId"]}"'})

    def versions(self, source: str, id: str) -> list[Any]:
        with self.store.read() as c:
            return [stored.event for stored in events.find(c, 1, source, id)]

    def waiting(self) -> list[tuple[str, str | None]]:
        with self.store.read() as c:
            listed = deliveries.search(c, 1, limit=100)
        return [(d.status, d.reason) for d in listed if d.status != "sent"]


@contextmanager
def opened(folder: Path, hapi: str) -> Iterator[Ward]:
    made = Ward(folder, hapi)
    made.register()
    assert made.send() == ["accepted"] * len(HISTORY)
    made.sync()
    assert made.waiting() == []
    yield made
    made.store.close()


@pytest.fixture
def ward(tmp_path: Path, hapi: str) -> Iterator[Ward]:
    with opened(tmp_path, hapi) as made:
        yield made


@pytest.fixture
def lone_ward(tmp_path: Path) -> Iterator[Ward]:
    """The only one of its HAPI, which has nothing else to tell of.

    After many changes HAPI 8.8 may tell of one for ever, with each change of another, and never of that.
    """
    server = start_hapi(log_path=tmp_path / "hapi.log")
    with opened(tmp_path, server.base_url) as made:
        yield made
    server.stop()


def test_as_many_patients_as_are_looked_up_together_come_on_one_page(hapi: str) -> None:
    """A second page would keep a delivery waiting for half a second."""
    ehr, run = HttpEhr(hapi), uuid.uuid4().hex[:8]
    names = [{"system": MRN, "value": f"{run}-{n}"} for n in range(readback.TOKENS)]
    for name in names:
        ehr.create({"resourceType": "Patient", "identifier": [name]}, f"identifier={MRN}|{name['value']}")
    asked = {"identifier": ",".join(f"{MRN}|{name['value']}" for name in names)}
    (page,) = ehr.search("Patient", asked)
    assert len(page.resources) == len(names)


def test_a_lot_corrected_there_is_a_new_version_once(ward: Ward) -> None:
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    refill["contained"][0]["batch"]["lotNumber"] = "B77"
    ward.put(refill)
    ward.sync()
    ward.sync()
    first, second = ward.versions(ward.name, "R-1")
    assert second == first | {"version": 2, "drug": first["drug"] | {"lot": "B77"}}
    assert ward.find("MedicationAdministration", "refill", "R-1")["meta"]["versionId"] == "2"


def test_a_refill_entered_there_is_an_event_once(ward: Ward) -> None:
    """Entered as an EHR would: its own identifier, our profile, literal references only."""
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    own = f"X-{ward.name}"
    for name in ("id", "meta"):
        del refill[name]
    refill |= {
        "meta": {"profile": [definition("itb-refill")]},
        "identifier": [{"system": "http://ehr.invalid/administration", "value": own}],
        "effectiveDateTime": "2025-03-01T12:00:00-06:00",
        "subject": {"reference": refill["subject"]["reference"]},
        "device": [{"reference": refill["device"][0]["reference"]}],
    }
    made = ward.call("POST", "MedicationAdministration", refill)
    ward.sync()
    ward.sync()
    (event,) = ward.versions("hapi", own)
    wanted = ward.versions(ward.name, "R-1")[0]
    assert event == wanted | {"source": "hapi", "id": own, "occurred_at": "2025-03-01T12:00:00-06:00"}
    again = ward.call("GET", f"MedicationAdministration/{made['id']}")
    assert again["meta"]["versionId"] == "1"


def test_entered_in_error_set_there_withdraws_the_record_once(ward: Ward) -> None:
    session = ward.find("Procedure", "programming-session", "P-2")
    ward.put(session | {"status": "entered-in-error"})
    ward.sync()
    ward.sync()
    first, second = ward.versions(ward.name, "P-2")
    assert second == first | {"version": 2, "status": "entered-in-error"}
    assert ward.waiting() == []
    assert ward.find("MedicationRequest", "program", "P-2")["status"] == "entered-in-error"
    assert ward.find("MedicationAdministration", "segment", "P-2")["status"] == "entered-in-error"
    start, third = (ward.find("MedicationAdministration", "segment", f"P-{n}") for n in (1, 3))
    assert start["effectivePeriod"]["end"] == third["effectivePeriod"]["start"]
    assert "end" not in third["effectivePeriod"]


def test_a_second_sync_of_the_same_changes_nothing(ward: Ward) -> None:
    kinds = (("Procedure", "programming-session", "P-2"), ("MedicationRequest", "program", "P-2"))
    before = [ward.find(*kind)["meta"]["versionId"] for kind in kinds]
    assert ward.send() == ["replayed"] * len(HISTORY)
    ward.sync()
    assert [ward.find(*kind)["meta"]["versionId"] for kind in kinds] == before


# --- both sides, deletions, merged patients --------------------------------------------------------------


def asked(ward: Ward) -> list[Conflict]:
    with ward.store.read() as c:
        return conflicts.search(c, 1, limit=100, status="open")


def correct(ward: Ward, id: str, **changes: Any) -> None:
    event = ward.versions(ward.name, id)[-1]
    sent = {**event, **changes, "version": event.get("version", 1) + 1}
    (result,) = take(ward.store, Caller(1, "test"), [load(sent)], clock=now)
    assert result.outcome == "corrected"


def test_edits_on_both_sides_are_merged_into_one(ward: Ward) -> None:
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    refill["contained"][0]["batch"]["lotNumber"] = "B77"
    ward.put(refill)
    correct(ward, "R-1", note="left side")
    ward.sync()
    merged = ward.versions(ward.name, "R-1")[-1]
    assert (merged["version"], merged["drug"]["lot"], merged["note"]) == (3, "B77", "left side")
    there = ward.find("MedicationAdministration", "refill", "R-1")
    assert (there["contained"][0]["batch"]["lotNumber"], there["note"][0]["text"]) == ("B77", "left side")
    ward.sync()
    assert ward.find("MedicationAdministration", "refill", "R-1")["meta"] == there["meta"]
    assert (ward.waiting(), asked(ward)) == ([], [])


def test_a_strength_edited_there_waits_for_two_persons(ward: Ward) -> None:
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    refill["contained"][0]["ingredient"][0]["strength"]["numerator"]["value"] = 2000
    ward.put(refill)
    ward.sync()
    (conflict,) = asked(ward)
    assert ward.versions(ward.name, "R-1")[-1]["drug"]["concentration"]["value"] == 500
    for person in ("ann", "bob"):
        decide(ward.store, 1, conflict.id, {"drug.concentration": "ours"}, person, now())
    ward.sync()
    there = ward.find("MedicationAdministration", "refill", "R-1")
    assert there["contained"][0]["ingredient"][0]["strength"]["numerator"]["value"] == 500
    assert (ward.waiting(), asked(ward)) == ([], [])


def test_what_was_deleted_there_is_asked_and_not_brought_back(ward: Ward) -> None:
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    provenance = ward.call("GET", f"Provenance?target=MedicationAdministration/{refill['id']}")
    for entry in provenance.get("entry", []):
        ward.call("DELETE", f"Provenance/{entry['resource']['id']}")
    ward.call("DELETE", f"MedicationAdministration/{refill['id']}")
    ward.sync()
    (conflict,) = asked(ward)
    assert (conflict.kind, conflict.event_id) == ("deleted", "R-1")
    correct(ward, "R-1", note="left side")
    with ward.store.read() as c:
        endpoint = endpoints.find(c, 1, "hapi")
    assert endpoint is not None
    sync_once(ward.store, endpoint, now)
    assert [reason for _, reason in ward.waiting()] == [f"conflict {conflict.id}: a person must decide"]
    gone = requests.get(f"{ward.hapi}/MedicationAdministration/{refill['id']}", timeout=60)
    assert gone.status_code == 410


def test_a_patient_merged_there_is_followed(ward: Ward) -> None:
    old = ward.call("GET", f"Patient?identifier={MRN}|{ward.name}")["entry"][0]["resource"]
    other = {"reference": f"Patient/{old['id']}"}
    new = ward.call(
        "POST",
        "Patient",
        {
            "resourceType": "Patient",
            "identifier": [{"system": MRN, "value": f"{ward.name}-new"}],
            "link": [{"other": other, "type": "replaces"}],
        },
    )
    survivor = {"other": {"reference": f"Patient/{new['id']}"}, "type": "replaced-by"}
    ward.put({**old, "active": False, "link": [survivor]})
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    refill["subject"] = {"reference": f"Patient/{new['id']}"}
    refill["contained"][0]["batch"]["lotNumber"] = "B77"
    ward.put(refill)
    correct(ward, "P-3", reason="spasms")
    ward.sync()
    corrected = ward.versions(ward.name, "R-1")[-1]
    assert (corrected["drug"]["lot"], corrected["patient"]) == ("B77", ward.patient)
    session = ward.find("Procedure", "programming-session", "P-3")
    assert session["subject"]["reference"] == f"Patient/{new['id']}"
    assert (ward.waiting(), asked(ward)) == ([], [])


def test_what_was_added_there_stays_when_we_write_again(ward: Ward) -> None:
    added = {"url": "http://ehr.invalid/billing", "valueString": "B-17"}
    for type, kind, id in (
        ("Procedure", "programming-session", "P-3"),
        ("MedicationAdministration", "segment", "P-3"),
    ):
        resource = ward.find(type, kind, id)
        resource.setdefault("extension", []).append(added)
        ward.put(resource)
    ward.sync()
    correct(ward, "P-3", status="entered-in-error")
    ward.sync()
    session = ward.find("Procedure", "programming-session", "P-3")
    segment = ward.find("MedicationAdministration", "segment", "P-3")
    assert {session["status"], segment["status"]} == {"entered-in-error"}
    assert added in session["extension"]
    assert added in segment["extension"]
    assert (ward.waiting(), asked(ward)) == ([], [])


# --- notifications ----------------------------------------------------------------------------------------


class Listener:
    """The service on a loopback port, as HAPI reaches it; `told` is set by a notification about one id.

    Others come too: HAPI tells late, and of everything that other tests write on it.
    """

    def __init__(self, store_url: str, about: str) -> None:
        app = create_app(Settings(database_url=store_url, min_free_bytes=0))
        self.told = threading.Event()

        def listening(environ: Any, start: Any) -> Any:
            answer = app.wsgi_app(environ, start)
            if environ["PATH_INFO"].endswith(f"/{about}"):
                self.told.set()
            return answer

        self._server = make_server("127.0.0.1", 0, listening, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()


def test_an_edit_is_told_by_a_subscription_and_read_before_any_poll(lone_ward: Ward, tmp_path: Path) -> None:
    ward = lone_ward
    url = f"sqlite:///{tmp_path}/itb.db"
    refill = ward.find("MedicationAdministration", "refill", "R-1")
    listener = Listener(url, refill["id"])
    env = {"ITB_DATABASE_URL": url}
    arguments = ["endpoints", "subscribe", "hapi", listener.url, "--type", "MedicationAdministration"]
    made = CliRunner().invoke(main, arguments, env=env)
    assert made.exit_code == 0, made.output
    subscription = made.output.split("\t")[1].strip()
    try:
        for attempt in range(60):
            # HAPI answers a Subscription at once and hears of changes a little later.
            refill["contained"][0]["batch"]["lotNumber"] = f"B{attempt}"
            ward.put(refill)
            refill = ward.find("MedicationAdministration", "refill", "R-1")
            if listener.told.wait(1):
                break
        with ward.store.read() as c:
            endpoint = endpoints.find(c, 1, "hapi")
        assert endpoint is not None
        read_waiting(ward.store, connect(endpoint), endpoint, now)
        assert ward.versions(ward.name, "R-1")[-1]["drug"]["lot"] == f"B{attempt}"
    finally:
        requests.delete(f"{ward.hapi}/{subscription}", timeout=60)
        listener.stop()


def test_a_first_load_by_its_export_is_what_polls_would_have_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAPI asks to be polled every two minutes, which nobody waits for here."""
    monkeypatch.setattr(bulk_source, "MOST_WAIT_S", 0.5)
    server = start_hapi(log_path=tmp_path / "hapi.log", jobs_every_ms=300)
    try:
        with opened(tmp_path, server.base_url):
            loaded, polled = (Reader(tmp_path / name, server.base_url) for name in ("loaded", "polled"))
            found = first_load.load(loaded.store, connect(loaded.endpoint), loaded.endpoint, now)
            assert found.incomplete == ()
            polled.poll()
            assert loaded.held() == polled.held()
            assert len(loaded.held()) == len(HISTORY)
            loaded.poll()
            assert loaded.held() == polled.held()
    finally:
        server.stop()


class Reader:
    """A ledger that has sent nothing, with HAPI as its endpoint."""

    def __init__(self, folder: Path, hapi: str) -> None:
        folder.mkdir()
        self.store = Store(f"sqlite:///{folder}/itb.db")
        migrate(self.store)
        with self.store.write() as c:
            self.endpoint = endpoints.add(c, 1, "hapi", hapi, {}, now=now())

    def poll(self) -> None:
        assert sync_once(self.store, self.endpoint, now).ok

    def held(self) -> list[bytes]:
        with self.store.read() as c:
            return sorted(dumps(one.event) for one in events.search(c, 1, limit=1000))
