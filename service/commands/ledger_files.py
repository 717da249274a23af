"""`itb import` and `itb export`: files of events into the ledger and out of it, as jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from mappings.exact_json import dumps, lines
from service import intake
from service.intake import Loaded, Result, load_line, rehearse, take
from service.opening import TENANT, now
from service.store.keys import Caller

from .exits import Stopped
from .job import CHECKPOINT, DRY_RUN, REPORT, Job, said

CALLER = Caller(TENANT, "cli")


@click.command("import")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@DRY_RUN
@CHECKPOINT
@REPORT
def import_(file: BinaryIO, dry_run: bool, checkpoint: Path | None, report: str | None) -> None:
    """Take a file of events (NDJSON) into the ledger; a bad line is named, the others go on.

    What is there already is a replay without effect, so the same file may be given again.
    """
    if dry_run and checkpoint:
        raise click.UsageError("--dry-run does nothing that a checkpoint could keep")
    with Job("import", report, checkpoint, dry_run) as job:
        after, numbers = job.mark.line, []

        def loaded() -> Iterator[Loaded]:
            for number, line in lines(job.lines(file)):
                if number > after:
                    numbers.append(number)
                    yield load_line(line)

        for at, result in enumerate(admitted(job, loaded())):
            settle(job, numbers[at], result)
        job.summary = job.counts
        job.finish()


def admitted(job: Job, loaded: Iterator[Loaded], caller: Caller = CALLER) -> Iterator[Result]:
    """What becomes of each event: taken in, or with --dry-run what would become of it."""
    store = job.store()
    try:
        yield from (rehearse if job.dry_run else take)(store, caller, loaded, clock=now)
    except intake.TooMany as error:
        raise Stopped(str(error)) from None


def settle(job: Job, line: int, result: Result, **named: str) -> None:
    """Count one result, say what is wrong with it, list it in the report."""
    job.count(result.outcome)
    said(line, result.issues)
    job.item(
        result.outcome,
        result.issues,
        listed=job.dry_run,
        line=line,
        source=result.source,
        id=result.id,
        **named,
    )
    job.reached(line)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True), default="-")
@CHECKPOINT
@REPORT
def export(file: Path, checkpoint: Path | None, report: str | None) -> None:
    """Write the current version of every event in the ledger as NDJSON, in the order of arrival.

    With --checkpoint, the same command adds what has come since to FILE.
    """
    piped = str(file) == "-"
    if piped and checkpoint:
        raise click.UsageError("--checkpoint needs a FILE: what a pipe was given cannot be cut back")
    out = None if piped else file
    with Job("export", report, checkpoint, out=out, data_on_stdout=piped) as job:
        from service.store import events

        store, after = job.store(), job.mark.line
        # Only now, as the database is there, is what FILE held before given up.
        target = None if out is None else job.output(out)
        while True:
            with store.read() as c:
                page = events.search(c, TENANT, limit=1000, after_seq=after)
            if not page:
                break
            for stored in page:
                line = dumps(stored.event)
                if target is not None:
                    target.write(line)
                else:
                    sys.stdout.buffer.write(line + b"\n")
            job.count("written", len(page))
            after = page[-1].seq
            job.reached(after)
        sys.stdout.buffer.flush()
        job.finish()
