"""`itb import-bulk`: a bulk export of another server into the ledger, as a job."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mappings import Issue, MappingError
from mappings.event import identity
from mappings.exact_json import dumps, loads
from mappings.identity import SOURCE
from service.bulk import reading as bulk_reading
from service.bulk.source import SilentError, Source, SourceError, source_of
from service.intake import Loaded
from service.opening import TENANT, now
from service.progress import advancing, waiting
from service.store import audit, events
from service.store.keys import Caller
from service.store.spool import Spool
from service.store.times import stamp

from . import checkpoint as marks
from .exits import Stopped, Unreachable
from .job import CHECKPOINT, DRY_RUN, REPORT, Job
from .ledger_files import admitted

Json = Any


@click.command("import-bulk")
@click.argument("manifest")
@click.option(
    "--source", required=True, help="source of the records that were not ours, such as an EHR's name"
)
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="sent to the server, e.g. a token")
@DRY_RUN
@CHECKPOINT
@REPORT
def import_bulk(
    manifest: str,
    source: str,
    header: tuple[str, ...],
    dry_run: bool,
    checkpoint: Path | None,
    report: str | None,
) -> None:
    """Take the files of a FHIR bulk export into the ledger.

    MANIFEST is the URL that the kick-off answered with (an export that still runs is waited for), or a file
    with the NDJSON files beside it. What was deleted there is noted; nothing is retracted for it.
    """
    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    if dry_run and checkpoint:
        raise click.UsageError("--dry-run does nothing that a checkpoint could keep")
    headers = dict(_header(text) for text in header)
    with Job(f"import-bulk --source {source}", report, dry_run=dry_run) as job:
        try:
            _run(job, source, manifest, headers, checkpoint)
        except SilentError as error:
            raise Unreachable(str(error)) from None
        except SourceError as error:
            raise Stopped(str(error)) from None
        job.summary = job.counts


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"{text!r} is not NAME:VALUE")
    return name.strip(), value.strip()


def _run(job: Job, source: str, place: str, headers: dict[str, str], checkpoint: Path | None) -> None:
    if checkpoint is None:
        with tempfile.TemporaryDirectory(prefix="itb-bulk-") as folder:
            _import(job, source, source_of(place, headers, waiting), Spool(Path(folder) / "spool"))
        return
    with marks.held(checkpoint):
        try:
            spool = Spool(checkpoint)
        except (OSError, sqlite3.Error) as error:
            raise Stopped(
                f"{checkpoint} is not a checkpoint of this command: {type(error).__name__}"
            ) from None
        _import(job, source, source_of(place, headers, waiting), spool)


def _import(job: Job, source: str, origin: Source, spool: Spool) -> None:
    told = origin.manifest()
    named = [told["transactionTime"], *(one["url"] for one in told["output"])]
    if not spool.belongs_to(hashlib.sha256(dumps(named)).hexdigest()):
        spool.close()
        raise Stopped(f"{spool.path} is the checkpoint of another manifest: remove it to begin anew")
    with advancing("fetching", len(told["output"])) as step:
        for entry in told["output"]:
            _fetch(job, origin, spool, entry["url"])
            step(1)
    _take(job, source, spool)
    _note_deleted(job, source, origin, told.get("deleted", []))
    spool.remove()


# --- fetching -------------------------------------------------------------------------------------------


def _fetch(job: Job, origin: Source, spool: Spool, url: str) -> None:
    """A file is spooled whole or not at all, so that a killed run fetches it again."""
    done = spool.file(url) or spool.add(url, _spooled(job, url, origin.lines(url)))
    job.count("resources", done[0] - done[1])
    if done[1]:
        job.count("refused", done[1])


def _spooled(job: Job, url: str, lines: Iterable[bytes]) -> Iterator[tuple[str, str, str, bytes] | None]:
    name = url.rpartition("/")[2]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            resource = loads(line.strip())
            if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
                raise MappingError([Issue("$", "resource-type", "a FHIR resource is needed")])
            if not isinstance(resource.get("id"), str):
                raise MappingError([Issue("id", "required", "a resource of a server has an id")])
            try:
                patient = bulk_reading.patient_of(resource)
            except (AttributeError, TypeError):
                raise MappingError([Issue("$", "shape", "is not shaped as FHIR R4 has it")]) from None
        except MappingError as error:
            _say(f"{name} line {number}", error.issues)
            job.item("refused", error.issues, file=name, line=number)
            yield None
        else:
            yield resource["resourceType"], resource["id"], patient, line.strip()


def _say(where: str, issues: Iterable[Issue]) -> None:
    for issue in issues:
        click.echo(f"{where}: {issue.path}: {issue.rule}: {issue.message}", err=True)


# --- taking in ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sent:
    """An event on its way in, and the patient that is done when no more of them follow."""

    loaded: Loaded
    patient: str


def _take(job: Job, source: str, spool: Spool) -> None:
    store = job.store()

    def knows(name: Json) -> bool:
        # A connection of its own: a dry run is inside of a transaction.
        with store.read() as c:
            return events.knows_patient(c, TENANT, name["system"], name["value"])

    waiting: deque[_Sent] = deque()

    def loaded() -> Iterator[Loaded]:
        for patient in spool.patients():
            for one in bulk_reading.tell(spool.of(patient), source, spool.find, knows):
                if one.event is None:
                    sent = Loaded(source, None, None, one.issues)
                else:
                    named = identity(one.event)
                    foreign = named[0] == source
                    sent = Loaded(*named, one.event, notes=one.issues, revises=foreign)
                waiting.append(_Sent(sent, patient))
                yield sent
            empty.append(patient)

    empty: list[str] = []
    for result in admitted(job, loaded(), Caller(TENANT, source)):
        sent = waiting.popleft()
        job.count(result.outcome)
        _say(f"{sent.loaded.source}/{sent.loaded.id or '?'}", result.issues)
        job.item(result.outcome, result.issues, listed=job.dry_run, source=result.source, id=result.id)
        job.line += 1
        if not waiting and not job.dry_run:
            while empty:
                spool.set_done(empty.pop())
    if not job.dry_run:
        while empty:
            spool.set_done(empty.pop())


def _note_deleted(job: Job, source: str, origin: Source, files: list[Json]) -> None:
    """What was deleted there stays here: a person decides whether it was a mistake."""
    for entry in files:
        for line in origin.lines(entry["url"]):
            try:
                gone = bulk_reading.deletions(loads(line.strip())) if line.strip() else []
            except MappingError as error:
                job.count("refused")
                job.item("refused", error.issues, file=entry["url"].rpartition("/")[2])
                continue
            for name in gone:
                click.echo(f"{name}: deleted there; nothing was retracted here", err=True)
                job.count("deleted_there")
                job.item("deleted_there", (), listed=True, source=source, id=name)
                if not job.dry_run:
                    with job.store().write() as c:
                        at = stamp(now())
                        audit.write(
                            c,
                            TENANT,
                            at=at,
                            actor=source,
                            action="deleted there",
                            subject=f"{source}: {name}",
                        )
