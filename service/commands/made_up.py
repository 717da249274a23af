"""`itb fixtures`, `itb fake-ehr`: a made-up clinic, and an EHR that misbehaves, to test a site with."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from service.fake_ehr.personality import NAMES as FAKE_EHRS
from service.synthetic import write_clinic


@click.command()
@click.option("--pumps", type=click.IntRange(1), default=10, show_default=True)
@click.option("--years", type=click.IntRange(1, 50), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def fixtures(pumps: int, years: int, seed: int) -> None:
    """Write the events of a made-up clinic as NDJSON: the same seed, the same bytes."""
    write_clinic(sys.stdout.buffer, pumps, years, seed)


@click.command("fake-ehr")
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
    from service.fake_ehr.faults import PlanError, plan_of
    from service.fake_ehr.personality import load
    from service.fake_ehr.server import FakeEhr, Server

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
