"""`itb convert hl7-to-fhir` and its like: parse arguments, call, print."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from mappings import MappingError
from mappings.exact_json import dumps
from mappings.hl7v2 import SenderMap
from mappings.hl7v2.catalogue import CHOICES
from mappings.hl7v2.framing import FRAMES, Framed, messages
from mappings.identity import SOURCE
from mappings.paths import Json
from service import hl7_conversion
from service.conversion import Converted
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
SOURCE_OF = click.option(
    "--source", default="fhir", show_default=True, help="source of records that were not ours"
)
LOSSES = click.option(
    "--losses",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file to write what of each message does not come back to, as JSON, a line a message",
)

ORIGINAL = click.option(
    "--original/--no-original",
    default=True,
    show_default=True,
    help="carry a message along as a Binary where its events do not say all of it",
)
Ends = dict[str, Any]
"""Where a job writes: `out`, `checkpoint` and `report`, as `job_of` takes them."""
Results = Callable[[Job, int], Iterator[Converted]]
"""What a job converts, behind the first so many that were converted before."""
FILE = click.argument("file", type=click.File("rb", lazy=False), default="-")
Command = Callable[..., None]
Option = Callable[[Command], Command]


def conversion(*options: Option) -> Option:
    """What each conversion takes: FILE, `--sender`, the `options`, and where its job writes (`ends`)."""

    every: tuple[Option, ...] = (FILE, SENDER, *options, OUT, CHECKPOINT, REPORT)

    def taking(command: Command) -> Command:
        for option in reversed(every):
            command = option(command)
        return command

    return taking


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


def _convert(
    command: str, way: Way, sender: Path | None, ends: Ends, results: Results, **written: Any
) -> None:
    """Run `results` as a job; its name holds all that its output depends on: a checkpoint is of no other."""
    how = hashlib.sha256(sender.read_bytes()).hexdigest() if sender is not None else ""
    name = f"convert {command} --{way.frame} {way.message} {way.source} {way.original} {how}"
    with job_of(name, **ends) as job:
        run(job, results(job, job.mark.line), **written)


def _messages(job: Job, file: BinaryIO) -> Iterable[Framed]:
    return job.items(messages(pieces(file)), _said)


def _said(found: Framed) -> bytes:
    """A message with its length before it, so that no two streams of messages say the same."""
    data = found[1]
    said = data if isinstance(data, bytes) else str(data).encode()
    return b"%d:%b" % (len(said), said)


@click.command("hl7-to-fhir")
@conversion(LOSSES, ORIGINAL)
def hl7_to_fhir(
    file: BinaryIO, sender: Path | None, losses: Path | None, original: bool, **ends: Any
) -> None:
    """HL7 v2 messages to FHIR transaction Bundles (a line each).

    Reads messages back to back, MLLP blocks, or a JSON string a line, and sees by itself which it is.
    """
    way = Way(sender_map_of(sender), original=original)

    def results(job: Job, after: int) -> Iterator[Converted]:
        return hl7_conversion.hl7_to_fhir(_messages(job, file), way, _written(job, losses), after)

    _convert("hl7-to-fhir", way, sender, ends, results, what="message")


@click.command("hl7-to-events")
@conversion(LOSSES)
def hl7_to_events(file: BinaryIO, sender: Path | None, losses: Path | None, **ends: Any) -> None:
    """HL7 v2 messages, in any form that hl7-to-fhir reads, to events (a line each)."""
    way = Way(sender_map_of(sender))

    def results(job: Job, after: int) -> Iterator[Converted]:
        return hl7_conversion.hl7_to_events(_messages(job, file), way, _written(job, losses), after)

    _convert("hl7-to-events", way, sender, ends, results, what="message")


@click.command("events-to-hl7")
@conversion(FRAME, MESSAGE)
def events_to_hl7(file: BinaryIO, sender: Path | None, frame: str, message: str | None, **ends: Any) -> None:
    """Events (a line each) to HL7 v2 messages."""
    way = Way(sender_map_of(sender), frame, message or "")

    def results(job: Job, after: int) -> Iterator[Converted]:
        return hl7_conversion.events_to_hl7(job.lines(file), way, after)

    _convert("events-to-hl7", way, sender, ends, results, end=b"")


@click.command("fhir-to-hl7")
@conversion(FRAME, MESSAGE, SOURCE_OF)
def fhir_to_hl7(
    file: BinaryIO, sender: Path | None, frame: str, message: str | None, source: str, **ends: Any
) -> None:
    """FHIR Bundles or resources (a line each) to HL7 v2 messages; the original where it came along."""
    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    way = Way(sender_map_of(sender), frame, message or "", source)

    def results(job: Job, after: int) -> Iterator[Converted]:
        return hl7_conversion.fhir_to_hl7(job.lines(file), way, after)

    _convert("fhir-to-hl7", way, sender, ends, results, end=b"")


COMMANDS = (hl7_to_fhir, hl7_to_events, events_to_hl7, fhir_to_hl7)
