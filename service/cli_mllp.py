"""`itb mllp` and `itb watch`: HL7 v2 over MLLP, and files from a folder."""

from __future__ import annotations

import ssl
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from mappings.exact_json import dumps
from mappings.identity import SOURCE

from .opening import opened, settings
from .store.tables import DEFAULT_TENANT

REFUSED, UNREACHABLE, BUSY = 1, 3, 5
MOST_MESSAGE = 16_000_000


def now() -> datetime:
    """The clock of these commands."""
    return datetime.now(UTC)


@click.group()
def mllp() -> None:
    """HL7 v2 messages over MLLP: take them in, or send some."""


@mllp.command("serve")
@click.option("--listen", metavar="HOST:PORT", help="where to listen  [default: ITB_MLLP_LISTEN]")
@click.option(
    "--senders",
    type=click.Path(dir_okay=False),
    help="who may send  [default: ITB_MLLP_SENDERS] (docs/mllp.md)",
)
def mllp_serve(listen: str | None, senders: str | None) -> None:
    """Take HL7 v2 messages into the ledger until Ctrl-C.

    AA or CA is said only of what is on the disk. `itb serve` does the same in one process with the API where
    ITB_MLLP_LISTEN is set.
    """
    from dataclasses import replace

    from .mllp.listen import Listener, ListenError
    from .telemetry import make_log

    chosen = settings()
    chosen = replace(
        chosen,
        mllp_listen=listen or chosen.mllp_listen or "127.0.0.1:2575",
        mllp_senders=senders or chosen.mllp_senders,
    )
    store = opened()
    try:
        made = Listener(store, chosen, DEFAULT_TENANT, now, make_log(chosen.log_level))
        made.run(lambda host, port: click.echo(f"itb-fhir takes HL7 v2 on {host}:{port}", err=True))
    except ListenError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen: {error.strerror}") from None
    store.close()


@mllp.command("send")
@click.argument("to", metavar="HOST:PORT")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option("--tls", is_flag=True, help="encrypted (implied by --ca and --cert)")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="authorities (PEM) of the receiver")
@click.option("--cert", type=click.Path(exists=True, dir_okay=False), help="our certificate and key (PEM)")
def mllp_send(to: str, file: BinaryIO, tls: bool, ca: str | None, cert: str | None) -> None:
    """Send the HL7 v2 messages of FILE one after the other, each after the answer to the one before.

    Prints control id and acknowledgement code, a line a message. Stops where no answer comes, with the status
    3: the same call sends everything again, under the same control ids. The status is 1 when a message was
    refused.
    """
    from mappings import MappingError
    from mappings.hl7v2 import parse

    from .mllp.client import MllpClient
    from .mllp.stream import messages_in
    from .sync.ehr import EhrError

    host, colon, port = to.rpartition(":")
    if not colon or not port.isdigit():
        raise click.UsageError(f"{to!r} is not HOST:PORT")
    client = MllpClient(host.strip("[]"), int(port), tls=_client_tls(ca, cert) if tls or ca or cert else None)
    refused = False
    pieces = iter(lambda: file.read(1 << 20), b"")
    for number, frame in enumerate(messages_in(pieces, MOST_MESSAGE), start=1):
        try:
            message = parse(frame.content)
            found = client.exchange(message)
        except MappingError as error:
            click.echo(f"message {number}: {error.issues[0].path}: {error.issues[0].message}", err=True)
            refused = True
            continue
        except EhrError as error:
            click.echo(f"message {number}: {type(error).__name__}: {error}", err=True)
            sys.exit(UNREACHABLE)
        click.echo("\t".join([message.field("MSH", 10), found.code, "; ".join(found.errors)]).rstrip())
        refused = refused or not found.is_good
    sys.exit(REFUSED if refused else 0)


def _client_tls(ca: str | None, cert: str | None) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=ca)
        if cert:
            made.load_cert_chain(cert)
        return made
    except (OSError, ssl.SSLError) as error:
        raise click.UsageError(f"--ca or --cert cannot be used: {error}") from None


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="take what is there, then end")
@click.option("--report", type=click.Choice(["json"]), help="a JSON object for programs, as the last line")
@click.option(
    "--senders", type=click.Path(dir_okay=False), help="how HL7 v2 is read  [default: ITB_MLLP_SENDERS]"
)
@click.option("--source", default="fhir", show_default=True, help="source of FHIR records that were not ours")
@click.option(
    "--settle",
    type=click.FloatRange(0, 3600),
    default=2.0,
    show_default=True,
    help="seconds a file stands still",
)
def watch(
    folder: Path, once: bool, report: str | None, senders: str | None, source: str, settle: float
) -> None:
    """Take the files that are put into FOLDER/in: HL7 v2, events or FHIR, told apart by their content.

    Each goes to FOLDER/done, or to FOLDER/failed with the reasons beside it (NAME.reason.json); put it into
    `in` again once it is mended. A file is read when it has stood still for --settle seconds; best rename it
    into `in`. The status is 1 when a file failed, 5 when another process watches.
    """
    from .dropfolder import DropFolder, FolderBusy, FolderError
    from .file_intake import Taking, take_file
    from .store.keys import Caller

    if not SOURCE.fullmatch(source):
        raise click.UsageError("--source must match [a-z0-9-]{1,40}")
    known = _senders(senders or settings().mllp_senders)
    to = Taking(opened(), Caller(DEFAULT_TENANT, "watch"), known, source, now)
    watched = DropFolder(folder, lambda stream: take_file(to, stream), settle, time.monotonic)
    try:
        with watched.opened():
            done = _watch(watched, once, report)
    except FolderBusy as error:
        click.echo(str(error), err=True)
        sys.exit(BUSY)
    except FolderError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        click.echo(f"it cannot go on: {error}", err=True)
        sys.exit(UNREACHABLE)
    if report:
        click.echo(dumps({"files": done, "waiting": watched.waiting()}).decode())
    sys.exit(REFUSED if any(one["outcome"] == "failed" for one in done) else 0)


def _senders(path: str) -> list[Any]:
    from .mllp.senders import SendersError, load

    try:
        return load(Path(path)) if path else []
    except SendersError as error:
        raise click.UsageError(str(error)) from None


def _watch(watched: Any, once: bool, report: str | None) -> list[Any]:
    """With `once` everything that was there; else until Ctrl-C, a line a file."""
    done: list[Any] = []
    ends_at = time.monotonic() + watched.settle_s + 1
    try:
        while True:
            for outcome in watched.look():
                told = outcome.as_json()
                done = [*done, told] if once else done
                words = (
                    dumps(told).decode()
                    if report
                    else f"{told['file']}\t{told['moved_to']}\t{told['counts']}"
                )
                if not (once and report):
                    click.echo(words)
            if once and (not watched.is_settling() or time.monotonic() > ends_at):
                return done
            time.sleep(min(0.2, watched.settle_s / 2) or 0.2)
    except KeyboardInterrupt:
        return done


COMMANDS = (mllp, watch)
