"""`itb endpoints subscribe`: have an EHR say when something changes."""

from __future__ import annotations

import secrets

import click

from service.opening import now, opened

from .servers import readable


@click.command("subscribe")
@click.argument("name")
@click.argument("url")
@click.option(
    "--type", "types", multiple=True, help="a resource type to hear of  [default: all that are read]"
)
def subscribe_(name: str, url: str, types: tuple[str, ...]) -> None:
    """Have the EHR NAME say when something changes, to this service as it is reached at URL from there.

    Makes rest-hook Subscriptions on its server, or renews them with a new secret. What it says is only a hint
    to read; polling goes on, as notifications get lost.
    """
    from service import hooks
    from service.sync.ehr import EhrError
    from service.sync.pull import TYPES
    from service.sync.subscribe import keep_secret, subscribe
    from service.sync.worker import connect

    store = opened()
    found = readable(store, name)
    if unknown := [type for type in types if type not in TYPES]:
        raise click.UsageError(f"{unknown[0]} is not read from EHRs; known: {', '.join(TYPES)}")
    secret = secrets.token_urlsafe(32)
    keep_secret(store, found, hooks.SECRET, hooks.hashed(secret))
    target = f"{url.rstrip('/')}/hooks/{name}"
    try:
        made = subscribe(
            store, connect(found), found, types or TYPES, target, f"{hooks.HEADER}: {secret}", now()
        )
    except EhrError as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from None
    for kind, id in made:
        click.echo(f"{kind}\tSubscription/{id}")


OF_ENDPOINTS = (subscribe_,)
