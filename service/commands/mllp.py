"""`itb mllp`: HL7 v2 messages over MLLP, taken in or sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import click

from mappings import Issue
from service.opening import TENANT, now, opened, settings

from .exits import Stopped, Unreachable
from .job import REPORT, Job, said

if TYPE_CHECKING:
    from service.mllp.client import Tls


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

    from service.mllp.listen import Listener, ListenError
    from service.telemetry import make_log

    chosen = settings()
    chosen = replace(
        chosen,
        mllp_listen=listen or chosen.mllp_listen or "127.0.0.1:2575",
        mllp_senders=senders or chosen.mllp_senders,
    )
    store = opened()
    try:
        made = Listener(store, chosen, TENANT, now, make_log(chosen.log_level))
        made.run(lambda host, port: click.echo(f"itb-fhir takes HL7 v2 on {host}:{port}", err=True))
    except ListenError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise Stopped(f"cannot listen: {error.strerror}") from None
    store.close()


@mllp.command("send")
@click.argument("to", metavar="HOST:PORT")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option("--tls", is_flag=True, help="encrypted (implied by --ca and --cert)")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="authorities (PEM) of the receiver")
@click.option("--cert", type=click.Path(exists=True, dir_okay=False), help="our certificate (PEM)")
@click.option("--key", type=click.Path(exists=True, dir_okay=False), help="its key, where it is not in CERT")
@REPORT
def mllp_send(
    to: str,
    file: BinaryIO,
    tls: bool,
    ca: str | None,
    cert: str | None,
    key: str | None,
    report: str | None,
) -> None:
    """Send the HL7 v2 messages of FILE one after the other, each after the answer to the one before.

    Prints control id and acknowledgement code, a line a message. Ends where no answer comes: the same call
    sends everything again, under the same control ids. A message that is refused stops no other.
    """
    from mappings import MappingError
    from mappings.hl7v2 import parse
    from mappings.hl7v2.framing import messages
    from service.mllp.client import MllpClient
    from service.sync.ehr import EhrError

    host, colon, port = to.rpartition(":")
    if not colon or not port.isdigit():
        raise click.UsageError(f"{to!r} is not HOST:PORT")
    secure = _client_tls(ca, cert, key) if tls or ca or cert else None
    client = MllpClient(host.strip("[]"), int(port), tls=secure)
    with Job("mllp send", report) as job:
        pieces = iter(lambda: file.read(1 << 20), b"")
        for number, data in messages(pieces):
            try:
                if isinstance(data, MappingError):
                    raise data
                message = parse(data)
                found = client.exchange(message)
            except MappingError as error:
                job.count("refused")
                job.item("refused", error.issues, message=number)
                said(number, error.issues, "message")
                continue
            except EhrError as error:
                raise Unreachable(f"message {number}: {error}") from None
            outcome = "acknowledged" if found.is_good else "refused"
            job.count(outcome)
            issues = [Issue(one.where, one.code, found.code) for one in found.errors]
            job.item(outcome, issues, message=number, control_id=message.field("MSH", 10), code=found.code)
            if report is None:
                words = "; ".join(str(one) for one in found.errors)
                click.echo("\t".join([message.field("MSH", 10), found.code, words]).rstrip())


def _client_tls(ca: str | None, cert: str | None, key: str | None) -> Tls:
    from service.mllp.client import Tls

    made = Tls(ca or "", cert or "", key or "")
    try:
        made.context()
    except OSError as error:
        raise click.UsageError(f"--ca, --cert or --key cannot be used: {error}") from None
    return made
