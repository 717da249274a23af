"""A large EHR read for the first time by its bulk export; polls then go on from the export's own moment.

What the files hold is taken in as pages of a poll are, so that what is known already changes nothing: a load
that was killed goes on with the export that it began, at the file where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from mappings import MappingError
from mappings.exact_json import dumps
from mappings.exact_json import loads as read_json
from service.bulk.source import Lost, Server, SourceError, kick_off
from service.progress import advancing, waiting
from service.store import audit, endpoints, loads, positions
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.loads import Load
from service.store.times import stamp

from . import survey
from .ehr import Ehr
from .pages import PER_PAGE, ahead, is_later
from .pull import TYPES, Round

Json = Any
Clock = Callable[[], datetime]
LEVELS = {"export": "$export", "patient-export": "Patient/$export"}
"""What a server may call its export in its CapabilityStatement, and where it is then asked for."""


class NotOffered(Exception):
    """The EHR's server has no bulk export, as far as it says."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many versions were new here, by what became of them; `incomplete` says what the export left out.

    Where it left anything out, polls begin at the start, and find it.
    """

    counts: dict[str, int]
    incomplete: tuple[str, ...]


def load(store: Store, ehr: Ehr, endpoint: Endpoint, now: Clock) -> Loaded:
    """Ask for an export or go on with the one that was begun, wait for it, take it in.

    Raises `NotOffered`; `SilentError` where it can go on later, `SourceError` where the export cannot be used
    (the next call begins anew where the server lost it); `EhrError`.
    """
    matrix = survey.matrix_of(store, ehr, endpoint, now)
    level = next((where for name, where in LEVELS.items() if name in matrix.operations), None)
    if level is None:
        raise NotOffered(f"{endpoint.name} offers no $export in its CapabilityStatement")
    types = [type for type in TYPES if "search-type" in matrix.of(type).interactions]
    headers = endpoint.options.get("headers") or {}
    going = _begun(store, endpoint, f"{endpoint.url}/{level}?_type={','.join(types)}", headers, now)
    try:
        return _take(
            Round(store, ehr, endpoint, now), Server(going.status_url, headers, waiting), types, going
        )
    except Lost:
        with store.write() as c:
            loads.end(c, endpoint.id)
        raise


def _take(round: Round, source: Server, types: list[str], going: Load) -> Loaded:
    store, endpoint, now = round.store, round.endpoint, round.now
    manifest = source.manifest()
    incomplete = list(_left_out(source, manifest))
    files = [file for file in _in_order(manifest["output"], types) if file["url"] not in going.done]
    with advancing("loading", len(files)) as step:
        for file in files:
            unread = _take_file(round, source, file)
            incomplete += unread
            if not unread:  # else it is read once more by who goes on, who then knows of it too
                going = replace(going, done=(*going.done, file["url"]))
                with store.write() as c:
                    loads.save(c, endpoint.id, going)
            step(1)
    _end(store, endpoint, types, manifest["transactionTime"], incomplete, now)
    return Loaded(round.counts, tuple(incomplete))


def _begun(store: Store, endpoint: Endpoint, url: str, headers: dict[str, str], now: Clock) -> Load:
    with store.read() as c:
        going = loads.find(c, endpoint.id)
    if going is not None:
        return going
    status_url = kick_off(url, headers, waiting)
    with store.write() as c:
        return loads.begin(c, endpoint, status_url, now=now())


def _in_order(files: list[Json], types: list[str]) -> list[Json]:
    """The files of what is read here, as polls read it: what others refer to first."""
    if not all(isinstance(file.get("type"), str) for file in files):
        raise SourceError("this is no bulk manifest: a file of it has no type")
    return sorted((f for f in files if f["type"] in types), key=lambda f: types.index(f["type"]))


def _left_out(source: Server, manifest: Json) -> Iterator[str]:
    """What the server itself says it could not export."""
    for file in manifest.get("error") or ():
        for line in source.lines(file["url"]):
            for issue in read_json(line).get("issue", ()) if line.strip() else ():
                if issue.get("severity") in ("fatal", "error"):
                    yield f"the server left something out: {issue.get('code')}"


# --- one file -------------------------------------------------------------------------------------------


def _take_file(round: Round, source: Server, file: Json) -> list[str]:
    """Take in a file; what of it could not be read."""
    incomplete: list[str] = []
    number = 0

    def resources() -> Iterator[Json]:
        nonlocal number
        for line in source.lines(file["url"]):
            if not line.strip():
                continue
            number += 1
            if (resource := _resource(line, file["type"])) is None:
                round.add({"unreadable": 1})
                incomplete.append(f"line {number} of a file of {file['type']}s cannot be read")
            else:
                yield resource

    for some in ahead(_pages(_pumps_first(resources()))):
        round.take(some, file["type"], None)
    if isinstance(file.get("count"), int) and file["count"] != number:
        raise SourceError(f"a file of {file['type']}s has {number} lines, and {file['count']} were promised")
    return incomplete


def _resource(line: bytes, type: str) -> Json | None:
    try:
        found = read_json(line.strip())
    except MappingError:
        return None
    is_one = (
        isinstance(found, dict) and found.get("resourceType") == type and isinstance(found.get("id"), str)
    )
    return found if is_one else None


def _pumps_first(resources: Iterable[Json]) -> Iterator[Json]:
    """A catheter names its pump: it waits, on the disk, until all pumps of the file have passed."""
    with tempfile.TemporaryFile() as later:
        for resource in resources:
            if resource["resourceType"] == "Device" and "parent" in resource:
                later.write(dumps(resource) + b"\n")
            else:
                yield resource
        later.seek(0)
        for line in later:
            yield read_json(line)


def _pages(resources: Iterator[Json]) -> Iterator[list[Json]]:
    while page := list(islice(resources, int(PER_PAGE))):
        yield page


# --- the end --------------------------------------------------------------------------------------------


def _end(
    store: Store, endpoint: Endpoint, types: list[str], moment: str, incomplete: list[str], now: Clock
) -> None:
    """The next poll goes on from the export's moment; from the start, where the export left anything out."""
    with store.write() as c:
        if not incomplete:
            known = positions.of(c, endpoint.id)
            for type in types:
                if is_later(moment, known.get(type)):
                    positions.save(c, endpoint, type, moment, now=now())
            endpoints.set_cursor(c, endpoint.id, moment)
        loads.end(c, endpoint.id)
        audit.write(
            c,
            endpoint.tenant_id,
            at=stamp(now()),
            actor="sync",
            action="loaded",
            subject=f"endpoint/{endpoint.name}",
            detail="; ".join(incomplete[:20]) or f"by bulk export of {moment}",
        )
