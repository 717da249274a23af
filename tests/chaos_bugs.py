"""Bugs that are put into the service on purpose: a run with one of them must be seen to go wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from mappings.exact_json import loads


def marked_before_sent() -> None:
    """The delivery is done before its transaction is sent: a kill in between loses it."""
    from service.store.deliveries import Outcome
    from service.sync import outbox

    right = outbox.deliver

    def wrong(route: Any, found: Any, settle: Any) -> Any:
        with route.store.write() as c:
            outbox.deliveries.record(c, [Outcome(one, "sent") for one in found], now=route.now())
        return right(route, found, settle)

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

    def wrong(c: Any, leases: Any, *, now: Any, most: int) -> Any:
        return right(c, leases, now=now, most=1_000)[::-1]

    deliveries.waiting = wrong


def any_answer_counts() -> None:
    """A reply is taken for ours without a look at what it names."""
    from service.sync import send

    def wrong(endpoint: Any, due: Any, found: Any) -> Any:
        pairs = zip(due, found, strict=False)
        return [send.link_of(endpoint, one.key, remote, one.hash) for one, remote in pairs]

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
    importlib.import_module("service.api.events").intake.take = wrong


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


BUGS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "marked before sent": (marked_before_sent, ("I1", "I5")),
    "plain POST": (plain_post, ("I2",)),
    "no lane order": (no_lane_order, ("I3",)),
    "any answer counts": (any_answer_counts, ("I1", "I2", "I3", "I4")),
    "answered before committed": (answered_before_committed, ("I1",)),
    "digits through floats": (digits_through_floats, ("I4",)),
}
"""Each bug, and the invariants of which it must breach at least one."""


def install(name: str | None) -> None:
    """Put one bug (or none) into this process."""
    if name:
        BUGS[name][0]()
