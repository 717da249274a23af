"""Bugs that are put into the service on purpose: a run with one of them must be seen to go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from mappings.exact_json import loads


def marked_before_sent() -> None:
    """A delivery is done before it is sent, whatever comes of that: a fault or a kill loses it."""
    from service.store import audit, deliveries
    from service.store.deliveries import Outcome
    from service.sync import outbox

    right = outbox.deliver

    def wrong(route: Any, found: Any, settle: Any) -> Any:
        def mark() -> None:
            done = [Outcome(delivery, "sent") for delivery in found]
            with route.store.write() as c:
                deliveries.record(c, done, now=route.now())
                audit.write_many(c, 1, [outbox._audited(one, route.now()) for one in done])

        mark()
        made = right(route, found, settle)
        mark()
        return made

    outbox.deliver = wrong


def plain_post() -> None:
    """First contact without a condition: an answer that is lost makes a second resource."""
    from service.sync.ehr import HttpEhr

    right = HttpEhr.transaction

    def wrong(self: Any, bundle: Any) -> Any:
        for entry in bundle["entry"]:
            if "ifNoneExist" in entry["request"]:
                entry["request"]["ifNoneExist"] = f"identifier=http://nobody.invalid|{uuid4()}"
        return right(self, bundle)

    HttpEhr.transaction = wrong  # type: ignore[method-assign]


def no_lane_order() -> None:
    """A later event of a lane goes before an earlier one."""
    from service.store import deliveries

    right = deliveries.waiting
    deliveries.waiting = lambda *a, **k: list(reversed(right(*a, **k)))


def no_leases() -> None:
    """Every worker takes every lane, whoever holds it, and commits what it found."""
    from sqlalchemy import select

    from service.store import lanes

    def free(c: Any, endpoint_id: int, now: Any, lane: str | None, most: int) -> list[str]:
        due = (lanes.lanes.c.endpoint_id == endpoint_id, lanes.lanes.c.due_at <= lanes.stamp(now))
        return list(c.execute(select(lanes.lanes.c.lane).where(*due).order_by(lanes.lanes.c.lane)).scalars())

    lanes._free = free
    lanes.held = lambda c, leases: {lease.lane for lease in leases}


def nothing_is_read_back() -> None:
    """After an unknown outcome the same is sent again, as if nothing had been."""
    from service.sync import push

    push.read_back = lambda ehr, endpoint, parcels, patients, now: (parcels, [])


def any_answer_counts() -> None:
    """A reply is taken for ours without a look at what it names."""
    from service.sync import send

    def wrong(endpoint: Any, due: Any, found: Any) -> Any:
        pairs = zip(due, found, strict=False)
        return [send.link_of(endpoint, one.key, answer.resource, one.hash) for one, answer in pairs]

    send.answered = wrong


def answered_before_committed() -> None:
    """An event is acknowledged before it is on the disk."""
    import threading

    from service import intake

    right = intake.take

    def wrong(store: Any, caller: Any, sent: Any, *, clock: Any) -> Any:
        held = list(sent)
        later = threading.Timer(0.5, lambda: list(right(store, caller, iter(held), clock=clock)))
        later.start()
        for loaded in held:
            yield intake.Result(loaded.source, loaded.id, "accepted")

    intake.take = wrong


def digits_through_floats() -> None:
    """A dose goes through a binary number on its way out."""
    from service.sync import ehr

    right = ehr.dumps
    ehr.dumps = lambda value: right(_floats(loads(right(value))))


def _floats(node: Any) -> Any:
    from decimal import Decimal

    if isinstance(node, Decimal):
        return Decimal(repr(float(node)))
    if isinstance(node, dict):
        return {key: _floats(value) for key, value in node.items()}
    return [_floats(item) for item in node] if isinstance(node, list) else node


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, the invariants of which it must breach at least one, and the faults that bring it to light."""

    install: Callable[[], None]
    breaches: tuple[str, ...]
    faults: str = "30%"


BUGS = {
    "marked before sent": Bug(marked_before_sent, ("I1",)),
    "plain POST": Bug(plain_post, ("I2",)),
    "no lane order": Bug(no_lane_order, ("I3",)),
    "no leases": Bug(no_leases, ("I2", "I5")),
    "nothing is read back": Bug(nothing_is_read_back, ("I2", "I7"), "reset-after@20%/transaction"),
    "any answer counts": Bug(any_answer_counts, ("I3", "I4", "I7"), "swapped@30%/transaction"),
    "answered before committed": Bug(answered_before_committed, ("I1",)),
    "digits through floats": Bug(digits_through_floats, ("I4",)),
}


def install(name: str | None) -> None:
    """Put one bug (or none) into this process."""
    if name:
        BUGS[name].install()
