"""`itb endpoints`: the EHRs and receivers that the ledger is kept in step with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from marshmallow import ValidationError

from mappings import MappingError
from mappings.fields import issues_of
from service.opening import TENANT, now, opened

from . import deliveries as of_deliveries
from . import hooks
from .servers import introduce, named


@click.group()
def endpoints() -> None:
    """The EHR servers that the ledger is kept in step with."""


Decorator = Callable[[Callable[..., None]], Callable[..., None]]
FLAGS = ("create_missing_patients", "claim_profiles", "transactions", "reconcile_fix")
NUMBERS = (
    "poll_seconds",
    "overlap_seconds",
    "batch_size",
    "parallel",
    "requests_per_second",
    "reconcile_hours",
    "answer_seconds",
)
TREATED: tuple[Decorator, ...] = (
    click.option(
        "--create-missing-patients/--no-create-missing-patients",
        default=None,
        help="for test servers only: an EHR owns its patients  [default: no]",
    ),
    click.option(
        "--claim-profiles/--no-claim-profiles",
        default=None,
        help="--no- for an EHR that refuses a claim of a profile it does not know (itb ig build)"
        "  [default: claim-profiles]",
    ),
    click.option(
        "--allow-type",
        "allow_types",
        multiple=True,
        metavar="TYPE",
        help="written although its CapabilityStatement refuses it",
    ),
    click.option(
        "--refuse-type",
        "refuse_types",
        multiple=True,
        metavar="TYPE",
        help="a resource type that is never written",
    ),
    click.option(
        "--transactions/--no-transactions",
        default=None,
        help="  [default: as its CapabilityStatement says]",
    ),
    click.option("--poll-seconds", type=int, help="how often to read what changed there  [default: 5]"),
    click.option(
        "--overlap-seconds", type=int, help="how far before the last reading the next begins  [default: 300]"
    ),
    click.option("--batch-size", type=int, help="about how many resources go at a time  [default: 50]"),
    click.option("--parallel", type=int, help="requests at a time, from one process  [default: 2]"),
    click.option("--requests-per-second", type=int, help="at most, from all workers  [default: 0, no limit]"),
    click.option(
        "--reconcile-hours", type=int, help="how often to compare it with the ledger; 0: never by itself"
    ),
    click.option(
        "--reconcile-fix/--no-reconcile-fix",
        default=None,
        help="whether such a comparison mends what it may",
    ),
    click.option("--header", multiple=True, metavar="NAME:VALUE", help="sent with every request"),
    click.option(
        "--map",
        "map_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="mllp(s): how messages for it are written, a file as docs/hl7.md has it for senders",
    ),
    click.option(
        "--sender", help="mllp(s): what this sender (ITB_MLLP_SENDERS) tells us is not sent back to it"
    ),
    click.option("--answer-seconds", type=int, help="mllp(s): how long to wait for an answer  [default: 30]"),
    click.option("--ca", metavar="FILE", help="mllps: authorities (PEM) of the receiver"),
    click.option("--cert", metavar="FILE", help="mllps: our certificate (PEM)"),
    click.option("--key", metavar="FILE", help="mllps: its key, where it is not in --cert"),
)
"""How an endpoint is treated; what a value may be is said by the schema that the API has for it."""


def treated(command: Callable[..., None]) -> Callable[..., None]:
    """A command with all of `TREATED`."""
    for option in reversed(TREATED):
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of an endpoint that stand on the command line, not yet checked."""
    made = {name: given[name] for name in (*FLAGS, *NUMBERS, "sender")}
    made |= {name: list(given[name]) or None for name in ("allow_types", "refuse_types")}
    made |= {f"{name}_file": _absolute(given[name]) for name in ("ca", "cert", "key")}
    made["hl7v2"] = None if given["map_file"] is None else _map(given["map_file"])
    made["headers"] = dict(_header(text) for text in given["header"]) or None
    return {option: value for option, value in made.items() if value is not None}


def _checked(schema: Any, given: dict[str, Any]) -> Any:
    try:
        return schema.load(given)
    except ValidationError as error:
        wrong = (f"{i.path}: {i.message}" for i in issues_of(error.messages))
        raise click.UsageError("; ".join(wrong)) from None


@endpoints.command("add")
@click.argument("name")
@click.argument("url")
@treated
@click.option("--backfill", is_flag=True, help="also deliver what the ledger holds already")
def endpoints_add(name: str, url: str, backfill: bool, **given: Any) -> None:
    """Add the FHIR R4 server at base URL under NAME; what is accepted from now on is delivered there.

    NAME becomes the `source` of records that the EHR's users enter there. URL may also be that of a receiver
    of HL7 v2, mllp://HOST:PORT or mllps://HOST:PORT (docs/mllp.md, "Endpoints").
    """
    from service.api.endpoints import NewEndpoint
    from service.store import deliveries
    from service.store import endpoints as store_endpoints

    options = _options(given)
    _checked(NewEndpoint(), {"name": name, "url": url, "options": options})
    store = opened()
    with store.write() as c:
        if store_endpoints.find(c, TENANT, name) is not None:
            raise click.ClickException(f"there is an endpoint {name} already")
        if other := store_endpoints.of_sender(store_endpoints.every(c, TENANT), options.get("sender", "")):
            raise click.ClickException(
                f"{other.options['sender']} is the sender of endpoint {other.name} already"
            )
        made = store_endpoints.add(c, TENANT, name, url, options, now=now())
        pending = deliveries.catch_up(c, made, now=now(), from_the_start=True) if backfill else 0
    click.echo(f"{made.name}\t{made.url}\t{pending} events to deliver")
    introduce(store, made)


@endpoints.command("change")
@click.argument("name")
@click.option("--url", help="where the same EHR is found now")
@treated
@click.option(
    "--default",
    "defaults",
    multiple=True,
    metavar="OPTION",
    help="an option, such as poll_seconds, that is to be as if it had never been given",
)
def endpoints_change(name: str, url: str | None, defaults: tuple[str, ...], **given: Any) -> None:
    """Change where NAME is found or how it is treated; what was delivered and read stays known.

    What is not named stays as it is; headers and lists are replaced whole. Another URL must be the same
    EHR's: it is asked for some of the resources that were written there. The map of a receiver of HL7 v2 is
    changed while the endpoint is paused and no message is on its way.
    """
    from service.api.endpoints import EndpointChange, apply_change
    from service.steering import CannotChange
    from service.store.keys import Caller

    asked = {"url": url, "options": _options(given) or None, "defaults": list(defaults) or None}
    change = _checked(EndpointChange(), {k: v for k, v in asked.items() if v is not None})
    if not change:
        raise click.UsageError("nothing to change: see itb endpoints change --help")
    store = opened()
    try:
        made = apply_change(store, Caller(TENANT, of_deliveries.ACTOR), named(store, name), change, now)
    except CannotChange as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{made.name}\t{made.url}\tchanged")
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
