"""`itb deliveries` and what `itb endpoints` does with them: what waits and why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from service.opening import TENANT, now, opened

ACTOR = "cli"
REASON = click.option("--reason", required=True, help="why; it is kept with the delivery and in the audit")


@click.group()
def deliveries() -> None:
    """What is on its way to the EHRs, what waits and why."""


@deliveries.command("list")
@click.option(
    "--status",
    type=click.Choice(["pending", "sent", "failed", "parked", "paused", "skipped", "cancelled"]),
    help="only these",
)
@click.option("--endpoint", help="only those to this EHR")
def deliveries_list(status: str | None, endpoint: str | None) -> None:
    """Each delivery: number, endpoint, event, status, tries, when it is tried next, and the reason."""
    from service.store import endpoints as store_endpoints

    store = opened()
    with store.read() as c:
        names = {one.id: one.name for one in store_endpoints.every(c, TENANT)}
    if endpoint is not None and endpoint not in names.values():
        raise click.ClickException(f"there is no endpoint {endpoint}")
    chosen = next((id for id, name in names.items() if name == endpoint), None)
    for one, event in _every(store, status, chosen):
        waits = f"next {one.next_try_at}" if one.status == "pending" else one.updated_at
        told = (one.id, names[one.endpoint_id], event, one.status, f"{one.attempts} tries", waits)
        click.echo("\t".join([*map(str, told), one.reason or "-"]))


def _every(store: Any, status: str | None, endpoint_id: int | None) -> Iterator[tuple[Any, str]]:
    from service.store import deliveries as store_deliveries
    from service.store import events

    after = 0
    while True:
        with store.read() as c:
            page = store_deliveries.search(
                c, TENANT, limit=500, after_id=after, status=status, endpoint_id=endpoint_id
            )
            about = events.by_seqs(c, TENANT, [one.event_seq for one in page])
        if not page:
            return
        for one in page:
            found = about[one.event_seq]
            if isinstance(found, events.StoredEvent):
                yield one, f"{found.event['source']}/{found.event['id']}"
            else:
                yield one, "(damaged: itb verify)"
        after = page[-1].id


def _change(ids: tuple[int, ...], action: str, reason: str | None = None) -> None:
    """All of them or none: one that cannot be changed stops the others."""
    from service.steering import CannotChange, change_delivery
    from service.store.keys import Caller

    with opened().write() as c:
        for id in ids:
            try:
                found = change_delivery(c, Caller(TENANT, ACTOR), id, action, reason, now=now())
            except CannotChange as error:
                raise click.ClickException(f"{id}: {error}; nothing was changed") from None
            if found is None:
                raise click.ClickException(f"there is no delivery {id}; nothing was changed")
    click.echo(f"{len(ids)}\t{action}")


IDS = click.argument("ids", metavar="ID...", type=int, nargs=-1, required=True)


@deliveries.command("retry")
@IDS
def deliveries_retry(ids: tuple[int, ...]) -> None:
    """Try these again now, their tries counted anew."""
    _change(ids, "retry")


@deliveries.command("pause")
@IDS
def deliveries_pause(ids: tuple[int, ...]) -> None:
    """Hold these; what comes after them for the same pump waits too."""
    _change(ids, "pause")


@deliveries.command("resume")
@IDS
def deliveries_resume(ids: tuple[int, ...]) -> None:
    """Let paused ones go on."""
    _change(ids, "resume")


@deliveries.command("cancel")
@IDS
@REASON
def deliveries_cancel(ids: tuple[int, ...], reason: str) -> None:
    """Leave out what is not meant for this EHR; what comes after it goes on."""
    _change(ids, "cancel", reason)


@deliveries.command("skip")
@IDS
@REASON
def deliveries_skip(ids: tuple[int, ...], reason: str) -> None:
    """Go on without what cannot be sent: the EHR lacks it, and why is kept."""
    _change(ids, "skip", reason)


def _change_endpoint(name: str, action: str, reason: str | None = None) -> None:
    from service.steering import change_endpoint
    from service.store import endpoints as store_endpoints
    from service.store.keys import Caller

    with opened().write() as c:
        found = store_endpoints.find(c, TENANT, name)
        if found is None:
            raise click.ClickException(f"there is no endpoint {name}")
        number = change_endpoint(c, Caller(TENANT, ACTOR), found, action, reason, now=now())
    click.echo(f"{name}\t{action}\t{number} deliveries")


@click.command("pause")
@click.argument("name")
def endpoints_pause(name: str) -> None:
    """Stop sending to and reading from NAME; what is accepted meanwhile is sent after `resume`."""
    _change_endpoint(name, "pause")


@click.command("resume")
@click.argument("name")
def endpoints_resume(name: str) -> None:
    """Send to and read from NAME again, beginning with what it missed."""
    _change_endpoint(name, "resume")


@click.command("retry")
@click.argument("name")
def endpoints_retry(name: str) -> None:
    """Try everything that failed or was parked on the way to NAME again now."""
    _change_endpoint(name, "retry")


@click.command("cancel")
@click.argument("name")
@REASON
def endpoints_cancel(name: str, reason: str) -> None:
    """Leave out everything that is on its way to NAME."""
    _change_endpoint(name, "cancel", reason)


@click.command("skip")
@click.argument("name")
@REASON
def endpoints_skip(name: str, reason: str) -> None:
    """Go on without everything that failed or was parked on the way to NAME."""
    _change_endpoint(name, "skip", reason)


OF_ENDPOINTS: tuple[click.Command, ...] = (
    endpoints_pause,
    endpoints_resume,
    endpoints_retry,
    endpoints_cancel,
    endpoints_skip,
)
"""Commands of the group `itb endpoints`."""
