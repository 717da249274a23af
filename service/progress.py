"""A progress bar for long work, on a terminal; nothing in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO

PIECE = 65_536


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


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of `file` as they come, for what need not have line ends; with a bar like `counted`."""
    total = os.fstat(file.fileno()).st_size if sys.stderr.isatty() and not sys.stdout.isatty() else 0
    read = getattr(file, "read1", file.read)
    with advancing("reading", total) if total else nullcontext(lambda _: None) as advance:
        while piece := read(PIECE):
            advance(len(piece))
            yield piece


def waiting(progress: str) -> None:
    """Say once what a server says of its progress."""
    with advancing(f"waiting for the server: {progress}", None):
        pass


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
