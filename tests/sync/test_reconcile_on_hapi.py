"""On a real HAPI: what its users edit, delete and copy, and the server restored to an older state."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mappings.codes import sid
from mappings.paths import copy
from service.hapi_server import HapiServer, start_hapi
from service.server import free_port
from service.store import deliveries, drift, tables
from service.sync import reconcile, survey
from service.sync.ehr import HttpEhr, Missing
from service.sync.reconcile import Comparison
from service.sync.worker import sync_once
from site_of_tests import DEVICE, HISTORY, REFILL, Site

Json = Any


class RealSite(Site):
    """A ledger whose EHR is a HAPI with a database file, which can be copied and put back."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, create_missing_patients=True)
        self.folder, self.port = folder, free_port("127.0.0.1")
        self.server: HapiServer | None = None
        self.start()
        with self.store.write() as c:
            c.execute(tables.endpoints.update().values(url=self.http.url))

    def start(self) -> None:
        self.server = start_hapi(
            self.port, db=self.folder / "ehr" / "hapi", log_path=self.folder / "hapi.log", load_guide=False
        )
        self.http = HttpEhr(self.server.base_url)

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
        self.server = None

    def sync(self) -> None:
        result = sync_once(self.store, self.endpoint, self.now)
        assert result.error is None, result

    def compare(self, *, fix: bool = False) -> dict[str, int]:
        matrix = survey.matrix_of(self.store, self.http, self.endpoint, self.now)
        comparison = Comparison(self.store, self.http, self.endpoint, matrix, self.now, fix)
        self.run = reconcile.reconcile(comparison, "test")
        return self.run.counts

    def found(self) -> set[tuple[str, str, str]]:
        with self.store.read() as c:
            listed = drift.of_run(c, 1, self.run.id, limit=1000)
        return {(one.kind, one.system.rpartition("/")[2], one.value) for one in listed}

    def there(self, type: str, kind: str, id: str) -> list[Json]:
        pages = self.http.search(type, {"identifier": f"{sid(kind)}|clinic-a.{id}"})
        return [resource for page in pages for resource in page.resources]

    def all_versions(self) -> dict[str, str]:
        """Version of everything of ours that the EHR holds."""
        types = ("Device", "DeviceUseStatement", "MedicationAdministration", "MedicationRequest", "Procedure")
        return {
            f"{type}/{one['id']}": one["meta"]["versionId"]
            for type in types
            for page in self.http.search(type, {"_count": "200"})
            for one in page.resources
        }


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealSite]:
    made = RealSite(tmp_path)
    yield made
    made.stop()
    made.store.close()


def plant(site: RealSite) -> None:
    """What users of an EHR do: edit a refill, copy a program, delete a session."""
    (refill,) = site.there("MedicationAdministration", "refill", "R-1")
    edited = copy(refill)
    edited["contained"][0]["batch"]["lotNumber"] = "B77"
    request = {"method": "PUT", "url": f"MedicationAdministration/{refill['id']}", "ifMatch": 'W/"1"'}
    site.http.write({"resource": edited, "request": request})
    (order,) = site.there("MedicationRequest", "program", "P-2")
    body = {name: value for name, value in order.items() if name not in ("id", "meta")}
    site.http._call("POST", f"{site.http.url}/MedicationRequest", body)
    (session,) = site.there("Procedure", "programming-session", "P-3")
    about = f"Procedure/{session['id']}"
    for page in site.http.search("Provenance", {"target": about}):
        for provenance in page.resources:  # HAPI keeps what is referred to
            site.http._exchange("DELETE", f"{site.http.url}/Provenance/{provenance['id']}")
    site.http._exchange("DELETE", f"{site.http.url}/{about}")


def test_what_users_did_and_what_a_restored_server_lost_is_found_and_mended(real: RealSite) -> None:
    first, later = HISTORY[:3], HISTORY[3:]
    real.send(*first)
    real.sync()
    assert real.compare() == {}
    real.stop()
    shutil.copytree(real.folder / "ehr", real.folder / "backup")
    real.start()
    real.send(*later, REFILL | {"id": "R-2", "occurred_at": "2025-02-20T12:00:00-06:00"})
    real.sync()
    complete = real.all_versions()
    assert real.compare() == {}

    # R20: the EHR is restored to the state before `later`
    real.stop()
    shutil.rmtree(real.folder / "ehr")
    shutil.copytree(real.folder / "backup", real.folder / "ehr")
    real.start()
    counts = real.compare()
    wanted = {("missing", "refill", "clinic-a.R-2")}
    for id in ("P-2", "P-3"):
        wanted |= {
            ("missing", kind, f"clinic-a.{id}") for kind in ("program", "segment", "programming-session")
        }
    wanted |= {("reverted", kind, "clinic-a.P-1") for kind in ("program", "segment")}
    found = real.found()
    assert {one for one in found if one[1] != "Provenance"} == wanted
    assert sum(1 for one in found if one[:2] == ("missing", "Provenance")) == 3
    assert sum(counts.values()) == len(found)
    real.compare(fix=True)
    kept = real.all_versions()
    real.sync()
    assert real.compare() == {}
    after = real.all_versions()
    assert len(after) == len(complete)
    for name, version in kept.items():
        (held,) = [v for k, v in after.items() if k == name]
        assert held == version or name.startswith("Medication"), name  # the two that were turned back
    with real.store.read() as c:
        assert {d.status for d in deliveries.search(c, 1, limit=100)} == {"sent"}
    for id in ("P-1", "P-2", "P-3"):
        assert len(real.there("MedicationAdministration", "segment", id)) == 1

    # what its users did
    plant(real)
    assert real.compare() == {"different": 1, "duplicate": 1, "deleted": 2}
    real.compare(fix=True)
    real.sync()
    assert real.versions("clinic-a", "R-1")[-1]["drug"]["lot"] == "B77"
    assert real.there("Procedure", "programming-session", "P-3") == []
    with real.store.read() as c:
        (case,) = drift.search_cases(c, 1, limit=9, status="open")
    assert (case.value, len(case.remote_ids)) == ("clinic-a.P-2", 2)
    assert real.compare() == {"duplicate": 1}
    assert DEVICE["serial"]
    with pytest.raises(Missing):
        real.http.read("Procedure", "never-there")
