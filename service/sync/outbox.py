"""One round of an endpoint's lanes: take what is due, bring it there, record what came of it.

The outcome is committed in one transaction that asks again whose the lanes are: a worker that was paused
past its lease finds a higher fence, and what it did is left for the next holder to read back.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import Connection

from mappings.exact_json import dumps
from service.chain import Damaged
from service.store import audit, deliveries, drift, gates, lanes, leases, links
from service.store.deliveries import Delivery, Outcome
from service.store.engine import Store
from service.store.faults import is_outage
from service.store.lanes import Lease
from service.store.times import stamp
from service.telemetry import make_log

from . import gate, messages
from .ehr import EhrError
from .gate import Gate
from .messages import Line
from .push import Route, deliver
from .retry import TABLE, Act, decide
from .send import Loss, Sent
from .shape import Doubled, Held, Unresolved

LEASE = timedelta(seconds=10)
"""How long the lanes of a worker that cannot be seen to be gone wait for it."""
PER_LANE = 20
log = make_log()


class Keeper:
    """Renews the leases of steps that take long, for as long as their process lives."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now
        self._condition = threading.Condition()
        self._owners: set[str] = set()
        self._runs = False

    @contextmanager
    def keep(self, owner: str) -> Iterator[None]:
        """Within the block, what `owner` holds does not end."""
        with self._condition:
            self._owners.add(owner)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._renew, name="itb-leases", daemon=True).start()
        try:
            yield
        finally:
            with self._condition:
                self._owners.discard(owner)

    def _renew(self) -> None:
        while True:
            with self._condition:
                self._condition.wait(LEASE.total_seconds() / 3)
                owners = frozenset(self._owners)
                if not owners:
                    self._runs = False
                    return
            try:
                self.renew(owners)
            except Exception:
                log.exception("leases could not be renewed")  # they end by themselves, and are fenced

    def renew(self, owners: frozenset[str]) -> None:
        """Hold what these owners hold for another lease."""
        with self._store.write() as c:
            lanes.renew(c, owners, until=self._now() + LEASE)
            leases.renew(c, owners, until=self._now() + LEASE)


Way = Route | Line
"""The way to an EHR's FHIR server, or to a receiver of HL7 v2."""


def step(route: Way, keeper: Keeper, owner: str, *, lane: str | None = None) -> Counter[str] | None:
    """What some deliveries of due lanes (or of one) came to, by status; None when there was none to take."""
    endpoint, now = route.endpoint, route.now()
    if not endpoint.enabled:
        return None
    limit = max(1, route.size // 2)
    with route.store.read() as c:
        shut = gate.ask(Gate(**gates.find(c, endpoint.id)), owner, 1, now)[1] is None
        due = 0 if shut else lanes.due(c, endpoint.id, now=now, most=limit * route.beside, lane=lane)
    if not due:
        return None
    share = -(-due // route.beside)  # rounded up: where lanes are few, each takes more of fewer
    with keeper.keep(owner):
        with route.store.write() as c:
            before = Gate(**gates.find(c, endpoint.id))
            asked, allowed = gate.ask(before, owner, limit, now)
            if allowed is None:
                return None
            limit = allowed.most
            until = now + LEASE
            lots = min(limit, share)
            taken = lanes.claim(c, endpoint.id, owner, now=now, until=until, limit=lots, lane=lane)
            if taken and asked != before:
                gates.save(c, endpoint.tenant_id, endpoint.id, asdict(asked))
            most = max(1, min(PER_LANE, limit // max(1, len(taken))))
            found = deliveries.waiting(c, taken, now=now, most=most)
        if not taken:
            return None
        counts: Counter[str] = Counter()

        def settle(some: Sequence[Sent]) -> set[str]:
            ours, statuses = _record(route, taken, some)
            counts.update(statuses)
            return ours

        sent = _delivered(route, found, settle)
        counts.update(_record(route, taken, sent, done_by=owner)[1])
        return counts


def _delivered(
    route: Way, found: Sequence[Delivery], settle: Callable[[Sequence[Sent]], set[str]]
) -> list[Sent]:
    if not found:
        return []
    try:
        if isinstance(route, Line):
            return messages.deliver(route, found, settle)
        return deliver(route, found, settle)
    except Exception as error:
        if is_outage(error):  # the lanes are free again when their leases end, and all is read back
            raise
        # A bug that cannot be laid at one delivery's door: the first is held for a person, the others go on.
        return [Sent(found[0], error=error)]


def _record(
    route: Way, taken: Sequence[Lease], sent: Sequence[Sent], done_by: str | None = None
) -> tuple[set[str], Counter[str]]:
    """Commit what the deliveries came to; the lanes that are still ours, and how many of each status.

    `done_by`: this owner is through, and gives its lanes back.
    """
    now = route.now()
    endpoint = route.endpoint
    with route.store.write() as c:
        ours = lanes.held(c, taken)
        counted = [one for one in sent if one.delivery.lane in ours]
        outcomes = [_outcome(one, now, random.random()) for one in counted]
        made = [replace(link, event_seq=one.delivery.event_seq) for one in counted for link in one.links]
        kept = [replace(link, event_seq=one.delivery.event_seq) for one in counted for link in one.kept]
        links.save_many(c, made, now=now)
        links.agree(c, kept)
        deliveries.record(c, outcomes, now=now)
        _heard(c, route, sent, now, done_by)
        audit.write_many(c, endpoint.tenant_id, [_audited(one, now) for one in outcomes if _tells(one)])
        for error in (one.error for one in counted if isinstance(one.error, Doubled)):
            drift.open_case(c, endpoint, "duplicate", error.type, error.key, error.remote_ids, now=now)
        if done_by is None:
            lanes.refresh(c, endpoint.id, ours)
        else:
            lanes.release(c, endpoint.id, ours, done_by)
    return ours, Counter(one.status for one in outcomes)


def _heard(c: Connection, route: Way, sent: Sequence[Sent], now: datetime, done_by: str | None) -> None:
    """Tell the endpoint's gate what was heard of the server: one failure for all that went together."""
    before = Gate(**gates.find(c, route.endpoint.id))
    after = before
    told = next((one for one in sent if isinstance(one.error, EhrError)), None)
    failure = type(told.error).__name__ if told is not None else ""
    if told is not None and isinstance(told.error, EhrError) and TABLE[failure].endpoint:
        asked = told.error.retry_after_s
        after = gate.failed(before, failure, told.delivery.lane, now, random.random(), asked)
    elif any(one.answered or one.status is not None or isinstance(one.error, EhrError) for one in sent):
        after = gate.answered(before, max(1, route.size // 2))
    elif done_by is not None and before.probe == done_by:
        after = replace(before, probe=None, until=now)  # nothing had to be sent: another one may ask
    if after != before:
        gates.save(c, route.endpoint.tenant_id, route.endpoint.id, asdict(after))


def _outcome(sent: Sent, now: datetime, chance: float) -> Outcome:
    was, error = sent.delivery, sent.error
    if sent.again:
        return Outcome(was, "pending", sent.note, next_try_at=stamp(now), is_try=False)
    if isinstance(error, Held):
        return Outcome(was, "parked", str(error), conflict_id=error.conflict_id)
    if error is None:
        loss = _written(sent.loss) if sent.loss is not None else None
        return Outcome(was, "sent", sent.note or None, last_status=sent.status, rung=sent.rung, loss=loss)
    if isinstance(error, EhrError):
        failure, reason, status = type(error).__name__, f"{type(error).__name__}: {error}", error.status
        asked = error.retry_after_s
    elif isinstance(error, (Unresolved, Damaged)):
        failure = "Unresolved" if isinstance(error, Unresolved) else type(error).__name__
        reason, status, asked = str(error), None, None
    else:
        log.error("delivery failed", delivery=was.id, exc_info=error)
        failure, reason, status, asked = "Bug", f"internal error: {type(error).__name__}", None, None
    repeats = was.repeats if was.failure == failure else 0
    decision = decide(failure, was.attempts, repeats, chance, asked)
    if decision.act is Act.RETRY:
        return Outcome(was, "pending", reason, failure, status, stamp(now + decision.delay))
    held = "parked" if decision.act is Act.PARK else "failed"
    return Outcome(was, held, reason, failure, status)


@lru_cache(maxsize=1024)  # mostly the same: nothing
def _written(loss: Loss) -> str:
    return dumps(asdict(loss)).decode()


def _tells(outcome: Outcome) -> bool:
    """A try that is followed by another is on the delivery; what ends it is audited."""
    return outcome.status != "pending"


def _audited(outcome: Outcome, now: datetime) -> dict[str, str]:
    return {
        "at": stamp(now),
        "actor": "sync",
        "action": outcome.status,
        "subject": f"delivery/{outcome.delivery.id}",
        "detail": outcome.reason or "",
    }
