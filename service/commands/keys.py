"""`itb keys`: who may call the service."""

from __future__ import annotations

import click

from mappings.identity import SOURCE
from service.opening import TENANT, now, opened


@click.group()
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
    from service.store import keys as store_keys

    with opened().write() as c:
        click.echo(store_keys.add(c, TENANT, name, now=now()))


@keys.command("list")
def keys_list() -> None:
    """The names of the keys."""
    from service.store import keys as store_keys

    with opened().read() as c:
        for row in store_keys.every(c, TENANT):
            click.echo(f"{row.name}\tmade {row.created_at}\t{row.revoked_at or 'live'}")


@keys.command("revoke")
@click.argument("name")
def keys_revoke(name: str) -> None:
    """End every key of NAME."""
    from service.store import keys as store_keys

    with opened().write() as c:
        number = store_keys.revoke(c, TENANT, name, now=now())
    if not number:
        raise click.ClickException(f"there is no live key of {name}")
    click.echo(f"{number} revoked")
