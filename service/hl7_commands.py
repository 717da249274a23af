"""`itb convert hl7-to-fhir` and its like: parse arguments, call, print."""

from __future__ import annotations

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

from . import hl7_conversion
from .progress import counted
from .senders import sender_of
from .streamed import converted

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
REPORT = click.option(
    "--report",
    type=click.File("wb"),
    help="write what of each message is lost, as JSON, a line a message",
)


def _sender(path: Path | None) -> SenderMap:
    """The `SenderMap` of a file; a usage error that names its wrong lines."""
    try:
        return SenderMap() if path is None else sender_of(path)
    except MappingError as error:
        wrong = [f"{path}: {i.path}: {i.rule}: {i.message}" for i in error.issues]
        raise click.UsageError("\n".join(wrong)) from None


def _reported(file: BinaryIO | None) -> hl7_conversion.Report | None:
    if file is None:
        return None

    def report(account: Json) -> None:
        file.write(dumps(account) + b"\n")

    return report


@click.command("hl7-to-fhir")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@REPORT
@click.option(
    "--original/--no-original",
    default=True,
    show_default=True,
    help="carry a message along as a Binary where its events do not say all of it",
)
def convert_hl7_to_fhir(file: BinaryIO, sender: Path | None, report: BinaryIO | None, original: bool) -> None:
    """HL7 v2 messages to FHIR transaction Bundles (a line each).

    Reads messages back to back, MLLP blocks, or a JSON string a line, and sees by itself which it is.
    """
    way = hl7_conversion.Way(_sender(sender), original=original)
    converted(hl7_conversion.hl7_to_fhir(counted(file), way, _reported(report)), what="message")


@click.command("hl7-to-events")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@REPORT
def convert_hl7_to_events(file: BinaryIO, sender: Path | None, report: BinaryIO | None) -> None:
    """HL7 v2 messages, in any form that hl7-to-fhir reads, to events (a line each)."""
    way = hl7_conversion.Way(_sender(sender))
    converted(hl7_conversion.hl7_to_events(counted(file), way, _reported(report)), what="message")


@click.command("events-to-hl7")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@FRAME
@MESSAGE
def convert_events_to_hl7(file: BinaryIO, sender: Path | None, frame: str, message: str | None) -> None:
    """Events (a line each) to HL7 v2 messages."""
    way = hl7_conversion.Way(_sender(sender), frame, message or "")
    converted(hl7_conversion.events_to_hl7(counted(file), way), end=b"")


@click.command("fhir-to-hl7")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@SENDER
@FRAME
@MESSAGE
@click.option("--source", default="fhir", show_default=True, help="source of records that were not ours")
def convert_fhir_to_hl7(
    file: BinaryIO, sender: Path | None, frame: str, message: str | None, source: str
) -> None:
    """FHIR Bundles or resources (a line each) to HL7 v2 messages; the original where it came along."""
    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    way = hl7_conversion.Way(_sender(sender), frame, message or "", source)
    converted(hl7_conversion.fhir_to_hl7(counted(file), way), end=b"")


COMMANDS = (convert_hl7_to_fhir, convert_hl7_to_events, convert_events_to_hl7, convert_fhir_to_hl7)
