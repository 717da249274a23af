"""`itb serve`: the web server (granian) and, in the same process, the runner that keeps the EHRs in step."""

from __future__ import annotations

import os
import signal
import socket
from datetime import UTC, datetime
from queue import SimpleQueue

import click
from flask import Flask
from granian import Granian
from granian.constants import Interfaces

from .app import create_app
from .mllp.listen import Listener
from .settings import Settings, from_environment
from .store.engine import Store, migrate
from .store.tables import DEFAULT_TENANT
from .sync.spread import EMBEDDED, PROCRASTINATE, prepare
from .sync.worker import Runner
from .verify import require_sound

KILL_S = 8
"""A request that still runs so long after SIGTERM is cut off: supervisors wait for ten seconds."""


def now() -> datetime:
    """The service's clock."""
    return datetime.now(UTC)


def wsgi() -> Flask:
    """The application as the web server's worker process builds it, from its environment.

    The runner lives in this process too: threads made before the web server forks would not outlive it.
    """
    settings = from_environment(os.environ)
    app = create_app(settings, clock=now)
    if settings.worker:
        Runner(app.extensions["itb"].store, now, delivers=settings.engine == EMBEDDED).start()
    if settings.mllp_listen:
        made = app.extensions["itb"]
        Listener(made.store, settings, DEFAULT_TENANT, now, made.log, made.metrics.registry).start()
    return app


def free_port(host: str) -> int:
    """A port of `host` that nothing listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal stops it; the database is migrated first."""
    store = Store(settings.database_url)
    migrate(store)
    require_sound(store)
    prepare(store, settings.engine)
    store.close()
    chosen = port or free_port(host)
    click.echo(f"itb-fhir serves http://{host}:{chosen}/docs", err=True)
    Granian(
        "service.server:wsgi",
        factory=True,
        interface=Interfaces.WSGI,
        address=host,
        port=chosen,
        workers=1,
        blocking_threads=4,
        log_access=False,
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_S,
    ).serve()


def run_worker(store: Store, engine: str) -> None:
    """Keep the EHRs in step until Ctrl-C or SIGTERM."""
    require_sound(store)
    prepare(store, engine)
    if engine == PROCRASTINATE:
        from .sync.engine import Spread

        Spread(store, now).run()
        store.close()
        return
    told: SimpleQueue[int] = SimpleQueue()  # an Event may not be set in a handler: it may wait for itself
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: told.put(number))
    runner = Runner(store, now)
    runner.start()
    told.get()
    runner.stop()
    store.close()
