"""`itb` for the database's administrator: is it whole, back it up, move it (docs/operations.md)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from service.chain import ANCHOR
from service.opening import now, settings
from service.progress import advancing


@click.command()
@click.option(
    "--expect",
    multiple=True,
    metavar="ANCHOR",
    help="an anchor that an earlier `itb verify` printed: the chain must still pass through it",
)
def verify(expect: tuple[str, ...]) -> None:
    """Walk the hash chains of the ledger and its audit: is every row what was written, none missing?

    Prints where each chain ends (its anchor): kept outside of the database, it also proves that nobody
    wrote all of it anew. The exit status is 1 when anything is wrong.
    """
    from service.doctor import UNUSABLE, why
    from service.store.engine import Store
    from service.verify import findings

    failed = False
    try:
        for found in findings(Store(settings().database_url), _anchors(expect), advancing):
            click.echo(f"{'ok  ' if found.ok else 'FAIL'}  {found.what}")
            failed = failed or not found.ok
    except UNUSABLE as error:
        raise click.ClickException(why(error)) from None
    sys.exit(1 if failed else 0)


def _anchors(expect: tuple[str, ...]) -> tuple[str, ...]:
    for text in expect:
        if not ANCHOR.fullmatch(text):
            raise click.UsageError(f"{text!r} is not an anchor (such as events/1:1203:5f3a…)")
    return expect


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Copy the SQLite ledger to FILE while the service runs: one moment of it, verified, never half a file.

    Prints the anchors of the copy (see `itb verify`). How to restore one: docs/operations.md.
    """
    from service.store.backup import back_up, size
    from service.store.engine import Store
    from service.verify import verified

    store = Store(settings().database_url)
    with advancing("copying", size(store)) as advance:
        anchors = back_up(store, file, verified, advance)
    for anchor in anchors:
        click.echo(f"{file}\t{anchor}")


@click.command("migrate-to")
@click.argument("url")
def migrate_to(url: str) -> None:
    """Move the site to the database at URL: from SQLite to PostgreSQL, or back.

    Every row of every table is copied, then counted and compared. The service and its workers must be
    stopped. Killed, it goes on where it stood when it is run again. The old database is left as it is: set
    ITB_DATABASE_URL to URL, and never start a service on the old one again.
    """
    from service.store.engine import Store, StoreError
    from service.store.move import move

    source, target = Store(settings().database_url), Store(url)
    if source.engine.url == target.engine.url:
        raise StoreError("URL is the database that the site is in already")
    for name, number in move(source, target, now=now(), bar=advancing).items():
        click.echo(f"{name}\t{number} rows, the same in both")


COMMANDS = (verify, backup, migrate_to)
