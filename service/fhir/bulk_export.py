"""What a bulk export holds: the record of each patient as of one number of the ledger.

No file is kept. The ledger only grows, so what an export says follows from its row for ever, and a
download reads it from there, patient by patient (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mappings.exact_json import dumps
from service.store import bulk, cohort
from service.store.bulk import BulkJob
from service.store.engine import Store

from . import record

Json = Any
Patient = tuple[str, str]
PER_FILE = 10_000
"""Resources after which the next patient begins another file."""
PAGE = 200
OVERLAP = timedelta(seconds=60)
"""`_since` reaches back by this: an event whose transaction was open at that moment is not missed."""
BEAT = timedelta(seconds=1)
DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters of an export: types (empty is every one), the stamp after which a resource counts as
    changed, the source of a group."""

    types: tuple[str, ...] = ()
    changed_after: str | None = None
    source: str | None = None

    @classmethod
    def of(cls, kept: Json) -> Asked:
        return cls(tuple(kept["types"]), kept["changed_after"], kept["source"])


@dataclass(frozen=True, slots=True)
class File:
    """One file: the resources of `type` (or DELETE entries) of the patients from after one up to another."""

    name: str
    type: str
    after: Patient
    last: Patient
    count: int


def shown(asked: Asked, resources: Iterator[Json] | list[Json]) -> Iterator[tuple[str, Json]]:
    """(file's type, resource) of one patient's resources, as far as they were asked for.

    With `_since`, what was entered in error since then is a resource to delete, and not one to keep.
    """
    after = asked.changed_after
    for resource in resources:
        type = resource["resourceType"]
        if asked.types and type not in asked.types:
            continue
        if after is not None and resource["meta"]["lastUpdated"] <= after:
            continue
        gone = after is not None and record.is_retracted(resource)
        yield (DELETED if gone else type), resource


def deletion(resource: Json) -> Json:
    """The transaction Bundle that tells a reader to let a resource go."""
    request = {"method": "DELETE", "url": f"{resource['resourceType']}/{resource['id']}"}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [{"request": request}]}


def patients(store: Store, job: BulkJob, asked: Asked, after: Patient = ("", "")) -> Iterator[Patient]:
    """The patients of the export, in the order of the database."""
    while True:
        with store.read() as c:
            page = cohort.patients(
                c,
                job.tenant_id,
                up_to=job.up_to,
                limit=PAGE,
                after=after,
                source=asked.source,
                since=asked.changed_after,
            )
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1]


def run(store: Store, job: BulkJob, worker: str, clock: Callable[[], datetime]) -> None:
    """Go through the export once, so that its files are known; ends early where the job was taken away."""
    asked = Asked.of(job.asked)
    done, open_files, files = 0, dict[str, File](), list[File]()
    before: Patient = ("", "")
    last_beat = clock()
    for patient in patients(store, job, asked):
        with store.read() as c:
            found = list(shown(asked, record.everything(c, job.tenant_id, patient, job.up_to)))
        _counted(found, patient, before, open_files, files)
        before, done = patient, done + 1
        if clock() - last_beat >= BEAT:
            last_beat = clock()
            with store.write() as c:
                if not bulk.beat(c, job.id, worker, now=last_beat, progress=f"{done} patients done"):
                    return
    files += open_files.values()
    listed = [asdict(file) for file in sorted(files, key=lambda f: (f.type, int(f.name.split(".")[1])))]
    with store.write() as c:
        bulk.beat(c, job.id, worker, now=clock(), status="done", files=listed)


def _counted(
    found: list[tuple[str, Json]],
    patient: Patient,
    before: Patient,
    open_files: dict[str, File],
    files: list[File],
) -> None:
    for type in {type for type, _ in found}:
        number = sum(1 for kind, _ in found if kind == type)
        held = open_files.get(type)
        if held is not None and held.count >= PER_FILE:
            files.append(held)
            held = None
        if held is None:
            part = 1 + sum(1 for file in files if file.type == type)
            held = File(f"{type}.{part}.ndjson", type, before, patient, 0)
        open_files[type] = replace(held, last=patient, count=held.count + number)


def lines(store: Store, job: BulkJob, name: str) -> Iterator[bytes] | None:
    """The lines of one of the job's files; None where it has none of that name."""
    kept = next((file for file in job.files if file["name"] == name), None)
    if kept is None:
        return None
    file = File(**kept | {"after": tuple(kept["after"]), "last": tuple(kept["last"])})
    return _lines(store, job, file)


def _lines(store: Store, job: BulkJob, file: File) -> Iterator[bytes]:
    asked = Asked.of(job.asked)
    for patient in patients(store, job, asked, file.after):
        with store.read() as c:
            if file.type == DELETED:
                held: Any = record.everything(c, job.tenant_id, patient, job.up_to)
            else:
                held = record.record(c, job.tenant_id, file.type, patient, job.up_to)
            told = list(shown(asked, held))
        for type, resource in told:
            if type == file.type:
                yield dumps(deletion(resource) if type == DELETED else resource) + b"\n"
        if patient == file.last:
            return
