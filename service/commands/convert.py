"""`itb convert`: events and FHIR, line by line, as a job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from mappings.identity import SOURCE
from service import conversion, parallel

from .exits import REFUSED
from .job import CHECKPOINT, OUT, REPORT, Job, said


@click.group()
def convert() -> None:
    """Convert between events, FHIR and HL7 v2: a stream in, a stream out, in constant memory."""


JOBS = click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="processes to work on; the order of the output stays that of the input",
)


@convert.command("to-fhir")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@JOBS
@OUT
@CHECKPOINT
@REPORT
def to_fhir(file: BinaryIO, jobs: int, out: Path | None, checkpoint: Path | None, report: str | None) -> None:
    """Events (a line each) to FHIR transaction Bundles (a line each).

    Each pump's current program is carried forward, so that a dose change closes the one before it.
    A bad line goes to standard error, the others go on, and the exit status is 1.
    """
    with job_of("convert to-fhir", out, checkpoint, report) as job:
        stream, after = job.lines(file), job.mark.line
        run(
            job,
            conversion.to_fhir(stream, after) if jobs == 1 else parallel.to_fhir(stream, jobs, after),
        )


@convert.command("from-fhir")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option("--source", default="fhir", show_default=True, help="source of records that were not ours")
@JOBS
@OUT
@CHECKPOINT
@REPORT
def from_fhir(
    file: BinaryIO, source: str, jobs: int, out: Path | None, checkpoint: Path | None, report: str | None
) -> None:
    """FHIR Bundles or resources (a line each) to events (a line each)."""
    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    with job_of(f"convert from-fhir --source {source}", out, checkpoint, report) as job:
        stream, after = job.lines(file), job.mark.line
        run(
            job,
            conversion.from_fhir(stream, source, after)
            if jobs == 1
            else parallel.from_fhir(stream, source, jobs, after),
        )


def job_of(name: str, out: Path | None, checkpoint: Path | None, report: str | None) -> Job:
    """The job of a conversion, which writes to `out` or to standard output."""
    if checkpoint is not None and out is None:
        raise click.UsageError("--checkpoint needs --out: what a pipe was given cannot be cut back")
    return Job(name, report, checkpoint, out=out, data_on_stdout=out is None)


def run(job: Job, results: Iterator[conversion.Converted], what: str = "line", end: bytes = b"\n") -> None:
    """Write each line's result, say what is wrong with it, and keep the checkpoint in step.

    `what` is counted where it is not lines; `end` follows what is written.
    """
    to_stdout = sys.stdout.buffer
    target = job.output(job.out) if job.out is not None else None
    for result in results:
        for line in result.out:
            if target is not None:
                target.write(line, end)
            else:
                to_stdout.write(line + end)
        said(result.line, [*result.errors, *result.notes], what)
        job.count("refused" if result.errors else "converted")
        job.count("written", len(result.out))
        if result.errors:
            job.item("refused", result.errors, line=result.line)
        job.reached(result.line)
    to_stdout.flush()
    job.finish()


def shown(results: Iterator[conversion.Converted], what: str = "line") -> None:
    """Print results that are for reading, and end with the status of a conversion."""
    failed = False
    for result in results:
        for line in result.out:
            sys.stdout.buffer.write(line + b"\n")
        said(result.line, [*result.errors, *result.notes], what)
        failed = failed or bool(result.errors)
    sys.stdout.buffer.flush()
    sys.exit(REFUSED if failed else 0)
