"""What every long command shares: its options, its counts, its report and how it ends (docs/jobs.md)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import click
from sqlalchemy.exc import OperationalError

from mappings import Issue
from mappings.exact_json import dumps
from service.opening import now, opened
from service.progress import counted

from . import checkpoint as marks
from .checkpoint import Item, Mark, Output, Trail
from .exits import DONE, EXITS, INTERRUPTED, REFUSALS, Stopped, Unreachable, status_of

Json = Any
MOST_ITEMS = 1000
"""Refused items that a report lists; it says how many more there are."""

REPORT = click.option(
    "--report", type=click.Choice(["json"]), help="a summary for programs, as the last line (docs/jobs.md)"
)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="keep in FILE how far it came: the same command again goes on there",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="say what would be done, and do nothing")
OUT = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file to write  [default: standard output]",
)


@dataclass
class Job:
    """One run of a command; as a context it prints the report and ends the process with its status."""

    name: str
    report: str | None = None
    checkpoint: Path | None = None
    dry_run: bool = False
    out: Path | None = None
    data_on_stdout: bool = False
    """Then the report goes to standard error."""
    counts: dict[str, int] = field(default_factory=dict)
    summary: Json = None
    """What goes to standard output without --report."""

    def __post_init__(self) -> None:
        self.mark = Mark()
        self.message: str | None = None
        self._items: list[Json] = []
        self._unlisted = 0
        self._trail: Trail[Any] | None = None
        self._outputs: dict[str, Output] = {}
        self._stack = ExitStack()
        self._started = now()
        self.line = 0

    # --- input and output ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Alone with the checkpoint, and where it says we are."""
        if self.checkpoint is not None:
            self._stack.enter_context(marks.held(self.checkpoint))
            self.mark = marks.load(self.checkpoint, self.name)
            self.counts |= self.mark.counts
            self.line = self.mark.line

    def lines(self, file: BinaryIO) -> Iterable[bytes]:
        """The lines of the input, with a progress bar on a terminal."""
        return self.items(counted(file), bytes)

    def items(self, stream: Iterable[Item], said: Callable[[Item], bytes]) -> Iterable[Item]:
        """What stands for the lines of an input that has none; `said` is what the checkpoint knows it by."""
        if self.checkpoint is None:
            return stream
        trail = Trail(stream, self.mark, said)
        self._trail = trail
        return trail

    def output(self, path: Path) -> Output:
        """A file to write, which the checkpoint keeps in step."""
        made = Output(path.resolve(), self.mark)
        self._outputs[str(made.path)] = made
        self._stack.callback(made.close)
        return made

    def reached(self, line: int, more: Json = None) -> None:
        """All up to this line is done; saved now and then, and by `finish`."""
        self.line = line
        if self.checkpoint is not None and line >= self.mark.line + marks.EVERY:
            self._save(more or {})

    def finish(self, more: Json = None) -> None:
        """The input is at its end: what was written is on the disk."""
        if self._trail is not None:
            self.line = self._trail.line
        if self.checkpoint is not None:
            self._save(more or {})
        for output in self._outputs.values():
            output.settle()

    def _save(self, more: Json) -> None:
        assert self.checkpoint is not None
        lengths = {path: output.settle() for path, output in self._outputs.items()}
        digest = self._trail.digest(self.line) if self._trail is not None else ""
        self.mark = Mark(self.line, digest, lengths, dict(self.counts), more)
        marks.save(self.checkpoint, self.name, self.mark)

    def store(self) -> Any:
        """The migrated store of the settings; raises `Unreachable`."""
        try:
            return opened()
        except click.UsageError:
            raise
        except click.ClickException as error:
            raise Unreachable(error.message) from None

    # --- what became of each item -------------------------------------------------------------------------

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def item(self, outcome: str, issues: Sequence[Issue], *, listed: bool = False, **named: Json) -> None:
        """One item of the report: `line`, `source`, `id` or what else names it; refused ones always."""
        if outcome not in REFUSALS and not listed:
            return
        if len(self._items) >= MOST_ITEMS and not listed:
            self._unlisted += 1
            return
        told = [{"path": i.path, "rule": i.rule, "message": i.message} for i in issues]
        self._items.append({**named, "outcome": outcome, "issues": told})

    # --- how it ends --------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.begin()
        except click.ClickException as error:
            self._stack.close()
            self._end(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, OperationalError):
                error = Unreachable("the database does not answer")
            elif isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                error = Stopped(f"{error.filename or 'the output'}: {error.strerror}")
            if isinstance(error, KeyboardInterrupt):
                self.message = "interrupted"
                self._print(INTERRUPTED)
                sys.exit(INTERRUPTED)
            if error is None:
                status = status_of(self.counts)
                self._print(status)
                sys.exit(status)
            self._end(error)
            if isinstance(error, click.ClickException) and kind is not type(error):
                raise error from None
        finally:
            self._stack.close()

    def _end(self, error: BaseException) -> None:
        if isinstance(error, click.ClickException):
            self.message = error.format_message()
            self._print(error.exit_code)

    def _print(self, status: int) -> None:
        if self.report == "json":
            click.echo(dumps(self.told(status)).decode(), err=self.data_on_stdout)
        elif status <= 1 and self.summary is not None:
            click.echo(dumps(self.summary).decode())

    def told(self, status: int) -> Json:
        """The report; docs/jobs.md, "Report"."""
        return {
            "report": 1,
            "command": self.name.partition(" --")[0],
            "version": version("itb-fhir"),
            "status": status,
            "meaning": EXITS[status].word if status in EXITS else EXITS[DONE].word,
            "message": self.message,
            "dry_run": self.dry_run,
            "started_at": self._started.isoformat(timespec="seconds"),
            "ended_at": now().isoformat(timespec="seconds"),
            "lines": self.line,
            "counts": self.counts,
            "items": self._items,
            "items_left_out": self._unlisted,
            "files": {
                "out": str(self.out) if self.out else None,
                "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            },
        }


def said(line: int, issues: Iterable[Issue], what: str = "line") -> None:
    """`line N: path: rule: message` on standard error."""
    for issue in issues:
        click.echo(f"{what} {line}: {issue.path}: {issue.rule}: {issue.message}", err=True)
