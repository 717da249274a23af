"""A ledger and a fake EHR over HTTP, of any personality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mappings import read_fhir
from mappings.exact_json import dumps, loads
from service.fake_ehr.faults import plan_of
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, serving
from service.sync.ehr import HttpEhr
from site_of_tests import Site

MRN = ("http://hospital.invalid/mrn", "MRN001")
Json = Any


class Hospital:
    """A ledger and a fake EHR of one personality, which knows the child already."""

    def __init__(self, folder: Path, personality: str, faults: str = "", **options: Any) -> None:
        self.fake = FakeEhr(load(personality), plan_of(faults, 7))
        self.fake.register(*MRN)
        self._serving = serving(self.fake)
        self.site = Site(folder, **options)
        self.site.ehr = HttpEhr(self._serving.__enter__())  # type: ignore[assignment]

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        self.site.store.close()

    def held(self, type: str) -> list[Json]:
        """What the EHR holds of a type now."""
        pages = self.site.ehr.search(type, {"patient": f"Patient/{self.patient}"})
        return [resource for page in pages for resource in page.resources]

    @property
    def patient(self) -> str:
        (page, *_) = self.site.ehr.search("Patient", {"identifier": "|".join(MRN)})
        return str(page.resources[0]["id"])

    def told(self) -> list[bytes]:
        """The events that its documents tell."""
        events = [read_fhir(one).events[0] for one in self.held("DocumentReference")]
        return sorted(dumps(event) for event in events)

    def rungs(self) -> set[tuple[str, str | None]]:
        return {(d.status, d.rung) for d in self.site.deliveries()}

    def loss(self) -> list[Json]:
        return [loads(d.loss.encode()) if d.loss else None for d in self.site.deliveries()]
