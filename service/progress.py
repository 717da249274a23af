"""A progress bar over a file that is read, on a terminal; nothing in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import BinaryIO


def counted(file: BinaryIO) -> Iterable[bytes]:
    """The lines of `file`, with a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return file
    from rich.console import Console
    from rich.progress import Progress

    total = os.fstat(file.fileno()).st_size or None

    def lines() -> Iterable[bytes]:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("reading", total=total)
            for line in file:
                bar.advance(task, len(line))
                yield line

    return lines()
