"""`itb doctor`: is everything there that the service needs?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import ArgumentError, DatabaseError

from .settings import Settings
from .store import deliveries, endpoints, hints, keys
from .store.engine import Store, StoreError, is_migrated, migrate
from .store.faults import fault_of
from .store.hints import Subscription
from .sync.ehr import EhrError, Unreachable
from .sync.listening import problem
from .sync.worker import connect, dial
from .verify import findings

FHIR_VERSION = "4.0.1"
UNUSABLE = (StoreError, DatabaseError, ArgumentError, ModuleNotFoundError)
"""What opening a database fails with."""


def why(error: Exception) -> str:
    """One line about a database that cannot be opened."""
    if isinstance(error, DatabaseError):
        fault = fault_of(error)
        said = str(error.orig).partition("\n")[0]
        return f"{fault.message} ({said})" if fault else f"the database cannot be opened: {said}"
    if isinstance(error, ModuleNotFoundError):
        return f"the database's driver {error.name} is not installed"
    return str(error)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    what: str
    ok: bool
    found: str


def checks(settings: Settings, now: Callable[[], datetime], tenant_id: int = 1) -> Iterator[Check]:
    """Every check, in the order in which one would mend things."""
    try:
        store = Store(settings.database_url)
        migrate(store)
    except UNUSABLE as error:
        yield Check("database", False, why(error))
        return
    with store.read() as c:
        yield Check("database", is_migrated(c), "reachable, durable, at the newest schema")
        live = [row for row in keys.every(c, tenant_id) if row.revoked_at is None]
        known = endpoints.every(c, tenant_id)
        held = deliveries.counts(c)
    broken = [found.what for found in findings(store) if not found.ok]
    yield Check("ledger", not broken, f"{broken[0]} (itb verify)" if broken else "every row verifies")
    needed = settings.require_key
    yield Check("keys", bool(live) or not needed, f"{len(live)} live" if live else "none: itb keys add NAME")
    yield Check("endpoints", bool(known), f"{len(known)}" if known else "none: itb endpoints add NAME URL")
    waiting = {status: held.get(status, 0) for status in ("pending", "failed", "parked")}
    stuck = waiting["failed"] + waiting["parked"]
    yield Check("deliveries", not stuck, ", ".join(f"{n} {status}" for status, n in waiting.items()))
    for endpoint in known:
        yield _check_receiver(endpoint) if endpoint.is_hl7v2 else _check_ehr(endpoint)
        with store.read() as c:
            subscribed = hints.subscribed(c, endpoint.id)
        if subscribed:
            yield _check_subscriptions(endpoint, subscribed)


def _check_ehr(endpoint: endpoints.Endpoint) -> Check:
    what = f"EHR {endpoint.name}"
    try:
        found = connect(endpoint).metadata()
    except EhrError as error:
        return Check(what, False, f"{endpoint.url}: {type(error).__name__}")
    version = found.get("fhirVersion")
    software = found.get("software", {}).get("name", "unnamed")
    return Check(what, version == FHIR_VERSION, f"{endpoint.url}: {software}, FHIR {version}")


def _check_subscriptions(endpoint: endpoints.Endpoint, known: list[Subscription]) -> Check:
    problems = [why for one in known if (why := problem(one)) is not None]
    heard = max((one.heard_at for one in known if one.heard_at), default=None)
    said = f"{len(known)}, last notification with a number {heard or 'never'}"
    return Check(f"Subscriptions of {endpoint.name}", not problems, "; ".join(problems) or said)


def _check_receiver(endpoint: endpoints.Endpoint) -> Check:
    what = f"HL7 v2 receiver {endpoint.name}"
    line = dial(endpoint)
    try:
        line.connect()
    except Unreachable as error:
        return Check(what, False, f"{endpoint.url}: {error}")
    line.close()
    return Check(what, True, f"{endpoint.url}: takes connections")
