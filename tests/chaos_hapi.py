"""A real HAPI as the EHR of a chaos run: on a file, killed, started again, its answers lost and mangled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import requests

from history import Write
from mappings.exact_json import dumps, loads
from service.fake_ehr.damage import AFTER, status_of
from service.fake_ehr.faults import KINDS, Fault, plan_of
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, Server
from service.fake_ehr.wire import Request, Response
from service.hapi_server import start_hapi
from service.server import free_port

FHIR = {"Content-Type": "application/fhir+json", "Cache-Control": "no-cache"}
WITHOUT = "stale+race+torn+partial+drip+delay"
"""What a server in the middle cannot do to another's records."""


class Between(FakeEhr):
    """Passes every request on to a server, and its answers back, as the plan leaves them."""

    def __init__(self, upstream: str, faults: str, seed: int) -> None:
        super().__init__(load("hapi"), plan_of(faults, seed))
        self.upstream = upstream
        self._session = requests.Session()

    def answer(self, request: Request, fault: Fault | None, former: Response | None) -> Response:
        if fault is not None and not KINDS[fault.kind].applies:
            return status_of(fault, self.now())
        made = self._passed_on(request)
        if fault is None:
            return made
        if fault.kind == "status-after":
            return status_of(fault, self.now())
        if fault.kind == "other" and former is not None:
            return former
        return AFTER[fault.kind](made) if fault.kind in AFTER else made

    def _passed_on(self, request: Request) -> Response:
        query = f"?{urlencode(request.query)}" if request.query else ""
        slash = "/" if request.path else ""
        url = f"{self.upstream}{slash}{request.path}{query}"
        names = ("content-type", "accept", "prefer", "if-match", "if-none-exist", "cache-control")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        body = dumps(request.body) if request.body is not None else None
        try:
            got = requests.request(request.method, url, data=body, headers=headers, timeout=60)
        except requests.RequestException:
            return Response(502)
        text = got.content.replace(self.upstream.encode(), self.state.url.encode())
        kept = {n: got.headers[n] for n in ("etag", "location", "retry-after") if n in got.headers}
        return Response(got.status_code, loads(text) if text else None, kept)


class HapiTarget:
    """HAPI on a file database, behind `Between`; killed and started again `restarts` times."""

    def __init__(self, folder: Path, faults: str, seed: int, restarts: int) -> None:
        self._folder, self._port = folder, free_port("127.0.0.1")
        self._left = [(n + 1) / (restarts + 1) * 0.8 for n in range(restarts)]
        self.restarts = 0
        self._server = self._started()
        self._between = Between(self._server.base_url, faults, seed)
        self._http = Server(self._between)
        self.url = self._http.url
        Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self._counted, self._seen = 0.0, 0

    def _started(self) -> Any:
        log = self._folder / "hapi.log"
        return start_hapi(self._port, db=self._folder / "hapi", log_path=log, load_guide=False)

    def register(self, patients: Sequence[Any]) -> None:
        entries = [
            {
                "resource": {"resourceType": "Patient", "identifier": [one]},
                "request": {"method": "POST", "url": "Patient"},
            }
            for one in patients
        ]
        body = dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
        requests.post(self._server.base_url, data=body, headers=FHIR, timeout=60).raise_for_status()

    def applied(self) -> int:
        if time.monotonic() - self._counted > 0.5:
            url = f"{self._server.base_url}/Provenance?_summary=count"
            self._seen = int(requests.get(url, headers=FHIR, timeout=60).json()["total"])
            self._counted = time.monotonic()
        return self._seen

    def disturb(self, progress: float) -> None:
        if self._left and progress >= self._left[0]:
            self._left.pop(0)
            self._server.process.kill()
            self._server.process.wait()
            self._server = self._started()
            self.restarts += 1

    def calm(self) -> None:
        self._between.replan(plan_of(""))

    def writes(self) -> list[Write]:
        found: list[Write] = []
        url: str | None = f"{self._server.base_url}/_history?_count=500"
        while url is not None:
            page = loads(requests.get(url, headers=FHIR, timeout=120).content)
            for entry in page["entry"]:
                resource = entry.get("resource")
                if resource is not None:
                    meta = resource["meta"]
                    key = (resource["resourceType"], resource["id"], int(meta["versionId"]))
                    found.append(Write(*key, meta["lastUpdated"], resource))
            url = next((li["url"] for li in page["link"] if li["relation"] == "next"), None)
        return sorted(found, key=lambda w: (w.position, w.type, w.id, w.version))

    def faults(self) -> Counter[str]:
        return self._between.faults

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._server.stop()
