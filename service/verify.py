"""`itb verify`: is the ledger what was written, row by row?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from .chain import COLUMNS, anchor
from .store import chains
from .store.engine import Store, StoreError, is_migrated

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: what is wrong, or (`ok`) where a chain ends."""

    ok: bool
    what: str


@contextmanager
def no_bar(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Nobody looks on."""
    yield lambda step: None


def require_sound(store: Store) -> None:
    """Raises `StoreError` when an SQLite file is damaged: asked before it is served from.

    A damaged index hides rows from a search without any error: a pump's state would lack a dose change.
    """
    with store.read() as c:
        for words in chains.structure(c):
            raise StoreError(f"the database is damaged: {words}; restore a backup (docs/operations.md)")


def verified(file: Path) -> list[str]:
    """The anchors of an SQLite ledger in a file; raises `StoreError` when it does not verify."""
    store = Store(f"sqlite:///{file}")
    try:
        found = list(findings(store))
    finally:
        store.close()
    for one in found:
        if not one.ok:
            raise StoreError(f"the copy does not verify: {one.what}; see `itb verify`")
    return [one.what for one in found]


def findings(store: Store, expected: Iterable[str] = (), bar: Bar = no_bar) -> Iterator[Finding]:
    """Everything that is wrong, then each chain's anchor; raises `StoreError` for tables of another version.

    The chains prove what events and audit rows say. The structure of an SQLite file is checked as well: an
    index that lies hides rows from a search, and the bookkeeping (deliveries, links) is not chained.
    """
    try:
        with store.read() as c:
            if not is_migrated(c):
                raise StoreError("the tables are not those of this version: run `itb doctor` first")
            for name in COLUMNS:
                with bar(f"verifying {name}", chains.count(c, name)) as advance:
                    for found in chains.breaks(c, name, expected=expected, seen=advance):
                        place = f"row {found.id}" if found.id is not None else "the chain"
                        yield Finding(False, f"{name} of tenant {found.tenant_id}: {place} {found.reason}")
            for words in itertools.chain(chains.structure(c), chains.implausible(c)):
                yield Finding(False, f"the database is damaged: {words}")
            for name in COLUMNS:
                for tenant, head in chains.heads(c, name).items():
                    yield Finding(True, anchor(name, tenant, head))
    except DatabaseError as error:
        yield Finding(False, f"the database cannot be read: {error.orig}")
