"""What became of each piece of a stream: output, issues on standard error, an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import click

from mappings import Issue

from .conversion import Converted


def said(line: int, issues: Iterable[Issue], what: str = "line") -> None:
    """`line N: path: rule: message` on standard error."""
    for issue in issues:
        click.echo(f"{what} {line}: {issue.path}: {issue.rule}: {issue.message}", err=True)


def converted(results: Iterator[Converted], *, what: str = "line", end: bytes = b"\n") -> None:
    """Write every result, then end with status 1 if any had an error; `what` is what a number counts."""
    failed = False
    out = sys.stdout.buffer
    for result in results:
        for line in result.out:
            out.write(line)
            out.write(end)
        said(result.line, [*result.errors, *result.notes], what)
        failed = failed or bool(result.errors)
    out.flush()
    sys.exit(1 if failed else 0)
