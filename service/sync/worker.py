"""Runs the lanes and the polls: once for `itb sync`, or until stopped beside the web server."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from service.mllp.client import TIMEOUT_S, MllpClient, Tls
from service.store import endpoints, gates, lanes, leases
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.telemetry import make_log

from .ehr import NO_TURNS, EhrError, HttpEhr
from .gate import Gate, call
from .messages import Line
from .outbox import LEASE, Keeper, Way, step
from .owner import is_gone, process_name
from .patient_cache import Patients, patients_of
from .pull import NOT_BELIEVED, pull, read_waiting
from .push import Route
from .turns import Turns
from .upkeep import tend

Clock = Callable[[], datetime]
IDLE_S = 0.5
"""How often a worker looks for what another process has accepted; what its own accepts rings a bell."""
THOROUGH_S = 60.0
"""How often to ask what was deleted, and to read patient by patient where a server cannot search by time."""
TEND_S = 30.0
"""How often a step of the upkeep is taken: a server asked what it can do, a batch of records compared."""
AHEAD = 1
"""Threads beyond an endpoint's `parallel` calls: who has no turn maps what goes next."""
_STEPS = itertools.count()
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


def connect(
    endpoint: Endpoint,
    store: Store | None = None,
    now: Clock | None = None,
    turns: AbstractContextManager[object] = NO_TURNS,
) -> HttpEhr:
    """The EHR of an endpoint; with a store, at the pace that all its workers keep together."""
    headers = endpoint.options.get("headers") or {}
    return HttpEhr(endpoint.url, headers=headers, wait=_pace(endpoint, store, now), turns=turns)


def dial(endpoint: Endpoint, store: Store | None = None, now: Clock | None = None) -> MllpClient:
    """The connection to a receiver of HL7 v2, not yet opened; at a pace as `connect`."""
    url, options = urlsplit(endpoint.url), endpoint.options
    files = (options.get(name, "") for name in ("ca_file", "cert_file", "key_file"))
    return MllpClient(
        url.hostname or "",
        url.port or 0,
        tls=Tls(*files) if url.scheme == "mllps" else None,
        timeout_s=float(options.get("answer_seconds", TIMEOUT_S)),
        wait=_pace(endpoint, store, now),
    )


def _pace(endpoint: Endpoint, store: Store | None, now: Clock | None) -> Callable[[], None]:
    """Waits until the endpoint may be called again; not at all where there is no pace."""
    pace = endpoint.options["requests_per_second"]
    if store is None or now is None or not pace:
        return lambda: None

    def wait() -> None:
        with store.write() as c:
            after, seconds = call(Gate(**gates.find(c, endpoint.id)), pace, now())
            gates.save(c, endpoint.tenant_id, endpoint.id, asdict(after))
        time.sleep(seconds)

    return wait


Link = HttpEhr | MllpClient
"""A thread's own connection to an endpoint."""


def link_to(
    endpoint: Endpoint, store: Store, now: Clock, turns: AbstractContextManager[object] = NO_TURNS
) -> Link:
    """The connection that an endpoint's URL asks for; `turns` of `HttpEhr`."""
    return dial(endpoint, store, now) if endpoint.is_hl7v2 else connect(endpoint, store, now, turns)


AnyLink = TypeVar("AnyLink", bound=HttpEhr | MllpClient)


class Links(Generic[AnyLink]):
    """The connections of one thread: each is made when it is first needed, and anew once its endpoint was
    given another URL or other options."""

    def __init__(self, make: Callable[[Endpoint], AnyLink]) -> None:
        self._make = make
        self._known: dict[int, tuple[Endpoint, AnyLink]] = {}

    def to(self, endpoint: Endpoint) -> AnyLink:
        """The connection to this endpoint as it is now."""
        was, link = self._known.get(endpoint.id, (None, None))
        if was is None or link is None or not endpoint.is_as(was):
            if isinstance(link, MllpClient):
                link.close()
            link = self._make(endpoint)
            self._known[endpoint.id] = (endpoint, link)
        return link


def way_by(
    link: Any, store: Store, endpoint: Endpoint, patients: Patients, now: Clock, beside: int = 1
) -> Way:
    """The way to an endpoint over this connection, that so many go `beside` each other."""
    if isinstance(link, MllpClient):
        return Line(store, link, endpoint, now, beside)
    return Route(store, link, endpoint, patients, now, beside)


def sync_once(store: Store, endpoint: Endpoint, now: Clock, *, accept_deletions: bool = False) -> Result:
    """Read what changed, deliver all that is due, and read again so that our own writes are known as such."""
    pulled: dict[str, int] = {}
    sent: dict[str, int] = {}
    if endpoint.is_hl7v2:
        line = dial(endpoint, store, now)
        while step := push_due(store, endpoint, line, now):
            _add(sent, step)
        line.close()
        return Result(pulled, sent)
    ehr = connect(endpoint, store, now)
    try:
        _add(pulled, pull(store, ehr, endpoint, now, accept_deletions=accept_deletions).counts)
        patients = Patients(endpoint, now)
        while step := push_due(store, endpoint, ehr, now, patients):
            _add(sent, step)
        _add(pulled, pull(store, ehr, _fresh(store, endpoint), now, thorough=False).counts)
    except EhrError as error:
        return Result(pulled, sent, f"{type(error).__name__}: {error}")
    if (number := pulled.get(NOT_BELIEVED, 0)) > 0:
        return Result(pulled, sent, f"Emptied: {number} resources at once are said to be deleted there")
    return Result(pulled, sent)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        total[name] = total.get(name, 0) + number


def _fresh(store: Store, endpoint: Endpoint) -> Endpoint:
    with store.read() as c:
        found = endpoints.by_id(c, endpoint.id)
    return found or endpoint


def push_due(
    store: Store, endpoint: Endpoint, ehr: Any, now: Clock, patients: Patients | None = None
) -> dict[str, int]:
    """One step over due lanes of the endpoint by this connection; empty when there was none to take.

    `patients`: those that the steps before have found.
    """
    route = way_by(ehr, store, endpoint, patients or Patients(endpoint, now), now)
    return dict(step(route, Keeper(store, now), step_name()) or {})


def side_by_side(endpoint: Endpoint) -> int:
    """How many threads deliver to it; a receiver of HL7 v2 gets one message after the other from each."""
    parallel: int = endpoint.options["parallel"]
    return parallel if endpoint.is_hl7v2 else parallel + AHEAD


def step_name() -> str:
    """An owner of leases: this process, and a number of its own."""
    return f"{process_name()}/{next(_STEPS)}"


def free_the_gone(store: Store, now: Clock) -> None:
    """End the leases of processes of this host that were killed."""
    with store.read() as c:
        owners = {*lanes.owners(c, now=now()), *leases.holders(c, now=now())}
    gone = [owner for owner in owners if is_gone(owner)]
    if gone:
        with store.write() as c:
            for owner in gone:
                lanes.end(c, owner)
                leases.end(c, owner, now=now())


class Runner:
    """For each endpoint threads that deliver, one that polls, one that keeps up with the server (`upkeep`).

    One more looks for new endpoints, and for leases of processes that were killed.
    """

    def __init__(self, store: Store, now: Clock, *, delivers: bool = True) -> None:
        self._store, self._now, self._delivers = store, now, delivers
        self._stop = threading.Event()
        self._keeper = Keeper(store, now)
        self._threads: dict[tuple[int, str], threading.Thread] = {}
        self._patients: dict[int, Patients] = {}
        self._turns: dict[int, Turns] = {}
        self._watcher = threading.Thread(target=self._watch, name="itb-watch", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._watcher.start()

    def stop(self) -> None:
        """Let every thread end its step, then return."""
        self._stop.set()
        self._watcher.join(10)  # first: it begins the others
        self._store.bell.ring(list(self._patients))
        for thread in list(self._threads.values()):
            thread.join(10)

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                free_the_gone(self._store, self._now)
                with self._store.read() as c:
                    known = endpoints.every(c)
                for endpoint in known:
                    patients_of(endpoint, self._patients, self._now)
                    parallel = endpoint.options["parallel"]
                    self._turns.setdefault(endpoint.id, Turns(parallel)).allow(parallel)
                    for number in range(side_by_side(endpoint) if self._delivers else 0):
                        self._begin(endpoint.id, f"push-{number}", self._push)
                    if endpoint.is_hl7v2:
                        continue  # nothing can be asked there
                    self._begin(endpoint.id, "pull", self._pull)
                    self._begin(endpoint.id, "upkeep", self._tend)
            except Exception:
                log.exception("watch failed")
            self._stop.wait(1)

    def _begin(self, id: int, name: str, work: Callable[[int], None]) -> None:
        if (id, name) not in self._threads:
            thread = threading.Thread(target=work, args=(id,), name=f"itb-{name}", daemon=True)
            thread.start()
            self._threads[id, name] = thread

    def _endpoint(self, id: int) -> Endpoint | None:
        with self._store.read() as c:
            found = endpoints.by_id(c, id)
        return found if found is not None and found.enabled else None

    def _has_changed(self, endpoint: Endpoint) -> bool:
        """Whether it was paused, or given another URL or other options, since it was read."""
        try:
            found = self._endpoint(endpoint.id)
        except Exception:  # no database to ask: the next round says so
            return False
        return found is None or not found.is_as(endpoint)

    def _tend(self, id: int) -> None:
        ehrs = Links(lambda endpoint: connect(endpoint, self._store, self._now))
        while not self._stop.is_set():
            try:
                endpoint = self._endpoint(id)
                if endpoint is not None:
                    ehr = ehrs.to(endpoint)
                    self._alone("upkeep", endpoint, partial(tend, self._store, ehr, endpoint, self._now))
            except EhrError as error:
                log.warning("upkeep failed", endpoint=id, error=type(error).__name__)
            except Exception:
                log.exception("upkeep failed", endpoint=id)
            self._stop.wait(TEND_S)

    def _push(self, id: int) -> None:
        links = Links(lambda endpoint: link_to(endpoint, self._store, self._now, self._turns[id]))
        while not self._stop.is_set():
            heard = self._store.bell.count(id)
            try:
                endpoint = self._endpoint(id)
                if endpoint is not None:
                    patients, beside = self._patients[id], side_by_side(endpoint)
                    route = way_by(links.to(endpoint), self._store, endpoint, patients, self._now, beside)
                    if step(route, self._keeper, step_name()) is not None:
                        continue
            except Exception:
                log.exception("push failed")
            self._store.bell.wait(id, heard, IDLE_S)

    def _pull(self, id: int) -> None:
        ehrs = Links(lambda endpoint: connect(endpoint, self._store, self._now))
        thorough_at = 0.0
        while not self._stop.is_set():
            endpoint: Endpoint | None = None
            try:
                endpoint = self._endpoint(id)
                if endpoint is not None:
                    ehr = ehrs.to(endpoint)
                    thorough = time.monotonic() >= thorough_at
                    poll = partial(pull, self._store, ehr, endpoint, self._now, thorough=thorough)
                    self._alone("pull", endpoint, poll)
                    thorough_at = time.monotonic() + THOROUGH_S if thorough else thorough_at
            except EhrError as error:
                log.warning("pull failed", endpoint=id, error=type(error).__name__)
            except Exception:
                log.exception("pull failed", endpoint=id)
            if endpoint is None:
                self._stop.wait(1)
                continue
            until = time.monotonic() + endpoint.options.get("poll_seconds", 5)
            while time.monotonic() < until and not self._stop.wait(IDLE_S):
                if self._has_changed(endpoint) or not self._read_hinted(endpoint, ehrs.to(endpoint)):
                    break

    def _read_hinted(self, endpoint: Endpoint, ehr: HttpEhr) -> bool:
        """Read what the EHR has named; False when only a poll finds out what changed."""
        try:
            return read_waiting(self._store, ehr, endpoint, self._now)
        except EhrError as error:
            log.warning("pull failed", endpoint=endpoint.name, error=type(error).__name__)
        except Exception:
            log.exception("pull failed", endpoint=endpoint.name)
        return True  # the next poll finds it

    def _alone(self, what: str, endpoint: Endpoint, work: Callable[[], object]) -> None:
        """Do it, unless another worker does."""
        name, owner = f"{what}/{endpoint.id}", step_name()
        with self._keeper.keep(owner):
            at = self._now()
            with self._store.write() as c:
                fence = leases.acquire(c, endpoint.tenant_id, name, owner, now=at, until=at + LEASE)
            if fence is None:
                return
            try:
                work()
            finally:
                with self._store.write() as c:
                    leases.release(c, endpoint.tenant_id, name, fence, now=self._now())
