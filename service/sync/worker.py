"""Runs the lanes and the polls: once for `itb sync`, or until stopped beside the web server."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from service.store import deliveries, endpoints, leases
from service.store.deliveries import Lane
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.telemetry import make_log

from .ehr import EhrError, HttpEhr
from .pull import pull
from .push import deliver
from .upkeep import tend

Clock = Callable[[], datetime]
LEASE = timedelta(seconds=10)
"""How long a lane waits for a killed worker. A slow one may lose it sooner: every write is conditional."""
IDLE_S = 0.2
TEND_S = 30.0
"""How often a step of the upkeep is taken: a server asked what it can do, a batch of records compared."""
log = make_log()


@dataclass(frozen=True, slots=True)
class Result:
    """What one round did; `ok` is False when the EHR failed or something is held."""

    pulled: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and not self.sent.keys() & {"failed", "parked"}

    def __str__(self) -> str:
        words = [f"read {n} {what}" for what, n in sorted(self.pulled.items())]
        words += [f"delivered {n} {what}" for what, n in sorted(self.sent.items())]
        return ", ".join([*words, *([self.error] if self.error else [])]) or "nothing to do"


def connect(endpoint: Endpoint) -> HttpEhr:
    """The EHR of an endpoint."""
    return HttpEhr(endpoint.url, headers=endpoint.options.get("headers") or {})


def sync_once(store: Store, endpoint: Endpoint, now: Clock) -> Result:
    """Read what changed, deliver all that is due, and read again so that our own writes are known as such."""
    ehr = connect(endpoint)
    pulled: dict[str, int] = {}
    sent: dict[str, int] = {}
    try:
        _add(pulled, pull(store, ehr, endpoint, now).counts)
        while step := push_due(store, endpoint, ehr, now):
            _add(sent, step)
        _add(pulled, pull(store, ehr, _fresh(store, endpoint), now).counts)
    except EhrError as error:
        return Result(pulled, sent, f"{type(error).__name__}: {error}")
    return Result(pulled, sent)


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, number in more.items():
        total[name] = total.get(name, 0) + number


def _fresh(store: Store, endpoint: Endpoint) -> Endpoint:
    with store.read() as c:
        found = endpoints.by_id(c, endpoint.id)
    return found or endpoint


def push_due(store: Store, endpoint: Endpoint, ehr: HttpEhr, now: Clock) -> dict[str, int]:
    """One step of every due lane of the endpoint; empty when there was none to take."""
    with store.read() as c:
        lanes = [lane for lane in deliveries.due_lanes(c, now=now()) if lane.endpoint_id == endpoint.id]
    outcome: dict[str, int] = {}
    for lane in lanes:
        status = step(store, endpoint, ehr, lane, now)
        if status is not None:
            _add(outcome, {status: 1})
    return outcome


OWNER = f"{socket.gethostname()}.{random.getrandbits(32):08x}"


def step(store: Store, endpoint: Endpoint, ehr: Any, lane: Lane, now: Clock) -> str | None:
    """The head of a lane under the lane's lease; None when another process has it."""
    name = f"{lane.endpoint_id}/{lane.lane}"
    at = now()
    owner = f"{OWNER}.{threading.get_ident()}"
    with store.write() as c:
        fence = leases.acquire(c, endpoint.tenant_id, name, owner, now=at, until=at + LEASE)
        head = deliveries.head(c, lane) if fence is not None else None
    if fence is None or head is None or head.status != "pending":
        return None
    try:
        return deliver(store, ehr, endpoint, head, now, random.random())
    except Exception as error:
        # A bug in what this one event needs: it is held for a person, its neighbours go on.
        log.exception("delivery failed", delivery=head.id)
        with store.write() as c:
            reason = f"internal error: {type(error).__name__}"
            deliveries.set_held(
                c, head.id, now=now(), status="parked", failure="Bug", last_status=None, reason=reason
            )
        return "parked"
    finally:
        with store.write() as c:
            leases.release(c, endpoint.tenant_id, name, fence, now=now())


class Runner:
    """Three threads for each endpoint: one delivers, one polls, one keeps up with the server (`upkeep`); one
    more looks for new endpoints."""

    def __init__(self, store: Store, now: Clock) -> None:
        self._store, self._now = store, now
        self._stop = threading.Event()
        self._threads: dict[tuple[int, str], threading.Thread] = {}

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._watch, name="itb-watch", daemon=True).start()

    def stop(self) -> None:
        """Let every thread end its step, then return."""
        self._stop.set()
        for thread in list(self._threads.values()):
            thread.join(10)

    def _watch(self) -> None:
        while not self._stop.is_set():
            with self._store.read() as c:
                known = endpoints.every(c)
            for endpoint in known:
                for work in (self._push, self._pull, self._tend):
                    key = (endpoint.id, work.__name__)
                    if key not in self._threads:
                        thread = threading.Thread(target=work, args=(endpoint.id,), daemon=True)
                        self._threads[key] = thread
                        thread.start()
            self._stop.wait(1)

    def _endpoint(self, id: int) -> Endpoint | None:
        with self._store.read() as c:
            found = endpoints.by_id(c, id)
        return found if found is not None and found.enabled else None

    def _tend(self, id: int) -> None:
        ehr: HttpEhr | None = None
        while not self._stop.is_set():
            endpoint = self._endpoint(id)
            if endpoint is not None:
                ehr = ehr or connect(endpoint)
                try:
                    tend(self._store, ehr, endpoint, self._now)
                except EhrError as error:
                    log.warning("upkeep failed", endpoint=endpoint.name, error=type(error).__name__)
                except Exception:
                    log.exception("upkeep failed", endpoint=endpoint.name)
            self._stop.wait(TEND_S)

    def _push(self, id: int) -> None:
        ehr: HttpEhr | None = None
        while not self._stop.is_set():
            endpoint = self._endpoint(id)
            if endpoint is not None:
                ehr = ehr or connect(endpoint)
                if push_due(self._store, endpoint, ehr, self._now):
                    continue
            self._stop.wait(IDLE_S)

    def _pull(self, id: int) -> None:
        ehr: HttpEhr | None = None
        while not self._stop.is_set():
            endpoint = self._endpoint(id)
            if endpoint is not None:
                ehr = ehr or connect(endpoint)
                try:
                    pull(self._store, ehr, endpoint, self._now)
                except EhrError as error:
                    log.warning("pull failed", endpoint=endpoint.name, error=type(error).__name__)
                except Exception:
                    log.exception("pull failed", endpoint=endpoint.name)
            self._stop.wait(endpoint.options.get("poll_seconds", 5) if endpoint else 1)
