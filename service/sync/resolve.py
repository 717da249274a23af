"""A person decides a conflict: ours, theirs, or field by field; two persons where a dose depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mappings import Issue, MappingError
from mappings.event import is_retracted, load_event, version
from mappings.exact_json import loads
from service.store import audit, conflicts, deliveries, endpoints, events, links
from service.store.conflicts import Conflict
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.events import StoredEvent
from service.store.times import stamp

from . import agreement
from .merge import OURS, THEIRS, merge
from .reading import records_links

Json = Any
ANONYMOUS = "anonymous"


class NotNow(Exception):
    """The conflict cannot be decided like this any more; the message says why."""


def decide(
    store: Store, tenant_id: int, id: int, choices: Mapping[str, str], person: str, now: datetime
) -> Conflict | None:
    """Decide a conflict, or as the first of two persons propose so; the conflict as it then is.

    `choices`: for each path of its fields `ours` or `theirs`. A second person confirms by the same choices;
    other choices are a new proposal. None: there is no such conflict. Raises `MappingError` for choices that
    do not fit or that the ledger refuses, `NotNow` when it is not as it was shown.
    """
    with store.write() as c:
        found = conflicts.find(c, tenant_id, id)
        if found is None:
            return None
        if found.status != "open":
            raise NotNow(f"it is {found.status} already")
        endpoint = endpoints.by_id(c, found.endpoint_id)
        assert endpoint is not None
        ours = events.find(c, tenant_id, found.source, found.event_id)[-1]
        changed = ours.seq != found.ours_seq
        if changed:
            agreement.ask_again(c, endpoint, found, ours, now)
    if changed:
        raise NotNow("the record has a new version: look at the conflict again")
    with store.write() as c:
        return _decide(c, endpoint, id, found, choices, person, now)


def _decide(
    c: Connection,
    endpoint: Endpoint,
    id: int,
    shown: Conflict,
    choices: Mapping[str, str],
    person: str,
    now: datetime,
) -> Conflict:
    conflict = conflicts.find(c, shown.tenant_id, id)
    assert conflict is not None
    ours = events.find(c, conflict.tenant_id, conflict.source, conflict.event_id)[-1]
    if conflict != shown or ours.seq != conflict.ours_seq:
        raise NotNow("it changed this moment: look at the conflict again")
    chosen = _fitting(conflict, choices)
    if conflict.two_persons and not _is_second(conflict, chosen, person):
        conflicts.propose(c, conflict.id, chosen, person, now=now)
        _audit(c, conflict, person, "proposed", chosen, now)
    else:
        PERFORM[conflict.kind](c, endpoint, conflict, ours, chosen, person, now)
        conflicts.close(c, conflict.id, "resolved", now=now, person=person, proposal=chosen)
        _audit(c, conflict, person, "resolved", chosen, now)
    return conflicts.find(c, conflict.tenant_id, conflict.id)  # type: ignore[return-value]  # it is there


def _fitting(conflict: Conflict, choices: Mapping[str, str]) -> dict[str, str]:
    paths = [field["path"] for field in conflict.fields]
    missing = [path for path in paths if path not in choices]
    unknown = [path for path in choices if path not in paths]
    found = [Issue(f"fields.{path}", "required", "needs ours or theirs") for path in missing]
    found += [Issue(f"fields.{path}", "unknown-field", "is not in conflict") for path in unknown]
    found += [
        Issue(f"fields.{path}", "code", "must be ours or theirs")
        for path, choice in choices.items()
        if choice not in (OURS, THEIRS)
    ]
    if conflict.kind == "rewritten" and THEIRS in choices.values():
        why = "follows from the record, so it cannot stand alone: correct the record itself"
        found.append(Issue(f"fields.{paths[0]}", "derived", why))
    if found:
        raise MappingError(found)
    return dict(choices)


def _is_second(conflict: Conflict, chosen: dict[str, str], person: str) -> bool:
    """Whether another person has decided the same before; nobody in particular is not a person."""
    return (
        conflict.proposed_by is not None
        and ANONYMOUS not in (person, conflict.proposed_by)
        and conflict.proposed_by != person
        and conflict.proposal == chosen
    )


def _audit(
    c: Connection, conflict: Conflict, person: str, action: str, chosen: Mapping[str, str], now: datetime
) -> None:
    audit.write(
        c,
        conflict.tenant_id,
        at=stamp(now),
        actor=person,
        action=action,
        subject=f"conflict/{conflict.id}",
        detail=", ".join(f"{path}: {choice}" for path, choice in chosen.items()),
    )


# --- one function a kind --------------------------------------------------------------------------------


def _edited(
    c: Connection,
    endpoint: Endpoint,
    conflict: Conflict,
    ours: StoredEvent,
    chosen: dict[str, str],
    person: str,
    now: datetime,
) -> None:
    theirs = load_event(conflict.theirs)
    base = load_event(conflict.base) if conflict.base is not None else None
    mine = theirs["source"] == endpoint.name
    merged = merge(base, ours.event, theirs, their_record=mine, choices=chosen)
    resource = loads(conflict.raw or "{}")
    agreement.conclude(c, endpoint, resource, theirs, ours, merged, now, actor=person)


def _deleted(
    c: Connection,
    endpoint: Endpoint,
    conflict: Conflict,
    ours: StoredEvent,
    chosen: dict[str, str],
    person: str,
    now: datetime,
) -> None:
    if THEIRS in chosen.values():
        if not is_retracted(ours.event):
            gone = {**ours.event, "status": "entered-in-error", "version": version(ours.event) + 1}
            agreement.correct(c, endpoint, load_event(gone), now, person)
        return
    _write_again(c, endpoint, ours, now)


def _write_again(c: Connection, endpoint: Endpoint, ours: StoredEvent, now: datetime) -> None:
    for link in records_links(c, endpoint, ours.event):
        if link.deleted_at is not None:  # what is written next is a new resource of the same identity
            links.forget(c, endpoint.id, link.system, link.value)
    deliveries.again(c, endpoint.tenant_id, ours.event, ours.seq, endpoint.id, at=stamp(now))


def _rewritten(
    c: Connection,
    endpoint: Endpoint,
    conflict: Conflict,
    ours: StoredEvent,
    chosen: dict[str, str],
    person: str,
    now: datetime,
) -> None:
    if conflict.raw is not None:
        agreement.overwrite(c, endpoint, loads(conflict.raw), now)
    _write_again(c, endpoint, ours, now)


PERFORM = {"edited": _edited, "deleted": _deleted, "rewritten": _rewritten}
