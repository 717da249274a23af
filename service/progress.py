"""A progress bar for long work, on a terminal; nothing in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO


def counted(file: BinaryIO) -> Iterable[bytes]:
    """The lines of `file`, with a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return file
    total = os.fstat(file.fileno()).st_size or None

    def lines() -> Iterable[bytes]:
        with advancing("reading", total) as advance:
            for line in file:
                advance(len(line))
                yield line

    return lines()


@contextmanager
def advancing(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; call what it gives with each step that is done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda step: bar.advance(task, step)
