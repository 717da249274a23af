"""`itb convert hl7-to-fhir` and its like: parse arguments, call, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from mappings import MappingError
from mappings.exact_json import dumps
from mappings.hl7v2 import SenderMap
from mappings.hl7v2.catalogue import CHOICES
from mappings.hl7v2.framing import FRAMES
from mappings.identity import SOURCE
from mappings.paths import Json
from service import hl7_conversion
from service.conversion import Converted
from service.hl7_conversion import Losses, Way
from service.progress import counted, pieces
from service.senders import sender_of

from .job import REPORT, Job, said

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
    type=click.File("wb"),
    help="write what of each message does not come back, as JSON, a line a message",
)


def _sender(path: Path | None) -> SenderMap:
    """The `SenderMap` of a file; a usage error that names its wrong lines."""
    try:
        return SenderMap() if path is None else sender_of(path)
    except MappingError as error:
        wrong = [f"{path}: {i.path}: {i.rule}: {i.message}" for i in error.issues]
        raise click.UsageError("\n".join(wrong)) from None


def _written(file: BinaryIO | None) -> Losses | None:
    if file is None:
        return None

    def write(account: Json) -> None:
        file.write(dumps(account) + b"\n")

    return write


def _run(name: str, report: str | None, results: Iterator[Converted], what: str, end: bytes) -> None:
    """Write what was made of each piece and say what is wrong with it; `what` is what a number counts."""
    out = sys.stdout.buffer
    with Job(f"convert {name}", report, data_on_stdout=True) as job:
        for result in results:
            for made in result.out:
                out.write(made + end)
            said(result.line, [*result.errors, *result.notes], what)
            job.count("refused" if result.errors else "converted")
            job.count("written", len(result.out))
            if result.errors:
                job.item("refused", result.errors, line=result.line)
            job.line = result.line
        out.flush()


@click.command("hl7-to-fhir")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@LOSSES
@REPORT
@click.option(
    "--original/--no-original",
    default=True,
    show_default=True,
    help="carry a message along as a Binary where its events do not say all of it",
)
def hl7_to_fhir(
    file: BinaryIO, sender: Path | None, losses: BinaryIO | None, report: str | None, original: bool
) -> None:
    """HL7 v2 messages to FHIR transaction Bundles (a line each).

    Reads messages back to back, MLLP blocks, or a JSON string a line, and sees by itself which it is.
    """
    way = Way(_sender(sender), original=original)
    made = hl7_conversion.hl7_to_fhir(pieces(file), way, _written(losses))
    _run("hl7-to-fhir", report, made, "message", b"\n")


@click.command("hl7-to-events")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@LOSSES
@REPORT
def hl7_to_events(file: BinaryIO, sender: Path | None, losses: BinaryIO | None, report: str | None) -> None:
    """HL7 v2 messages, in any form that hl7-to-fhir reads, to events (a line each)."""
    way = Way(_sender(sender))
    made = hl7_conversion.hl7_to_events(pieces(file), way, _written(losses))
    _run("hl7-to-events", report, made, "message", b"\n")


@click.command("events-to-hl7")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@FRAME
@MESSAGE
@REPORT
def events_to_hl7(
    file: BinaryIO, sender: Path | None, frame: str, message: str | None, report: str | None
) -> None:
    """Events (a line each) to HL7 v2 messages."""
    way = Way(_sender(sender), frame, message or "")
    _run("events-to-hl7", report, hl7_conversion.events_to_hl7(counted(file), way), "line", b"")


@click.command("fhir-to-hl7")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@FRAME
@MESSAGE
@REPORT
@click.option("--source", default="fhir", show_default=True, help="source of records that were not ours")
def fhir_to_hl7(
    file: BinaryIO, sender: Path | None, frame: str, message: str | None, report: str | None, source: str
) -> None:
    """FHIR Bundles or resources (a line each) to HL7 v2 messages; the original where it came along."""
    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    way = Way(_sender(sender), frame, message or "", source)
    _run("fhir-to-hl7", report, hl7_conversion.fhir_to_hl7(counted(file), way), "line", b"")


COMMANDS = (hl7_to_fhir, hl7_to_events, events_to_hl7, fhir_to_hl7)
