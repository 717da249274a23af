"""`itb endpoints`: the EHRs and receivers that the ledger is kept in step with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from marshmallow import ValidationError

from mappings import MappingError
from mappings.fields import issues_of
from service.opening import TENANT, now, opened

from . import deliveries as of_deliveries
from . import hooks
from .servers import introduce


@click.group()
def endpoints() -> None:
    """The EHR servers that the ledger is kept in step with."""


@endpoints.command("add")
@click.argument("name")
@click.argument("url")
@click.option(
    "--create-missing-patients", is_flag=True, help="for test servers only: an EHR owns its patients"
)
@click.option(
    "--claim-profiles/--no-claim-profiles",
    default=True,
    show_default=True,
    help="--no- for an EHR that refuses a claim of a profile it does not know (itb ig build)",
)
@click.option(
    "--allow-type", multiple=True, metavar="TYPE", help="written although its CapabilityStatement refuses it"
)
@click.option("--refuse-type", multiple=True, metavar="TYPE", help="a resource type that is never written")
@click.option(
    "--transactions/--no-transactions", default=None, help="  [default: as its CapabilityStatement says]"
)
@click.option("--poll-seconds", type=click.IntRange(1), help="how often to read what changed there")
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="sent with every request")
@click.option(
    "--map",
    "map_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="mllp(s): how messages for it are written, a file as docs/hl7.md has it for senders",
)
@click.option("--sender", help="mllp(s): what this sender (ITB_MLLP_SENDERS) tells us is not sent back to it")
@click.option(
    "--answer-seconds", type=click.IntRange(1), help="mllp(s): how long to wait for an answer  [default: 30]"
)
@click.option("--ca", metavar="FILE", help="mllps: authorities (PEM) of the receiver")
@click.option("--cert", metavar="FILE", help="mllps: our certificate (PEM)")
@click.option("--key", metavar="FILE", help="mllps: its key, where it is not in --cert")
@click.option("--backfill", is_flag=True, help="also deliver what the ledger holds already")
def endpoints_add(
    name: str,
    url: str,
    create_missing_patients: bool,
    claim_profiles: bool,
    allow_type: tuple[str, ...],
    refuse_type: tuple[str, ...],
    transactions: bool | None,
    poll_seconds: int | None,
    header: tuple[str, ...],
    map_file: Path | None,
    sender: str | None,
    answer_seconds: int | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    backfill: bool,
) -> None:
    """Add the FHIR R4 server at base URL under NAME; what is accepted from now on is delivered there.

    NAME becomes the `source` of records that the EHR's users enter there. URL may also be that of a receiver
    of HL7 v2, mllp://HOST:PORT or mllps://HOST:PORT (docs/mllp.md, "Endpoints").
    """
    from service.api.endpoints import NewEndpoint
    from service.store import deliveries
    from service.store import endpoints as store_endpoints

    options: dict[str, Any] = {
        "create_missing_patients": create_missing_patients,
        "claim_profiles": claim_profiles,
    }
    given = {
        "poll_seconds": poll_seconds,
        "allow_types": list(allow_type) or None,
        "refuse_types": list(refuse_type) or None,
        "transactions": transactions,
        "hl7v2": None if map_file is None else _map(map_file),
        "sender": sender,
        "answer_seconds": answer_seconds,
        "ca_file": _absolute(ca),
        "cert_file": _absolute(cert),
        "key_file": _absolute(key),
    }
    options |= {option: value for option, value in given.items() if value is not None}
    if header:
        options["headers"] = dict(_header(text) for text in header)
    try:
        NewEndpoint().load({"name": name, "url": url, "options": options})
    except ValidationError as error:
        wrong = (f"{i.path}: {i.message}" for i in issues_of(error.messages))
        raise click.UsageError("; ".join(wrong)) from None
    store = opened()
    with store.write() as c:
        if store_endpoints.find(c, TENANT, name) is not None:
            raise click.ClickException(f"there is an endpoint {name} already")
        if other := store_endpoints.of_sender(store_endpoints.every(c, TENANT), sender or ""):
            raise click.ClickException(f"{sender} is the sender of endpoint {other.name} already")
        made = store_endpoints.add(c, TENANT, name, url, options, now=now())
        pending = deliveries.catch_up(c, made, now=now(), from_the_start=True) if backfill else 0
    click.echo(f"{made.name}\t{made.url}\t{pending} events to deliver")
    introduce(store, made)


def _map(path: Path) -> Any:
    from service.senders import table_of

    try:
        return table_of(path)
    except MappingError as error:
        raise click.UsageError(f"--map {path}: {error.issues[0].message}") from None


def _absolute(path: str | None) -> str | None:
    """For a worker that runs elsewhere in this machine's folders."""
    return str(Path(path).absolute()) if path is not None else None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"{text!r} is not NAME:VALUE")
    return name.strip(), value.strip()


@endpoints.command("list")
def endpoints_list() -> None:
    """The endpoints, their state, and up to when each was read."""
    from service.store import endpoints as store_endpoints
    from service.store import gates
    from service.sync.gate import Gate

    with opened().read() as c:
        for one in store_endpoints.every(c, TENANT):
            breaker = Gate(**gates.find(c, one.id)).state(now())
            state = (
                "paused" if not one.enabled else "enabled" if breaker == "closed" else f"breaker {breaker}"
            )
            click.echo(f"{one.name}\t{one.url}\t{state}\tread up to {one.cursor or '-'}")


for _command in (*of_deliveries.OF_ENDPOINTS, *hooks.OF_ENDPOINTS):
    endpoints.add_command(_command)
