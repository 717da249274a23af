"""`itb import-csv`: what a clinic has today, row by row into the ledger, as a job."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from mappings import Issue, MappingError
from service.csv import columns as csv_map
from service.csv import rows as csv_rows
from service.csv.columns import OWN_COLUMNS, CsvMap
from service.csv.rows import Row
from service.intake import Loaded, Result

from .checkpoint import Output
from .exits import REFUSALS
from .job import CHECKPOINT, DRY_RUN, REPORT, Job
from .ledger_files import admitted, settle


@click.command("import-csv")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option(
    "--map",
    "map_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="what the columns mean, in TOML (docs/import.md)",
)
@click.option(
    "--refused-to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="write the refused rows there with a column of reasons: mend them, and give FILE to this command",
)
@DRY_RUN
@CHECKPOINT
@REPORT
def import_csv(
    file: BinaryIO,
    map_file: Path,
    refused_to: Path | None,
    dry_run: bool,
    checkpoint: Path | None,
    report: str | None,
) -> None:
    """Take the rows of a CSV file (a refill log, a list of pumps, dose changes) into the ledger.

    A row that is refused is named, the others go on. With --dry-run, a table of what would become of each
    row: line, id, fate, reasons. The same file may be given again: rows that are there are replays.
    """
    if dry_run and checkpoint:
        raise click.UsageError("--dry-run does nothing that a checkpoint could keep")
    told = _map(map_file)
    with Job(f"import-csv --source {told.source}", report, checkpoint, dry_run, out=refused_to) as job:
        records = csv_rows.records(job.lines(file), told.multiline)
        _, header = next(records, (0, b""))
        try:
            names = csv_rows.header_of(header, told)
        except MappingError as error:
            raise _unusable("the header", error) from None
        target = job.output(refused_to) if refused_to is not None else None
        if target is not None and not job.mark.line:
            target.write(csv_rows.written([*OWN_COLUMNS, *_foreign(names)], told))
        _take(job, csv_rows.rows(records, names, told, job.mark.line), names, told, target)
        job.summary = job.counts
        job.finish()


def _map(path: Path) -> CsvMap:
    try:
        return csv_map.load(path.read_text())
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8") from None
    except MappingError as error:
        raise _unusable(str(path), error) from None


def _unusable(what: str, error: MappingError) -> click.UsageError:
    issues = "\n".join(f"  {i.path}: {i.rule}: {i.message}" for i in error.issues)
    return click.UsageError(f"{what} cannot be used:\n{issues}")


def _foreign(names: list[str]) -> list[str]:
    return [name for name in names if name not in OWN_COLUMNS]


def _take(job: Job, rows: Iterator[Row], names: list[str], told: CsvMap, target: Output | None) -> None:
    waiting: deque[Row] = deque()

    def loaded() -> Iterator[Loaded]:
        for row in rows:
            waiting.append(row)
            yield Loaded(told.source, row.id, row.event, row.issues, row.notes)

    if job.dry_run and job.report is None:
        click.echo("line\tid\tfate\treasons")
    for result in admitted(job, loaded()):
        row = waiting.popleft()
        reasons = result.issues if row.issues else csv_rows.named(result.issues, told)
        if target is not None and result.outcome in REFUSALS:
            target.write(csv_rows.refused_row(_without_own(row, names), reasons, told))
        if job.dry_run and job.report is None:
            _show(row, result, reasons)
        settle(job, row.line, Result(result.source, result.id, result.outcome, result.seq, reasons))


def _show(row: Row, result: Result, reasons: tuple[Issue, ...]) -> None:
    words = "; ".join(f"{i.path}: {i.rule}: {i.message}" for i in reasons)
    click.echo(f"{row.line}\t{row.id or '-'}\t{result.outcome}\t{words or '-'}")


def _without_own(row: Row, names: list[str]) -> Row:
    """The cells without the columns that an earlier file of refused rows had added."""
    own = len(OWN_COLUMNS) if names[: len(OWN_COLUMNS)] == list(OWN_COLUMNS) else 0
    return Row(row.line, row.cells[own:] if len(row.cells) > own else row.cells)
