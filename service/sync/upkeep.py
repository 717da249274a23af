"""What an endpoint needs beside pushing and pulling: server asked, Subscriptions kept, records compared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from service.store import drift
from service.store.drift import Run
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.times import stamp

from . import listening, survey
from .ehr import HttpEhr
from .reconcile import Comparison, finish

Clock = Callable[[], datetime]
HOURS = 24
"""How often an EHR is compared with the ledger where its options do not say."""
BY = "schedule"


def tend(store: Store, ehr: HttpEhr, endpoint: Endpoint, now: Clock) -> None:
    """One step of what is due: ask the server, look at Subscriptions, compare one batch of records.

    Raises `EhrError`.
    """
    if survey.is_due(store, endpoint, now):
        survey.refresh(store, ehr, endpoint, now)
    listening.listen(store, ehr, endpoint, now)
    run = _due(store, endpoint, now)
    if run is None:
        return
    matrix = survey.matrix_of(store, ehr, endpoint, now)
    fix = bool(endpoint.options.get("reconcile_fix"))
    comparison = Comparison(store, ehr, endpoint, matrix, now, fix)
    for _ in comparison.batches(run, lambda number: None):
        return
    finish(comparison, run)


def _due(store: Store, endpoint: Endpoint, now: Clock) -> Run | None:
    """The comparison to go on with; a new one when the last one is long over."""
    hours = int(endpoint.options.get("reconcile_hours", HOURS))
    if not hours:
        return None
    with store.write() as c:
        going = drift.latest(c, endpoint.id, finished=False, begun_by=BY)
        if going is not None:
            return going
        last = drift.latest(c, endpoint.id, finished=True)
        if last is not None and last.finished_at and last.finished_at > stamp(now() - timedelta(hours=hours)):
            return None
        return drift.begin(c, endpoint, BY, now=now())
