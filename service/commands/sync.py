"""`itb sync`: brings EHRs in step once, as a job. Its checkpoint is the ledger itself."""

from __future__ import annotations

from typing import Any

import click

from service.opening import TENANT, now

from .exits import Stopped, Unreachable, status_of
from .job import DRY_RUN, REPORT, Job

SILENT = frozenset({"Unreachable", "Ambiguous", "Throttled", "Busy"})
"""Failures of an EHR that pass: it may answer the next time."""


@click.command()
@click.argument("endpoint", required=False)
@click.option("--accept-deletions", is_flag=True, help="so much was deleted in the EHR indeed (docs/sync.md)")
@click.option("--bulk", is_flag=True, help="first load ENDPOINT by its bulk export (docs/sync.md)")
@DRY_RUN
@REPORT
def sync(endpoint: str | None, accept_deletions: bool, bulk: bool, dry_run: bool, report: str | None) -> None:
    """Bring ENDPOINT (or all of them) in step once: read what changed there, deliver what is pending.

    With --dry-run, say how much is pending, and call nobody.
    """
    if bulk and (endpoint is None or dry_run):
        raise click.UsageError("--bulk is for one ENDPOINT, and not for --dry-run")
    from service.store import endpoints as store_endpoints
    from service.sync.worker import sync_once

    with Job("sync", report, dry_run=dry_run) as job:
        store = job.store()
        with store.read() as c:
            known = store_endpoints.every(c, TENANT)
        chosen = [e for e in known if endpoint in (None, e.name)]
        if not chosen:
            raise click.UsageError(
                f"there is no endpoint {endpoint}" if endpoint else "there is no endpoint yet"
            )
        if bulk:
            _load(job, store, chosen[0])
        silent = []
        for one in chosen:
            result = (
                _pending(job, store, one)
                if dry_run
                else sync_once(store, one, now, accept_deletions=accept_deletions)
            )
            if report is None:
                click.echo(f"{one.name}\t{result}")
            if not dry_run:
                silent += [one.name] if _settle(job, one.name, result) else []
        if silent and not status_of(job.counts):
            raise Unreachable(f"no answer from {', '.join(silent)}")


def _load(job: Job, store: Any, endpoint: Any) -> None:
    """The first load by bulk export; where there is none, the sync that follows reads page by page."""
    from service.bulk.source import SilentError, SourceError
    from service.sync import first_load
    from service.sync.ehr import EhrError
    from service.sync.worker import connect

    try:
        loaded = first_load.load(store, connect(endpoint, store, now), endpoint, now)
    except first_load.NotOffered as error:
        click.echo(f"{error}: it is read page by page", err=True)
        return
    except (SilentError, EhrError) as error:
        raise Unreachable(f"{endpoint.name}: {error}; the same command goes on with this export") from None
    except SourceError as error:
        raise Stopped(f"{endpoint.name}: {error}") from None
    for what, number in loaded.counts.items():
        job.count(f"read_{what}", number)
    for why in loaded.incomplete:
        job.item("refused", (), endpoint=endpoint.name, message=why)
        click.echo(f"{endpoint.name}: {why}; it is looked for page by page", err=True)


def _pending(job: Job, store: Any, endpoint: Any) -> str:
    from service.store import deliveries

    after, number = 0, 0
    with store.read() as c:
        while page := deliveries.search(
            c, TENANT, limit=1000, after_id=after, status="pending", endpoint_id=endpoint.id
        ):
            number, after = number + len(page), page[-1].id
    job.count("pending", number)
    return f"{number} to deliver, to be read from {endpoint.cursor or 'the beginning'}"


def _settle(job: Job, name: str, result: Any) -> bool:
    """Count what one round did; True where the EHR did not answer."""
    for what, number in result.pulled.items():
        job.count(f"read_{what}", number)
    for what, number in result.sent.items():
        job.count(what, number)
    if result.error is None:
        return False
    silent = result.error.partition(":")[0] in SILENT
    job.item("failed", (), endpoint=name, message=result.error)
    if not silent:
        job.count("failed")
    return silent
