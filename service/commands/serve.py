"""`itb serve`, `itb worker`: what runs until it is stopped."""

from __future__ import annotations

import click

from service.opening import opened, settings


@click.command()
@click.option("--host", help="address to listen on (default: ITB_HOST)")
@click.option("--port", type=click.IntRange(0, 65535), help="port to listen on (default: ITB_PORT)")
def serve(host: str | None, port: int | None) -> None:
    """Serve the API, the FHIR facade and the documentation, and keep the EHRs in step."""
    from service.server import run

    chosen = settings()
    run(chosen, host or chosen.host, chosen.port if port is None else port)


@click.command()
def worker() -> None:
    """Only keep the EHRs in step, without HTTP; until Ctrl-C."""
    from service.server import run_worker

    run_worker(opened(), settings().engine)
