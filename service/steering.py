"""What a person may do with what is on its way to an EHR; every change is audited under a name.

`deliveries.CHANGES` says what there is: pause, resume, retry, cancel, skip. An endpoint is paused and resumed
as a whole; retry, cancel and skip of an endpoint mean those of its deliveries that it makes sense for.
`alter_endpoint` changes where an endpoint is and how it is treated.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from .store import audit, capabilities, deliveries, endpoints, lanes
from .store.deliveries import CHANGES, Delivery
from .store.endpoints import Endpoint
from .store.keys import Caller
from .store.times import stamp

AT_ONCE = 1000
"""How many deliveries one transaction changes."""


class CannotChange(Exception):
    """What was asked is not possible now; the message says why, `rule` names it."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


def change_delivery(
    c: Connection, caller: Caller, id: int, action: str, reason: str | None, *, now: datetime
) -> Delivery | None:
    """Do it, and the delivery as it is then; None when there is none of this number."""
    found = deliveries.find(c, caller.tenant_id, id)
    if found is None:
        return None
    _check_reason(action, reason)
    if not deliveries.change(c, caller.tenant_id, [id], action, now=now, reason=reason):
        words = "it was sent already" if found.status == "sent" else f"it is {found.status}"
        raise CannotChange(f"{words}: {action} is not possible", found.status)
    _audit(c, caller, action, f"delivery/{id}", reason or "", now)
    return deliveries.find(c, caller.tenant_id, id)


def change_endpoint(
    c: Connection, caller: Caller, endpoint: Endpoint, action: str, reason: str | None, *, now: datetime
) -> int:
    """Do it with the endpoint (pause, resume) or with its deliveries; how many deliveries it was about."""
    _check_reason(action, reason)
    subject = f"endpoint/{endpoint.name}"
    if action in ("pause", "resume"):
        if endpoint.enabled is (action == "resume"):
            return 0
        endpoints.set_enabled(c, endpoint.id, action == "resume")
        missed = deliveries.catch_up(c, endpoint, now=now) if action == "resume" else 0
        _audit(c, caller, action, subject, f"{missed} deliveries added" if missed else "", now)
        return missed
    number = 0
    statuses = CHANGES[action].of_endpoint
    while ids := deliveries.ids_of(c, endpoint.id, statuses, limit=AT_ONCE):
        number += len(deliveries.change(c, caller.tenant_id, ids, action, now=now, reason=reason))
    detail = f"{number} deliveries{f': {reason}' if reason else ''}"
    _audit(c, caller, action, subject, detail, now)
    return number


def alter_endpoint(
    c: Connection, caller: Caller, endpoint: Endpoint, wanted: Endpoint, *, now: datetime
) -> Endpoint:
    """Give it the URL and the options of `wanted`, which the caller has checked; the endpoint as it is then.

    Raises `CannotChange` where that is not possible now.
    """
    names = sorted(wanted.options.keys() | endpoint.options.keys())
    changed = [f"options.{name}" for name in names if wanted.options.get(name) != endpoint.options.get(name)]
    if endpoint.is_hl7v2 and "options.hl7v2" in changed:
        _check_quiet(c, endpoint)
    if wanted.url != endpoint.url:
        endpoints.set_url(c, endpoint.id, wanted.url)
        capabilities.forget(c, endpoint.id)
        changed.insert(0, "url")
    if changed:
        endpoints.set_options(c, endpoint.id, wanted.options)
        # Names only: a header may hold a secret.
        _audit(c, caller, "change", f"endpoint/{endpoint.name}", ", ".join(changed), now)
    return wanted


def _check_quiet(c: Connection, endpoint: Endpoint) -> None:
    """A message whose outcome is not known is sent again, and must then be the same, byte for byte."""
    if endpoint.enabled:
        raise CannotChange(
            "pause it first: a message may be under way, written by the map as it is", "enabled"
        )
    if lanes.is_any_held(c, endpoint.id) or deliveries.are_unclear(c, endpoint.id):
        words = "what became of a message is not known yet, and it must be sent again as it was"
        raise CannotChange(f"{words}: resume it until that is answered, or cancel the delivery", "under-way")


def _check_reason(action: str, reason: str | None) -> None:
    if CHANGES[action].needs_reason and not (reason or "").strip():
        raise CannotChange(f"{action} needs a reason: it leaves a gap in what the EHR holds", "reason")


def _audit(c: Connection, caller: Caller, action: str, subject: str, detail: str, now: datetime) -> None:
    audit.write(
        c, caller.tenant_id, at=stamp(now), actor=caller.name, action=action, subject=subject, detail=detail
    )
