"""An EHR in memory that enforces the real rules (versions, If-None-Exist, atomic transactions).

The contract tests hold it to what a real HAPI does; `faults` injects what a real one cannot be asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mappings.exact_json import loads
from mappings.paths import copy
from service.sync.ehr import Ambiguous, Missing, Page, Refused, Stale

Json = Any
Fault = Callable[[str], None]
EHRS = Path(__file__).parents[1] / "fixtures" / "ehr"
START = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryEhr:
    """Versions of each resource, newest last; every write moves its clock on by a second."""

    statement = EHRS / "hapi.json"
    """What it says of itself; a test may let it say something else."""

    def __init__(self) -> None:
        self.history: dict[tuple[str, str], list[Json]] = {}
        self.calls: list[str] = []
        self.before: list[Fault] = []
        self.after: list[Fault] = []
        self._time = START
        self._last_id = 1000
        self._lock = threading.Lock()

    # --- the port -------------------------------------------------------------------------------------

    def metadata(self) -> Json:
        return loads(self.statement.read_bytes())

    def read(self, type: str, id: str) -> Json:
        self._call("read")
        if (type, id) not in self.history:
            raise Missing(f"{type}/{id}", 404)
        return copy(self.history[type, id][-1])

    def search(self, type: str, params: Mapping[str, str]) -> Iterator[Page]:
        self._call("search")
        found = [versions[-1] for (t, _), versions in self.history.items() if t == type]
        for name, value in params.items():
            if not name.startswith("_") or name in ("_lastUpdated", "_id"):
                found = [r for r in found if MATCH[name](r, value)]
        found.sort(key=lambda r: r["meta"]["lastUpdated"])
        yield Page([copy(r) for r in found], self._stamp())

    def transaction(self, bundle: Json) -> list[Json]:
        with self._lock:
            self._call("transaction")
            kept = {key: list(versions) for key, versions in self.history.items()}
            try:
                answer = self._all(bundle["entry"])
            except Exception:
                self.history = kept
                raise
        for fault in self.after[:1]:
            self.after.pop(0)
            fault("transaction")
        return answer

    def create(self, resource: Json, if_none_exist: str) -> Json:
        request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": if_none_exist}
        return self.transaction({"entry": [{"resource": resource, "request": request}]})[0]

    def update(self, resource: Json) -> Json:
        """What a user of the EHR does: change a resource there."""
        version = f'W/"{resource["meta"]["versionId"]}"'
        url = f"{resource['resourceType']}/{resource['id']}"
        request = {"method": "PUT", "url": url, "ifMatch": version}
        return self.transaction({"entry": [{"resource": resource, "request": request}]})[0]

    # --- how ------------------------------------------------------------------------------------------

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.before and name != "search":
            self.before.pop(0)(name)

    def _stamp(self) -> str:
        return self._time.isoformat(timespec="milliseconds")

    def _all(self, entries: list[Json]) -> list[Json]:
        targets = {}
        ids = []
        for entry in entries:
            type, id = self._target(entry)
            ids.append((type, id))
            targets[entry.get("fullUrl")] = f"{type}/{id}"
        return [self._write(entry, key, targets) for entry, key in zip(entries, ids, strict=True)]

    def _target(self, entry: Json) -> tuple[str, str]:
        request, type = entry["request"], entry["resource"]["resourceType"]
        if request["method"] == "PUT":
            return type, request["url"].partition("/")[2]
        system, value = identifier_of(request["ifNoneExist"].removeprefix("identifier="))
        found = [k for k, v in self.history.items() if k[0] == type and has_identifier(v[-1], system, value)]
        if len(found) > 1:
            raise Stale("several match", 412)
        if found:
            return found[0]
        self._last_id += 1
        return type, str(self._last_id)

    def _write(self, entry: Json, key: tuple[str, str], targets: dict[Any, str]) -> Json:
        request = entry["request"]
        there = self.history.get(key, [])
        if request["method"] == "POST" and there:
            return copy(there[-1])
        if "ifMatch" in request and (
            not there or request["ifMatch"] != f'W/"{there[-1]["meta"]["versionId"]}"'
        ):
            raise Stale("version conflict", 409)
        resource = resolved(entry["resource"], targets, self._exists)
        body = {k: v for k, v in resource.items() if k not in ("id", "meta")}
        if there and {k: v for k, v in there[-1].items() if k not in ("id", "meta")} == body:
            return copy(there[-1])
        self._time += timedelta(seconds=1)
        meta = {"versionId": str(len(there) + 1), "lastUpdated": self._stamp()}
        meta |= {k: v for k, v in resource.get("meta", {}).items() if k == "profile"}
        stored = {"resourceType": key[0], "id": key[1], "meta": meta, **body}
        self.history.setdefault(key, []).append(stored)
        return copy(stored)

    def _exists(self, reference: str) -> bool:
        type, _, id = reference.partition("/")
        return (type, id) in self.history


def identifier_of(token: str) -> tuple[str, str]:
    system, _, value = unquote(token).partition("|")
    return system, value


def has_identifier(resource: Json, system: str, value: str) -> bool:
    return any((i.get("system"), i.get("value")) == (system, value) for i in resource.get("identifier", []))


def resolved(node: Json, targets: dict[Any, str], exists: Callable[[str], bool]) -> Json:
    """References by urn made literal; a literal one must exist (HAPI: HAPI-1094)."""
    if isinstance(node, list):
        return [resolved(item, targets, exists) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: resolved(value, targets, exists) for key, value in node.items()}
    reference = made.get("reference")
    if isinstance(reference, str) and not reference.startswith("#"):
        made["reference"] = targets.get(reference, reference)
        if reference not in targets and not exists(reference):
            raise Refused(f"{reference} does not exist", 400)
    return made


MATCH: dict[str, Callable[[Json, str], bool]] = {
    "identifier": lambda r, value: has_identifier(r, *value.split("|", 1)),
    "_lastUpdated": lambda r, value: r["meta"]["lastUpdated"] >= value.removeprefix("ge"),
    "device": lambda r, value: (r.get("device") or {}).get("reference") in value.split(","),
    "_id": lambda r, value: r["id"] in value.split(","),
}


def lose_answer(name: str) -> None:
    """A fault: it was done, and nobody heard of it."""
    raise Ambiguous(f"{name}: no answer")
