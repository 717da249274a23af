"""Spreads the lanes over any number of workers on any number of machines, by Procrastinate on PostgreSQL.

A job has its lane as its lock, so Procrastinate gives a lane to one worker at a time; the lane's own lease
and fence (store/lanes) hold even where it does not. What is no delivery (reading, asking what a server can
do) is the embedded runner's, one worker at a time by its leases.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import procrastinate
from procrastinate.exceptions import ConnectorException

from service.store import endpoints, jobs
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.telemetry import make_log

from .outbox import Keeper, step
from .patient_cache import Patients, patients_of
from .turns import Turns
from .worker import Link, Links, Runner, link_to, step_name, way_by

CONCURRENCY = 4
SWEEP_S = 2.0
AGAIN_S = 1.0
MANY = 1000
"""After so many new jobs at once PostgreSQL must be told to count anew, or finding one reads them all."""
log = make_log()


class Spread:
    """One worker process of many: `run` ends with SIGINT or SIGTERM."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now
        self._keeper = Keeper(store, now)
        self._patients: dict[int, Patients] = {}
        self._turns: dict[int, Turns] = {}
        self._local = threading.local()
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until a signal; the deliveries of a lane in order, several lanes beside each other."""
        # It names a job by its arguments in its log, and a lane may be named by a patient.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
        runner = Runner(self._store, self._now, delivers=False)
        runner.start()
        sweeper = threading.Thread(target=self._sweep, name="itb-sweep", daemon=True)
        sweeper.start()
        try:
            asyncio.run(self._served())
        finally:
            self._stop.set()
            runner.stop()
            sweeper.join(10)

    async def _served(self) -> None:
        """Serve until a signal, and begin again where the database ended that.

        The signals are not Procrastinate's to catch: its worker, told to end, fails where the database
        refuses its leave, and the signal would be forgotten.
        """
        told = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, told.set)
        telling = asyncio.create_task(told.wait())
        while not told.is_set():
            try:
                await self._serve(telling)
            except ConnectorException as error:
                # Its text may name a lane, and so a patient.
                log.warning("the queue failed", error=type(error.__cause__ or error).__name__)
            await asyncio.wait((telling,), timeout=AGAIN_S)

    async def _serve(self, telling: asyncio.Task[Any]) -> None:
        """Until `telling` is done. Only the work is cancelled: a pool cancelled as it opens never ends."""
        url = self._store.engine.url.set(drivername="postgresql")
        app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=url.render_as_string(hide_password=False))
        )
        app.task(name=jobs.TASK)(self._lane)
        async with app.open_async():
            working = asyncio.create_task(
                app.run_worker_async(
                    queues=[jobs.QUEUE],
                    concurrency=CONCURRENCY,
                    fetch_job_polling_interval=1.0,
                    delete_jobs="always",
                    shutdown_graceful_timeout=10.0,
                    install_signal_handlers=False,
                )
            )
            await asyncio.wait((working, telling), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                self._stop.set()  # a lane is left after its step
                working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    def _lane(self, endpoint_id: int, lane: str) -> None:
        """One job: all that is due in the lane."""
        try:
            with self._store.read() as c:
                endpoint = endpoints.by_id(c, endpoint_id)
            if endpoint is None:
                return
            patients = patients_of(endpoint, self._patients, self._now)
            route = way_by(self._links().to(endpoint), self._store, endpoint, patients, self._now)
            while not self._stop.is_set() and step(route, self._keeper, step_name(), lane=lane) is not None:
                pass
        except Exception:
            log.exception("job failed", endpoint=endpoint_id)  # the sweep makes another

    def _links(self) -> Links[Link]:
        """The connections of this thread: none is two threads' at once."""
        made: Links[Link] | None = getattr(self._local, "links", None)
        if made is None:
            made = self._local.links = Links(self._link_to)
        return made

    def _link_to(self, endpoint: Endpoint) -> Link:
        parallel = endpoint.options["parallel"]
        turns = self._turns.setdefault(endpoint.id, Turns(parallel))
        turns.allow(parallel)
        return link_to(endpoint, self._store, self._now, turns)

    def _sweep(self) -> None:
        while not self._stop.is_set():
            try:
                with self._store.write() as c:
                    made = jobs.sweep(c, now=self._now())
                if made >= MANY:
                    self._store.vacuum("procrastinate_jobs")
            except Exception:
                log.exception("sweep failed")
            self._stop.wait(SWEEP_S)
