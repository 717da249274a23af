"""How a command ends: one table of exit statuses, and the errors that stand for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Exit:
    """One exit status: a word for reports, what it means, and what a scheduler should do."""

    word: str
    meaning: str
    then: str


DONE, REFUSED, USAGE, UNREACHABLE, STOPPED, BUSY, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
EXITS: dict[int, Exit] = {
    DONE: Exit("done", "everything was done", "go on"),
    REFUSED: Exit(
        "refused",
        "some items were refused, each is named; the others were done. A check found something",
        "give the list to a person; running it again changes nothing",
    ),
    USAGE: Exit("usage", "arguments, settings or a map cannot be used; nothing was done", "mend the call"),
    UNREACHABLE: Exit(
        "unreachable",
        "the database or another server cannot be used; what was done before stays done",
        "run it again later",
    ),
    STOPPED: Exit(
        "stopped",
        "it could not go on: a full disk, a file that cannot be written, a checkpoint of another input",
        "mend what the message names, run it again",
    ),
    BUSY: Exit("busy", "another process works with the same checkpoint or folder", "let that one end"),
    INTERRUPTED: Exit("interrupted", "Ctrl-C", "run it again"),
}

REFUSALS = frozenset({"refused", "rejected", "conflict", "failed", "parked"})
"""What a count is called whose items a person must look at."""


def status_of(counts: Mapping[str, int]) -> int:
    """The status of a job that came to its end."""
    return REFUSED if any(counts.get(name) for name in REFUSALS) else DONE


class Unreachable(click.ClickException):
    """A server or database cannot be used."""

    exit_code = UNREACHABLE


class Stopped(click.ClickException):
    """The job cannot go on."""

    exit_code = STOPPED


class Busy(click.ClickException):
    """Another process has this job."""

    exit_code = BUSY


def exits_table() -> str:
    """The Markdown table of docs/jobs.md (a test compares them)."""
    rows = [f"| {code} | `{e.word}` | {e.meaning} | {e.then} |" for code, e in EXITS.items()]
    return "\n".join(["| status | word | meaning | then |", "|---|---|---|---|", *rows]) + "\n"
