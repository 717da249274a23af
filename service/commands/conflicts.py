"""`itb conflicts`: what an EHR and the ledger say differently about a record, and deciding it."""

from __future__ import annotations

from typing import Any

import click

from mappings import MappingError
from mappings.exact_json import dumps
from service.opening import TENANT, now, opened

SHOWN = 1000


@click.group()
def conflicts() -> None:
    """Records that were edited on both sides, or deleted in an EHR, and wait for a person."""


@conflicts.command("list")
@click.option("--all", "every", is_flag=True, help="also those that are decided or gone by themselves")
def conflicts_list(every: bool) -> None:
    """Number, EHR, record, fields and state of each open conflict."""
    from service.store import conflicts as store_conflicts
    from service.store import endpoints

    with opened().read() as c:
        names = {one.id: one.name for one in endpoints.every(c, TENANT)}
        status = None if every else "open"
        after = 0
        while found := store_conflicts.search(c, TENANT, limit=SHOWN, after_id=after, status=status):
            for one in found:
                fields = ", ".join(field["path"] for field in one.fields)
                persons = "two persons" if one.two_persons else "one person"
                state = f"proposed by {one.proposed_by}" if _is_proposed(one) else one.status
                record = f"{one.source}/{one.event_id}"
                click.echo(
                    f"{one.id}\t{names[one.endpoint_id]}\t{record}\t{one.kind}\t{fields}\t{persons}\t{state}"
                )
            after = found[-1].id


def _is_proposed(one: Any) -> bool:
    return one.status == "open" and one.proposed_by is not None


@conflicts.command("show")
@click.argument("number", type=int)
def conflicts_show(number: int) -> None:
    """One conflict as JSON: base, ours and theirs, and the raw resource. It holds a patient's data."""
    from service.api.conflicts import shown
    from service.store import conflicts as store_conflicts
    from service.store import endpoints, events

    with opened().read() as c:
        found = store_conflicts.find(c, TENANT, number)
        if found is None:
            raise click.ClickException(f"there is no conflict {number}")
        endpoint = endpoints.by_id(c, found.endpoint_id)
        ours = events.find(c, TENANT, found.source, found.event_id)[-1]
    assert endpoint is not None
    click.echo(dumps(shown(found, endpoint.name, ours.event)).decode())


@conflicts.command("resolve")
@click.argument("number", type=int)
@click.option("--take", type=click.Choice(["ours", "theirs"]), help="for every field")
@click.option("--field", "fields", multiple=True, metavar="PATH=ours|theirs", help="for one field")
@click.option("--key", envvar="ITB_KEY", help="your API key: it says who decides  [default: $ITB_KEY]")
def conflicts_resolve(number: int, take: str | None, fields: tuple[str, ...], key: str | None) -> None:
    """Decide a conflict. Where a dose depends on it, two persons must decide the same, each with a key."""
    from service.store import conflicts as store_conflicts
    from service.store import keys
    from service.sync.resolve import NotNow, decide

    store = opened()
    with store.read() as c:
        who = keys.caller(c, key) if key else None
        found = store_conflicts.find(c, TENANT, number)
    if who is None or who.tenant_id != TENANT:
        raise click.UsageError("--key (or ITB_KEY) must be a live API key: itb keys add NAME")
    if found is None:
        raise click.ClickException(f"there is no conflict {number}")
    choices = {field["path"]: take for field in found.fields if take is not None}
    choices |= dict(_choice(text) for text in fields)
    try:
        done = decide(store, TENANT, number, choices, who.name, now())
    except NotNow as error:
        raise click.ClickException(str(error)) from None
    except MappingError as error:
        raise click.ClickException("; ".join(f"{i.path}: {i.message}" for i in error.issues)) from None
    assert done is not None
    waits = f"proposed by {done.proposed_by}; another person must decide the same"
    click.echo(f"{number}\t{waits if done.status == 'open' else done.status}")


def _choice(text: str) -> tuple[str, str]:
    path, _, side = text.rpartition("=")
    if not path or side not in ("ours", "theirs"):
        raise click.UsageError(f"{text!r} is not PATH=ours or PATH=theirs")
    return path, side


COMMANDS = (conflicts,)
