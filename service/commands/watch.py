"""`itb watch`: takes the files that are put into a folder, as a job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from mappings.identity import SOURCE
from service.opening import TENANT, now, settings

from .exits import Busy
from .job import REPORT, Job

LOOK_S = 0.2


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="take what is there, then end")
@click.option(
    "--senders", type=click.Path(dir_okay=False), help="how HL7 v2 is read  [default: ITB_MLLP_SENDERS]"
)
@click.option("--source", default="fhir", show_default=True, help="source of FHIR records that were not ours")
@click.option(
    "--settle",
    type=click.FloatRange(0, 3600),
    default=2.0,
    show_default=True,
    help="seconds that a file must have stood still",
)
@REPORT
def watch(
    folder: Path, once: bool, senders: str | None, source: str, settle: float, report: str | None
) -> None:
    """Take the files that are put into FOLDER/in: HL7 v2, events or FHIR, told apart by their content.

    Each goes to FOLDER/done, or to FOLDER/failed with the reasons beside it (NAME.reason.json); put it into
    `in` again once it, or the sender's file, is mended. Best rename a file into `in` when it is whole.
    """
    from service.dropfolder import DropFolder, FolderBusy, FolderError
    from service.file_intake import Taking, take_file
    from service.store.keys import Caller

    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    known = _senders(senders or settings().mllp_senders)
    with Job("watch", report) as job:
        to = Taking(job.store(), Caller(TENANT, "watch"), known, source, now)
        watched = DropFolder(folder, lambda stream: take_file(to, stream), settle, time.monotonic)
        try:
            with watched.opened():
                _watch(job, watched, once)
        except FolderBusy as error:
            raise Busy(str(error)) from None
        except FolderError as error:
            raise click.UsageError(str(error)) from None


def _senders(path: str) -> list[Any]:
    from service.mllp.senders import SendersError, load

    try:
        return load(Path(path)) if path else []
    except SendersError as error:
        raise click.UsageError(str(error)) from None


def _watch(job: Job, watched: Any, once: bool) -> None:
    """With `once` everything that was there; else until Ctrl-C."""
    ends_at = time.monotonic() + watched.settle_s + 1
    while True:
        for outcome in watched.look():
            _settle(job, outcome)
        if once and (not watched.is_settling() or time.monotonic() > ends_at):
            left = len(watched.waiting())
            if left:
                job.count("waiting", left)
            return
        time.sleep(min(LOOK_S, watched.settle_s / 2) or LOOK_S)


def _settle(job: Job, outcome: Any) -> None:
    told = outcome.as_json()
    job.count(told["outcome"])
    for kind, number in told["counts"].items():
        job.count(f"items {kind}", number)
    named = {key: told[key] for key in ("file", "moved_to", "format", "counts")}
    job.item(told["outcome"], outcome.issues, listed=True, **named)
    if job.report is None:
        counts = ", ".join(f"{number} {kind}" for kind, number in told["counts"].items())
        click.echo(f"{told['file']}\t{told['moved_to']}\t{counts}")
