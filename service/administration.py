"""`itb` for the database's administrator: is it whole, back it up, move it (docs/operations.md)."""

from __future__ import annotations

import sys

import click

from .chain import ANCHOR
from .opening import settings
from .progress import advancing


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
    from .doctor import UNUSABLE, why
    from .store.engine import Store
    from .verify import findings

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


COMMANDS = (verify,)
