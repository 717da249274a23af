"""Which Patient of an EHR each of many business identifiers names, as was found lately.

An EHR owns its patients. What was found is believed for a short while, for this endpoint (and so tenant)
alone: a backlog about one child asks once, and a merge of two patients is noticed soon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from mappings import identity
from service.store.endpoints import Endpoint

from . import patients
from .ehr import Ehr
from .readback import find
from .shape import Unresolved

Json = Any
Name = tuple[str, str]
BELIEVED = timedelta(seconds=60)


class Patients:
    """The patients of one endpoint that were found lately; used by all its threads."""

    def __init__(self, endpoint: Endpoint, now: Callable[[], datetime]) -> None:
        self._endpoint, self._now = endpoint, now
        self._lock = threading.Lock()
        self._found: dict[Name, tuple[str, datetime]] = {}

    def are_of(self, endpoint: Endpoint) -> bool:
        """Whether what was found holds for the endpoint as it is now."""
        return endpoint.is_as(self._endpoint)

    def known(self, name: Name) -> str | None:
        """`Patient/id`, while it is believed."""
        with self._lock:
            reference, until = self._found.get(name, ("", self._now()))
        return reference if until > self._now() else None

    def forget(self, names: Iterable[Name]) -> None:
        """Ask again for these: an answer spoke against what was believed."""
        with self._lock:
            for name in names:
                self._found.pop(name, None)

    def resolve(self, ehr: Ehr, names: Collection[Name]) -> dict[Name, str | Unresolved]:
        """`Patient/id` for each name, or why there is none."""
        answer: dict[Name, str | Unresolved] = {n: ref for n in names if (ref := self.known(n))}
        asked = sorted(set(names) - answer.keys())
        held = find(ehr, asked, dict.fromkeys(asked, "Patient"))
        until = self._now() + BELIEVED
        for name in asked:
            try:
                id = patients.surviving(held.get(name, []), lambda id: ehr.read("Patient", id), name[0])
            except patients.Unclear as error:
                may = self._endpoint.options.get("create_missing_patients")
                if not (may and isinstance(error, patients.Nobody)):
                    answer[name] = Unresolved(str(error))
                    continue
                id = _made(ehr, name)
            answer[name] = f"Patient/{id}"
            with self._lock:
                if len(self._found) > 10_000:
                    self._found.clear()
                self._found[name] = (f"Patient/{id}", until)
        return answer


def patients_of(endpoint: Endpoint, known: dict[int, Patients], now: Callable[[], datetime]) -> Patients:
    """Those in `known`; new ones there, once the endpoint was given another URL or other options."""
    found = known.get(endpoint.id)
    if found is None or not found.are_of(endpoint):
        found = known[endpoint.id] = Patients(endpoint, now)
    return found


def _made(ehr: Ehr, name: Name) -> str:
    resource = {"resourceType": "Patient", "identifier": [{"system": name[0], "value": name[1]}]}
    made: str = ehr.create(resource, f"identifier={identity.token(*name)}")["id"]
    return made
