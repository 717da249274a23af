"""`itb export-table`: the ledger as flat tables for a registry, as a job."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from mappings import Issue
from service.flat import tables as flat
from service.flat.files import FORMATS, TableFile, Unfit
from service.opening import TENANT
from service.progress import advancing

from .job import REPORT, Job

LEAST_KEY = 32
"""Bytes of a key: as many as the digest it keys."""


@click.command("export-table")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), required=True)
@click.option(
    "--table",
    "only",
    type=click.Choice(list(flat.tables())),
    multiple=True,
    help="only this table; repeatable",
)
@click.option(
    "--pseudonymise",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="KEYFILE",
    help="patients, records and serials as digests under the key in KEYFILE; people and free text left out",
)
@REPORT
def export_table(
    folder: Path, form: str, only: tuple[str, ...], pseudonymise: Path | None, report: str | None
) -> None:
    """Write the current version of every event into FOLDER as flat tables, all as of one moment.

    One table an event type, and one for each list inside: docs/tables.md. Pseudonymised is not anonymous.
    """
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise click.UsageError("Parquet needs the extra: pip install 'itb-fhir[parquet]'")
    change = flat.pseudonymiser(_key(pseudonymise)) if pseudonymise is not None else None
    chosen = {name: c for name, c in flat.tables().items() if not only or name in only}
    with Job("export-table", report, out=folder) as job:
        store = job.store()
        folder.mkdir(parents=True, exist_ok=True)
        parts = {name: folder / f"{name}.{form}.part" for name in chosen}
        with ExitStack() as stack:
            for part in parts.values():
                stack.callback(part.unlink, missing_ok=True)
            made = {name: FORMATS[form](parts[name], chosen[name]) for name in chosen}
            _write(job, store, made, change)
            for name, table in made.items():
                table.close()
                parts[name].replace(folder / f"{name}.{form}")
        job.summary = job.counts


def _key(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise click.UsageError(f"{path} can be read by others: chmod 600")
    key = path.read_bytes().strip()
    if len(key) < LEAST_KEY:
        raise click.UsageError(f"{path} holds {len(key)} bytes; a key has at least {LEAST_KEY}")
    return key


def _write(
    job: Job, store: object, made: dict[str, TableFile], change: Callable[[str, flat.Row], flat.Row] | None
) -> None:
    from service.store import events
    from service.store.engine import Store

    assert isinstance(store, Store)
    after = 0
    with advancing("writing", None) as step, store.read() as c:  # one transaction: one state of the ledger
        while page := events.search(c, TENANT, limit=1000, after_seq=after):
            for stored in page:
                for name, row in flat.rows(stored.event):
                    if name in made:
                        _add(job, made[name], name, change(name, row) if change else row)
            after = page[-1].seq
            job.line = after
            step(len(page))


def _add(job: Job, table: TableFile, name: str, row: flat.Row) -> None:
    try:
        table.add(row)
        job.count(name)
    except Unfit as error:
        issue = Issue(name, "unfit", str(error))
        click.echo(f"{row['source']}/{row['id']}: {issue.path}: {issue.rule}: {issue.message}", err=True)
        job.count("refused")
        job.item("refused", (issue,), source=row["source"], id=row["id"])
