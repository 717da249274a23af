"""`itb convert hl7-to-fhir` and its like: parse arguments, call, print."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import click

from mappings import MappingError
from mappings.exact_json import dumps
from mappings.hl7v2 import SenderMap
from mappings.hl7v2.catalogue import CHOICES
from mappings.hl7v2.framing import FRAMES, Framed, messages
from mappings.identity import SOURCE
from mappings.paths import Json
from service import hl7_conversion
from service.hl7_conversion import Losses, Way
from service.progress import pieces
from service.senders import sender_of

from .convert import job_of, run
from .job import CHECKPOINT, OUT, REPORT, Job

SENDER = click.option(
    "--sender",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="the sender's file (TOML or JSON): what its messages leave open (docs/hl7.md)",
)
FRAME = click.option(
    "--frame",
    type=click.Choice(FRAMES),
    default="text",
    show_default=True,
    help="how messages stand in the output: back to back, in MLLP blocks, or a JSON string a line",
)
MESSAGE = click.option("--message", type=click.Choice(CHOICES), help="another message than that of the type")
LOSSES = click.option(
    "--losses",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file to write what of each message does not come back to, as JSON, a line a message",
)


def sender_map_of(path: Path | None) -> SenderMap:
    """The `SenderMap` of a file; a usage error that names its wrong lines."""
    try:
        return SenderMap() if path is None else sender_of(path)
    except MappingError as error:
        wrong = [f"{path}: {i.path}: {i.rule}: {i.message}" for i in error.issues]
        raise click.UsageError("\n".join(wrong)) from None


def _written(job: Job, path: Path | None) -> Losses | None:
    if path is None:
        return None
    file = job.output(path)

    def write(account: Json) -> None:
        file.write(dumps(account))

    return write


def _name(command: str, way: Way, path: Path | None) -> str:
    """The job, and all that its output depends on: a checkpoint is of no other."""
    how = hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else ""
    return f"convert {command} --{way.frame} {way.message} {way.source} {way.original} {how}"


def _messages(job: Job, file: BinaryIO) -> Iterable[Framed]:
    return job.items(messages(pieces(file)), _said)


def _said(found: Framed) -> bytes:
    """A message with its length before it, so that no two streams of messages say the same."""
    data = found[1]
    said = data if isinstance(data, bytes) else str(data).encode()
    return b"%d:%b" % (len(said), said)


@click.command("hl7-to-fhir")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@LOSSES
@OUT
@CHECKPOINT
@REPORT
@click.option(
    "--original/--no-original",
    default=True,
    show_default=True,
    help="carry a message along as a Binary where its events do not say all of it",
)
def hl7_to_fhir(
    file: BinaryIO,
    sender: Path | None,
    losses: Path | None,
    out: Path | None,
    checkpoint: Path | None,
    report: str | None,
    original: bool,
) -> None:
    """HL7 v2 messages to FHIR transaction Bundles (a line each).

    Reads messages back to back, MLLP blocks, or a JSON string a line, and sees by itself which it is.
    """
    way = Way(sender_map_of(sender), original=original)
    with job_of(_name("hl7-to-fhir", way, sender), out, checkpoint, report) as job:
        found, after = _messages(job, file), job.mark.line
        run(job, hl7_conversion.hl7_to_fhir(found, way, _written(job, losses), after), "message")


@click.command("hl7-to-events")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@LOSSES
@OUT
@CHECKPOINT
@REPORT
def hl7_to_events(
    file: BinaryIO,
    sender: Path | None,
    losses: Path | None,
    out: Path | None,
    checkpoint: Path | None,
    report: str | None,
) -> None:
    """HL7 v2 messages, in any form that hl7-to-fhir reads, to events (a line each)."""
    way = Way(sender_map_of(sender))
    with job_of(_name("hl7-to-events", way, sender), out, checkpoint, report) as job:
        found, after = _messages(job, file), job.mark.line
        run(job, hl7_conversion.hl7_to_events(found, way, _written(job, losses), after), "message")


@click.command("events-to-hl7")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@FRAME
@MESSAGE
@OUT
@CHECKPOINT
@REPORT
def events_to_hl7(
    file: BinaryIO,
    sender: Path | None,
    frame: str,
    message: str | None,
    out: Path | None,
    checkpoint: Path | None,
    report: str | None,
) -> None:
    """Events (a line each) to HL7 v2 messages."""
    way = Way(sender_map_of(sender), frame, message or "")
    with job_of(_name("events-to-hl7", way, sender), out, checkpoint, report) as job:
        found, after = job.lines(file), job.mark.line
        run(job, hl7_conversion.events_to_hl7(found, way, after), end=b"")


@click.command("fhir-to-hl7")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@FRAME
@MESSAGE
@OUT
@CHECKPOINT
@REPORT
@click.option("--source", default="fhir", show_default=True, help="source of records that were not ours")
def fhir_to_hl7(
    file: BinaryIO,
    sender: Path | None,
    frame: str,
    message: str | None,
    out: Path | None,
    checkpoint: Path | None,
    report: str | None,
    source: str,
) -> None:
    """FHIR Bundles or resources (a line each) to HL7 v2 messages; the original where it came along."""
    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    way = Way(sender_map_of(sender), frame, message or "", source)
    with job_of(_name("fhir-to-hl7", way, sender), out, checkpoint, report) as job:
        found, after = job.lines(file), job.mark.line
        run(job, hl7_conversion.fhir_to_hl7(found, way, after), end=b"")


COMMANDS = (hl7_to_fhir, hl7_to_events, events_to_hl7, fhir_to_hl7)
