"""A copy of an SQLite ledger, taken while the service runs: one moment of it, whole, or no file at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from .engine import Store, StoreError, sqlite_file

PAGES = 256
"""How many pages are copied between two reports of progress."""


def back_up(
    store: Store, target: Path, check: Callable[[Path], list[str]], seen: Callable[[int], object]
) -> list[str]:
    """Write what is committed now to `target`, which must not be there yet; what `check` says of the copy.

    `check` is given the finished copy before it gets its name, and raises where it must not have one. `seen`
    is told of the bytes as they are copied. Writers are not held up. Raises `StoreError`.
    """
    source = _file(store)
    if target.exists():
        raise StoreError(f"{target} is there already: a backup never overwrites")
    part = target.with_name(f"{target.name}.part")
    try:
        _copy(source, part, seen)
        checked = check(part)
        _sync(part)
        os.link(part, target)  # unlike a rename, it fails where somebody made that file meanwhile
        _sync(target.parent)
        return checked
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror}") from None
    finally:
        for leftover in (part, Path(f"{part}-wal"), Path(f"{part}-shm")):
            leftover.unlink(missing_ok=True)


def size(store: Store) -> int:
    """The bytes of the database file, about."""
    return _file(store).stat().st_size


def _file(store: Store) -> Path:
    found = sqlite_file(store.engine)
    if found is None:
        raise StoreError("this ledger is on PostgreSQL: use pg_dump (docs/operations.md)")
    return found


def _copy(source: Path, target: Path, seen: Callable[[int], object]) -> None:
    target.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(source, isolation_level=None)) as ours,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as theirs,
    ):
        # A reader's view of one moment: without it the copy begins anew with each commit of another process.
        page = ours.execute("PRAGMA page_size").fetchone()[0]
        ours.execute("BEGIN")
        ours.execute("SELECT count(*) FROM sqlite_master").fetchone()
        ours.backup(theirs, pages=PAGES, progress=lambda *_: seen(PAGES * page))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
