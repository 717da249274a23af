"""Whether an EHR's server still says what changes: its Subscriptions are looked at and set going again.

A server ends a Subscription when it could not deliver for long, and tells nobody. What it would have told
meanwhile is fetched where it keeps that (`$status`, `$events` of the R5 backport), else found by a poll.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from service.store import hints
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.hints import Subscription
from service.store.times import moment

from . import notification, survey
from .ehr import HttpEhr, Missing, Refused
from .pull import TYPES

Json = Any
Clock = Callable[[], datetime]
Hint = tuple[str | None, str | None]
EVERYTHING: Hint = (None, None)
ASK = timedelta(minutes=5)
"""How often a Subscription is looked at."""
HEARTBEAT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-heartbeat-period"
MISSED = 2
"""Heartbeats that may be missing before the channel counts as broken."""
ENDED = ("error", "off")
GONE, SILENT, KEYLESS = "gone", "silent", "cannot be set going"
"""What became of a Subscription, beside the states of R4: it is not there any more; its heartbeats stay away;
it has ended, and its server hides the header with our secret, without which it must not be written again."""


def listen(store: Store, ehr: HttpEhr, endpoint: Endpoint, now: Clock) -> None:
    """Look at the endpoint's Subscriptions that are due for it. Raises `EhrError`."""
    with store.read() as c:
        known = hints.subscribed(c, endpoint.id)
    for one in known:
        if one.asked_at is None or moment(one.asked_at) <= now() - ASK:
            _look_at(store, ehr, endpoint, one, now)


def _look_at(store: Store, ehr: HttpEhr, endpoint: Endpoint, one: Subscription, now: Clock) -> None:
    about: list[Hint] = []
    last = one.last_event
    try:
        found = ehr.read("Subscription", one.remote_id)
    except Missing:
        status = GONE
        about = [EVERYTHING] if one.status != GONE else []
    else:
        status = SILENT if _is_silent(found, one, now()) else str(found.get("status"))
        if status in (*ENDED, SILENT):
            about = [EVERYTHING]
            status = _set_going(ehr, found, status)
        else:
            last, about = _missed(store, ehr, endpoint, one, now)
    with store.write() as c:
        hints.asked(c, endpoint.id, one.remote_id, status, last, now=now())
        hints.add(c, endpoint, about, now=now())


def _is_silent(found: Json, one: Subscription, now: datetime) -> bool:
    """Whether its server promised heartbeats, and they stay away."""
    extensions = (found.get("channel") or {}).get("extension") or ()
    period = next((e.get("valueUnsignedInt") for e in extensions if e.get("url") == HEARTBEAT), None)
    if not period or found.get("status") != "active":
        return False
    return now - moment(one.heard_at or one.created_at) > timedelta(seconds=MISSED * int(period))


def _set_going(ehr: HttpEhr, found: Json, status: str) -> str:
    """Ask for it again, as it was; what it is then."""
    if not (found.get("channel") or {}).get("header"):
        return KEYLESS
    wanted = {key: value for key, value in found.items() if key not in ("error", "meta")}
    try:
        return str(ehr.save({**wanted, "status": "requested"}).get("status"))
    except (Refused, Missing):
        return status


def _missed(
    store: Store, ehr: HttpEhr, endpoint: Endpoint, one: Subscription, now: Clock
) -> tuple[int | None, list[Hint]]:
    """The number of its last event, and what to read of those that never came."""
    offered = survey.matrix_of(store, ehr, endpoint, now).operations
    if "Subscription/status" not in offered:
        return one.last_event, []
    told = _ask(ehr, one, "$status", {})
    if told is None:
        return one.last_event, []
    last, gap = notification.heard(one.last_event, told)
    if not gap or last is None:
        return last, []
    first = (one.last_event or 0) + 1
    if "Subscription/events" in offered:
        asked = {"eventsSinceNumber": str(first), "eventsUntilNumber": str(last)}
        told = _ask(ehr, one, "$events", asked)
        if told is not None and set(range(first, last + 1)) <= set(told.numbers):
            named = [pair for pair in told.about if pair[0] in TYPES]
            # An event without a focus says that something changed, and not what.
            return last, [*named] if len(told.about) >= len(set(told.numbers)) else [*named, EVERYTHING]
    return last, [EVERYTHING]


def _ask(ehr: HttpEhr, one: Subscription, operation: str, params: dict[str, str]) -> Any:
    try:
        return notification.read(ehr.operation(f"Subscription/{one.remote_id}/{operation}", params))
    except (Refused, Missing):
        return None


def problem(one: Subscription) -> str | None:
    """What a person should know of it; None where it is as it should be, or was never looked at."""
    if one.status == GONE:
        return f"{one.criteria} is not there any more: itb endpoints subscribe"
    if one.status == KEYLESS:
        return f"{one.criteria} has ended, and its server does not show its secret: itb endpoints subscribe"
    if one.status in (*ENDED, SILENT):
        return f"{one.criteria} is {one.status}"
    return None
