"""/healthz, /readyz and /metrics: is the process alive, can it work, what did it do. No key needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from .store import deliveries, drift, endpoints, gates, messages
from .store.engine import is_migrated, sqlite_file
from .sync.gate import Gate
from .web import Services, answer, services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Everything that accepting an event needs: 200, or 503 naming what is missing."""
    made = services()
    found = {name: check(made) for name, check in CHECKS.items()}
    ready = all(words == "ok" for words in found.values())
    return answer({"status": "ok" if ready else "unavailable", "checks": found}, 200 if ready else 503)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus text."""
    made = services()
    with made.store.read() as c:
        counted = deliveries.counts(c)
        held, drifted = messages.held(c), drift.newest_counts(c)
        known = {endpoint.id: endpoint.name for endpoint in endpoints.every(c)}
        shut = {known[id]: Gate(**fields).until is not None for id, fields in gates.every(c).items()}
    return Response(made.metrics.render(counted, held, shut, drifted), content_type=CONTENT_TYPE_LATEST)


def _database(made: Services) -> str:
    try:
        with made.store.read() as c:
            return "ok" if is_migrated(c) else "its tables are not those of this version"
    except SQLAlchemyError as error:
        return f"cannot be read ({type(error).__name__})"


def _disk(made: Services) -> str:
    file = sqlite_file(made.store.engine)
    if file is None:
        return "ok"
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return "the database file cannot be written"
    free = shutil.disk_usage(file.parent).free
    if free < made.settings.min_free_bytes:
        return f"{free} bytes are free, {made.settings.min_free_bytes} are needed"
    return "ok"


CHECKS: dict[str, Callable[[Services], str]] = {"database": _database, "disk": _disk}
