"""The fake EHR in this process, without a socket: the sync's own adapter talks to its core.

`before` and `after` hold faults, one for each call that is no search: functions that raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import responses
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from mappings.exact_json import dumps, loads
from service.fake_ehr import personality, wire
from service.fake_ehr.interactions import apply
from service.fake_ehr.state import State
from service.sync.ehr import Ambiguous, HttpEhr

Json = Any
Fault = Callable[[str], None]
EHRS = Path(__file__).parents[1] / "fixtures" / "ehr"
START = datetime(2026, 1, 1, tzinfo=UTC)
URL = "http://ehr.invalid/fhir"


class MemoryEhr(HttpEhr):
    """Every write moves its clock on by a second."""

    statement = EHRS / "hapi.json"
    """What it says of itself, as recorded; a test may let it say something else."""

    def __init__(self, make: str = "hapi") -> None:
        super().__init__(URL)
        self.state = State(personality.load(make), URL)
        self.calls: list[str] = []
        self.before: list[Fault] = []
        self.after: list[Fault] = []
        self._time = START
        self._lock = threading.Lock()
        self._session.mount("http://", InProcess(self._handle))

    @property
    def history(self) -> dict[tuple[str, str], list[Json]]:
        """Versions of each resource that is there, newest last; changing it changes nothing."""
        return {
            key: [v.resource for v in versions]
            for key, versions in self.state.versions.items()
            if versions[-1].resource is not None
        }

    def metadata(self) -> Json:
        return loads(self.statement.read_bytes())

    def place(self, resource: Json) -> Json:
        """What the EHR registered by itself, under the resource's id; a second time replaces the record."""
        key = (resource["resourceType"], resource["id"])
        return self.state.write(key, resource, "PUT", self._later()).resource

    def update(self, resource: Json) -> Json:
        """What a user of the EHR does: change a resource there."""
        version = f'W/"{resource["meta"]["versionId"]}"'
        url = f"{resource['resourceType']}/{resource['id']}"
        request = {"method": "PUT", "url": url, "ifMatch": version}
        bundle = {"type": "transaction", "entry": [{"resource": resource, "request": request}]}
        return self.transaction({"resourceType": "Bundle", **bundle})[0]

    def remove(self, type: str, id: str) -> None:
        """What a user of the EHR does: delete a resource there, whatever refers to it."""
        strict = self.state.personality
        self.state.personality = replace(strict, references="taken")
        self.state.remove((type, id), self._later())
        self.state.personality = strict

    def _later(self) -> datetime:
        self._time += timedelta(seconds=1)
        return self._time

    def _handle(self, request: wire.Request) -> wire.Response:
        name = wire.route(request).name
        self.calls.append(name)
        counts = name not in ("search", "page", "metadata")
        if counts and self.before:
            self.before.pop(0)(name)
        with self._lock:
            made = apply(self.state, request, self._later() if counts else self._time)
        if counts and name != "read" and self.after:
            self.after.pop(0)(name)
        return made


class InProcess(BaseAdapter):
    """Hands requests to a function instead of a socket."""

    def __init__(self, handle: Callable[[wire.Request], wire.Response]) -> None:
        super().__init__()
        self._handle = handle

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        assert request.url is not None
        assert request.method is not None
        parts = urlsplit(request.url)
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        body = loads(request.body) if request.body else None
        path = parts.path.removeprefix(urlsplit(URL).path).strip("/")
        made = self._handle(wire.Request(request.method, path, query, headers, body))
        answer = requests.Response()
        answer.status_code, answer.reason = made.status, responses.get(made.status, "")
        answer.request, answer.url = request, request.url
        answer.headers.update({"Content-Type": "application/fhir+json", **made.headers})
        content = BytesIO(dumps(made.body) if made.body is not None else b"")
        answer.raw = HTTPResponse(content, preload_content=False)
        return answer

    def close(self) -> None:
        """Nothing is open."""


def lose_answer(name: str) -> None:
    """A fault: it was done, and nobody heard of it."""
    raise Ambiguous(f"{name}: no answer")
