"""Ask an EHR's server what it can do, and remember it: when it is first used, then daily."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import Connection

from mappings.exact_json import dumps, loads
from service.store import audit, capabilities
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.times import stamp

from . import capability
from .capability import Matrix
from .ehr import Ambiguous, Ehr

Clock = Callable[[], datetime]
KEPT = timedelta(days=1)
"""How long a reading counts as fresh."""


def known(store: Store, endpoint: Endpoint) -> Matrix | None:
    """The matrix as last read, with the endpoint's options; None when it was never read."""
    with store.read() as c:
        found = capabilities.find(c, endpoint.id)
    if found is None:
        return None
    return capability.with_options(_loaded(found.matrix), endpoint.options)


@lru_cache(64)
def _loaded(text: str) -> Matrix:
    """The matrix of a kept reading: every step of the deliveries asks for it."""
    return capability.load(loads(text))


def matrix_of(store: Store, ehr: Ehr, endpoint: Endpoint, now: Clock) -> Matrix:
    """`known`, read now when it never was; raises `EhrError`."""
    return known(store, endpoint) or refresh(store, ehr, endpoint, now)


def is_due(store: Store, endpoint: Endpoint, now: Clock) -> bool:
    """Whether the reading is missing or a day old."""
    with store.read() as c:
        found = capabilities.find(c, endpoint.id)
    return found is None or found.read_at <= stamp(now() - KEPT)


def refresh(store: Store, ehr: Ehr, endpoint: Endpoint, now: Clock) -> Matrix:
    """Read /metadata and keep it; what changed since the last reading is written to the audit.

    Raises `EhrError`: what was known before is then still known.
    """
    try:
        matrix = capability.read(ehr.metadata())
    except ValueError as error:
        raise Ambiguous(f"metadata {error}") from None
    with store.write() as c:
        before = capabilities.find(c, endpoint.id)
        said = capability.dump(matrix)
        if before is not None and loads(before.matrix) != said:
            _audit_change(
                c, endpoint, capability.difference(capability.load(loads(before.matrix)), matrix), now
            )
        capabilities.save(c, endpoint.tenant_id, endpoint.id, dumps(said).decode(), now=now())
    return capability.with_options(matrix, endpoint.options)


def _audit_change(c: Connection, endpoint: Endpoint, changes: list[str], now: Clock) -> None:
    audit.write(
        c,
        endpoint.tenant_id,
        at=stamp(now()),
        actor=endpoint.name,
        action="capability",
        subject=f"endpoint/{endpoint.name}",
        detail="; ".join(changes),
    )
