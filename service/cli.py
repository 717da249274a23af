"""`itb`: parse arguments, call, print. Every command's work is done elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

import click
from marshmallow import ValidationError

from mappings import MappingError
from mappings.exact_json import dumps, lines
from mappings.fields import issues_of
from mappings.identity import SOURCE

from . import cli_deliveries, cli_hooks, conversion
from .administration import COMMANDS as ADMINISTRATION
from .cli_conflicts import COMMANDS as CONFLICTS
from .cli_servers import COMMANDS as SERVERS
from .cli_servers import introduce
from .commands import convert, convert_hl7
from .commands.jobs import COMMANDS as JOBS
from .fake_ehr.personality import NAMES as FAKE_EHRS
from .opening import TENANT, Commands, now, opened, settings
from .progress import counted
from .synthetic import write_clinic


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="itb-fhir")
def main() -> None:
    """Intrathecal baclofen pump records to and from FHIR R4, in step with hospital EHRs.

    Not a medical device: it transfers, stores, converts and shows. Settings come from the environment
    (ITB_DATABASE_URL and others: see the README).
    """


for _job in JOBS:
    main.add_command(_job)
for _message in convert_hl7.COMMANDS:
    convert.convert.add_command(_message)


@main.command()
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option("--json", "as_json", is_flag=True, help="a JSON object an event instead of a table")
def explain(file: BinaryIO, as_json: bool) -> None:
    """Say where each element of the FHIR of each event (a line each) comes from.

    Columns: the element, its value, the event field it comes from, and what was done to it.
    """
    convert.shown(conversion.explained(counted(file), table=not as_json))


@main.command()
@click.argument("old_ref")
@click.argument("file", type=click.File("rb", lazy=False))
def impact(old_ref: str, file: BinaryIO) -> None:
    """Say what the FHIR of FILE's events is now that it was not at the git revision OLD_REF.

    One line a difference, then a summary. The exit status is 1 when a clinical value or an identifier
    changed, or an event is refused that was not (or the other way round).
    """
    from .impact import ImpactError, changes

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


# --- implementation guide -------------------------------------------------------------------------------


@main.group()
def ig() -> None:
    """The ITB implementation guide: profiles, extensions, codes and searches."""


@ig.command("build")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file to write  [default: itb-fhir-VERSION.tgz]",
)
@click.option(
    "--examples",
    type=click.File("rb", lazy=False),
    help="events (JSON, one a line) whose resources go into the package as examples",
)
def ig_build(out: Path | None, examples: BinaryIO | None) -> None:
    """Write the guide as a FHIR NPM package, for a FHIR server or validator to load."""
    from mappings.ig import package

    from . import guide

    made = guide.definitions()
    try:
        shown = guide.examples([line for _, line in lines(examples)]) if examples else []
    except MappingError as error:
        raise click.ClickException(str(error)) from None
    target = out or Path(f"itb-fhir-{made[-1]['version']}.tgz")
    target.write_bytes(package(made, shown))
    click.echo(f"{target}: {len(made)} definitions, {len(shown)} examples")


# --- fixtures -------------------------------------------------------------------------------------------


@main.command()
@click.option("--pumps", type=click.IntRange(1), default=10, show_default=True)
@click.option("--years", type=click.IntRange(1, 50), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def fixtures(pumps: int, years: int, seed: int) -> None:
    """Write the events of a made-up clinic as NDJSON: the same seed, the same bytes."""
    write_clinic(sys.stdout.buffer, pumps, years, seed)


# --- keys and endpoints ---------------------------------------------------------------------------------


@main.group()
def keys() -> None:
    """API keys of the callers of this service."""


@keys.command("add")
@click.argument("name")
def keys_add(name: str) -> None:
    """Make a key for NAME and print it once; only its hash is kept.

    NAME becomes the `source` of records that its holder enters under /fhir.
    """
    if not SOURCE.fullmatch(name):
        raise click.UsageError("NAME must match [a-z0-9-]{1,40}")
    from .store import keys as store_keys

    with opened().write() as c:
        click.echo(store_keys.add(c, TENANT, name, now=now()))


@keys.command("list")
def keys_list() -> None:
    """The names of the keys."""
    from .store import keys as store_keys

    with opened().read() as c:
        for row in store_keys.every(c, TENANT):
            click.echo(f"{row.name}\tmade {row.created_at}\t{row.revoked_at or 'live'}")


@keys.command("revoke")
@click.argument("name")
def keys_revoke(name: str) -> None:
    """End every key of NAME."""
    from .store import keys as store_keys

    with opened().write() as c:
        number = store_keys.revoke(c, TENANT, name, now=now())
    if not number:
        raise click.ClickException(f"there is no live key of {name}")
    click.echo(f"{number} revoked")


@main.group()
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
    from .api.endpoints import NewEndpoint
    from .store import deliveries
    from .store import endpoints as store_endpoints

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
    from .senders import table_of

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
    from .store import endpoints as store_endpoints
    from .store import gates
    from .sync.gate import Gate

    with opened().read() as c:
        for one in store_endpoints.every(c, TENANT):
            breaker = Gate(**gates.find(c, one.id)).state(now())
            state = (
                "paused" if not one.enabled else "enabled" if breaker == "closed" else f"breaker {breaker}"
            )
            click.echo(f"{one.name}\t{one.url}\t{state}\tread up to {one.cursor or '-'}")


main.add_command(cli_deliveries.deliveries)
for _command in (*cli_deliveries.OF_ENDPOINTS, *cli_hooks.OF_ENDPOINTS):
    endpoints.add_command(_command)


# --- running --------------------------------------------------------------------------------------------


@main.command()
@click.option("--host", help="address to listen on (default: ITB_HOST)")
@click.option("--port", type=click.IntRange(0, 65535), help="port to listen on (default: ITB_PORT)")
def serve(host: str | None, port: int | None) -> None:
    """Serve the API, the FHIR facade and the documentation, and keep the EHRs in step."""
    from .server import run

    chosen = settings()
    run(chosen, host or chosen.host, chosen.port if port is None else port)


@main.command()
def worker() -> None:
    """Only keep the EHRs in step, without HTTP; until Ctrl-C."""
    from .server import run_worker

    run_worker(opened(), settings().engine)


@main.command("fake-ehr")
@click.option("--personality", type=click.Choice(FAKE_EHRS), default="hapi", show_default=True)
@click.option("--faults", default="", metavar="PLAN", help="a JSON file, or a short text (see above)")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default, takes a free one")
@click.option("--seed", type=int, default=0, show_default=True, help="the same seed, the same faults")
@click.option(
    "--patient", multiple=True, metavar="SYSTEM|VALUE", help="a patient who is there from the start"
)
def fake_ehr(personality: str, faults: str, port: int, seed: int, patient: tuple[str, ...]) -> None:
    """Run an EHR to test a site against: a small FHIR R4 server in memory that misbehaves as asked.

    PLAN is rules separated by `;`, each KIND[=VALUE]@WHEN[/ROUTE][/TYPE], where WHEN is N% of the calls, #N
    for the Nth, #N+ from the Nth on: `status=503@10%`, `reset-after@#2/transaction`, `stale@5%/search`. N%
    alone is any of the kinds that a client should get over. Every kind: docs/fake-ehr.md.

    Its base URL is the first line printed. GET /_fake tells what was asked and what went wrong; PUT
    /_fake/faults takes another plan. Until Ctrl-C.
    """
    from .fake_ehr.faults import PlanError, plan_of
    from .fake_ehr.personality import load
    from .fake_ehr.server import FakeEhr, Server

    try:
        file = Path(faults)
        text = file.read_text() if faults.endswith(".json") or file.is_file() else faults
        fake = FakeEhr(load(personality), plan_of(text, seed))
    except (OSError, PlanError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    for one in patient:
        fake.register(*_named(one))
    server = Server(fake, port)
    click.echo(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def _named(text: str) -> tuple[str, str]:
    system, bar, value = text.rpartition("|")
    if not bar or not system or not value:
        raise click.UsageError(f"{text!r} is not SYSTEM|VALUE")
    return system, value


for command in (*ADMINISTRATION, *SERVERS, *CONFLICTS):
    main.add_command(command)


if __name__ == "__main__":
    main()
