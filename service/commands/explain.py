"""`itb explain`, `itb impact`: where FHIR comes from, and what a change of the map does to it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import BinaryIO, cast

import click

from mappings.exact_json import dumps, lines
from mappings.hl7v2.framing import is_hl7, messages
from service import conversion, hl7_conversion
from service.progress import counted, pieces

from . import convert
from .convert_hl7 import SENDER, sender_map_of


@click.command()
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option("--json", "as_json", is_flag=True, help="a JSON object an event instead of a table")
@SENDER
def explain(file: BinaryIO, as_json: bool, sender: Path | None) -> None:
    """Say where each element of the FHIR of each event (a line each), or of each HL7 v2 message, comes from.

    Columns: the element, its value, the event field it comes from, what was done to it, and of a message the
    fields that told it.
    """
    source = io.BufferedReader(cast(io.RawIOBase, file))
    if is_hl7(source.peek()):
        found, way = messages(pieces(source)), hl7_conversion.Way(sender_map_of(sender))
        convert.shown(hl7_conversion.explained(found, way, table=not as_json), "message")
    else:
        convert.shown(conversion.explained(counted(source), table=not as_json))


@click.command()
@click.argument("old_ref")
@click.argument("file", type=click.File("rb", lazy=False))
def impact(old_ref: str, file: BinaryIO) -> None:
    """Say what the FHIR of FILE's events is now that it was not at the git revision OLD_REF.

    One line a difference, then a summary. The exit status is 1 when a clinical value or an identifier
    changed, or an event is refused that was not (or the other way round).
    """
    from service.impact import ImpactError, changes

    counts = dict.fromkeys(("identifier", "clinical", "refused", "words"), 0)
    sent = [line for _, line in lines(counted(file))]
    try:
        for change in changes(old_ref, sent):
            counts[change.kind] += 1
            values = f"{dumps(change.before).decode()} -> {dumps(change.after).decode()}"
            click.echo(f"line {change.line}: {change.resource}: {change.path}: {change.kind}: {values}")
    except ImpactError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(sent)} events; differences: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    sys.exit(1 if counts["identifier"] + counts["clinical"] + counts["refused"] else 0)
