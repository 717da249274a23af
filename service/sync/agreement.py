"""What both sides agree on about a record: kept, merged anew, or asked of a person. Within one transaction.

The base of a merge is what the EHR told when it was last read or written (`links`); for a write of ours whose
answer was lost, the version that the resource itself names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mappings import Issue, MappingError, identity
from mappings.bundle import encode, is_telling
from mappings.codes import sid
from mappings.event import Event, is_retracted, lane_key, load_event, telling_of, version
from mappings.exact_json import dumps, loads
from mappings.identity import content_hash, identified, resource_identity
from service.chain import Damaged
from service.intake import admit, admit_many
from service.store import audit, conflicts, deliveries, endpoints, events, links
from service.store.conflicts import Conflict
from service.store.endpoints import Endpoint
from service.store.events import Accepted, StoredEvent
from service.store.links import Link
from service.store.times import stamp

from .merge import DOSE_TYPES, Difference, Merged, differences, merge, needs_two
from .reading import Told, record_of, telling_link

Json = Any
Outcome = tuple[str, int | None]


def accept(c: Connection, endpoint: Endpoint, told: Told, link: Link | None, now: datetime) -> Outcome:
    """(outcome, ledger row) of what an EHR tells now; raises `MappingError` where the ledger contradicts it.

    accepted: a new record; corrected: theirs is the new version; merged: a new version of both; kept: ours
    stands and is written again; unchanged: they say the same; conflict: a person is asked.
    """
    theirs, known = _identified(c, endpoint, told.event, link)
    if not known:
        done = _accept_new(c, endpoint, [(told, theirs)], now)[0]
        if isinstance(done, Exception):
            raise done
        return done
    ours = known[-1]
    if ours.event["patient"] in told.people:
        theirs = load_event({**theirs, "patient": ours.event["patient"]})  # by another name
    base = _base(link, theirs, known)
    merged = merge(base, ours.event, theirs, their_record=theirs["source"] == endpoint.name)
    if merged.asked:
        return _ask(c, endpoint, told, theirs, ours, base, merged, now)
    settle(c, endpoint, (theirs["source"], theirs["id"]), now)
    return conclude(c, endpoint, told.resource, theirs, ours, merged, now)


def accept_unlinked(
    c: Connection, endpoint: Endpoint, told: Sequence[Told], now: datetime
) -> list[Outcome | MappingError | Damaged]:
    """`accept` each, in order, of resources that no link leads to: new records that follow are one batch."""
    named = [(one.event["source"], one.event["id"]) for one in told]
    here = {name: _name_here(endpoint, name) for name in named}
    known = set(events.versions_of(c, endpoint.tenant_id, {*named, *here.values()}))
    done: list[Outcome | MappingError | Damaged] = []
    batch: list[tuple[Told, Event]] = []
    for one, name in zip(told, named, strict=True):
        if name not in known and here[name] not in known:
            known |= {name, here[name]}
            batch.append((one, _called(one.event, here[name])))
            continue
        done += _accept_new(c, endpoint, batch, now)
        batch = []
        try:
            done.append(accept(c, endpoint, one, None, now))
        except (MappingError, Damaged) as error:
            done.append(error)
    return done + _accept_new(c, endpoint, batch, now)


def _accept_new(
    c: Connection, endpoint: Endpoint, new: Sequence[tuple[Told, Event]], now: datetime
) -> list[Outcome | MappingError | Damaged]:
    """Records that were never heard of, under the identity they get here."""
    if not new:
        return []
    admitted = admit_many(
        c,
        endpoint.tenant_id,
        [event for _, event in new],
        received_at=now,
        actor=endpoint.name,
        endpoints=endpoints.every(c, endpoint.tenant_id),
        origin=endpoint.name,
    )
    made = [
        # Its first version is what they told.
        _link(
            endpoint,
            told.resource,
            told.content_hash,
            event,
            one.seq,
            ours=_ours(event, told.resource, told.content_hash),
        )
        for (told, event), one in zip(new, admitted, strict=True)
        if isinstance(one, Accepted)
    ]
    links.save_many(c, made, now=now)
    return [(one.outcome, one.seq) if isinstance(one, Accepted) else one for one in admitted]


def conclude(
    c: Connection,
    endpoint: Endpoint,
    resource: Json,
    theirs: Event,
    ours: StoredEvent,
    merged: Merged,
    now: datetime,
    actor: str | None = None,
) -> Outcome:
    """Make it so: a new version where the merge differs from ours, a delivery where it does from theirs."""
    hashed = content_hash(resource)
    said = _ours(theirs, resource, hashed)
    theirs = load_event({**theirs, "version": version(ours.event) + 1})
    event = load_event({**merged.event, "version": version(ours.event) + 1})
    differs = content(event) != content(ours.event)
    agrees = not differences(None, event, theirs)
    outcome: str
    seq: int | None
    if not differs:
        outcome, seq, event = ("unchanged" if agrees else "kept"), ours.seq, ours.event
    else:
        done = _admit(c, endpoint, event, now, actor)
        outcome, seq = ("corrected" if agrees else "merged"), done.seq
    links.save(
        c,
        _link(endpoint, resource, hashed, event, seq, None if agrees else theirs, said),
        now=now,
    )
    if seq is not None and (not agrees or (differs and len(encode(event)) > 1)):
        # The rest of what the record is told by must follow, also in the EHR that changed it.
        deliveries.again(c, endpoint.tenant_id, event, seq, endpoint.id, at=stamp(now))
    _note(c, endpoint, ours.event, merged, outcome, now)
    return outcome, seq


def correct(c: Connection, endpoint: Endpoint, event: Event, now: datetime, actor: str) -> None:
    """A new version that a person decided on; every EHR gets it, that one too."""
    done = _admit(c, endpoint, event, now, actor)
    if done.seq is not None:
        deliveries.again(c, endpoint.tenant_id, event, done.seq, endpoint.id, at=stamp(now))


def overwrite(c: Connection, endpoint: Endpoint, resource: Json, now: datetime) -> None:
    """The version of a linked resource that may be written over, whole: a person has seen it."""
    link = links.find_remote(c, endpoint.id, resource["resourceType"], resource["id"])
    if link is not None:
        seen = str(resource.get("meta", {}).get("versionId", ""))
        links.save(c, replace(link, version_id=seen, content_hash=content_hash(resource), ours=None), now=now)


def ask_again(
    c: Connection, endpoint: Endpoint, conflict: Conflict, ours: StoredEvent, now: datetime
) -> None:
    """Our side of an open conflict has a new version: what is asked now, or nothing any more."""
    if conflict.kind != "edited":
        conflicts.save(c, replace(conflict, ours_seq=ours.seq, proposal=None, proposed_by=None), now=now)
        return
    theirs = load_event(conflict.theirs)
    base = load_event(conflict.base) if conflict.base is not None else None
    merged = merge(base, ours.event, theirs, their_record=theirs["source"] == endpoint.name)
    if not merged.asked:
        settle(c, endpoint, (conflict.source, conflict.event_id), now)
        conclude(c, endpoint, loads(conflict.raw or "{}"), theirs, ours, merged, now)
        return
    asked = replace(
        conflict,
        ours_seq=ours.seq,
        fields=[_field(one) for one in merged.asked],
        two_persons=needs_two(ours.event["type"], merged.asked),
        proposal=None,
        proposed_by=None,
    )
    conflicts.save(c, asked, now=now)


def settle(c: Connection, endpoint: Endpoint, name: tuple[str, str] | None, now: datetime) -> None:
    """The sides agree about a record: a conflict that was open about it has gone by itself."""
    if name is None:
        return
    found = conflicts.open_of(c, endpoint.id, endpoint.tenant_id, *name)
    if found is not None:
        conflicts.close(c, found.id, "withdrawn", now=now)
        _audit(c, endpoint, found, "withdrawn", "the sides agree again", now)


def content(event: Event) -> bytes:
    """What an event says, apart from which version it is."""
    return dumps({k: v for k, v in event.items() if k != "version"})


def _identified(
    c: Connection, endpoint: Endpoint, told: Event, link: Link | None
) -> tuple[Event, list[StoredEvent]]:
    """The event under the identity it has here, and its versions."""
    was = record_of(c, endpoint, link) if link is not None else None
    known = events.find(c, endpoint.tenant_id, told["source"], told["id"])
    if was is not None and (told["source"], told["id"]) != was:
        if known or told["source"] != endpoint.name:
            raise MappingError([Issue("identifier", "identity", "names another record than this one was")])
        # An EHR may number its own records anew: a resource stays the record it was.
        told = _called(told, was)
        known = events.find(c, endpoint.tenant_id, *was)
    if known:
        return told, known
    told = _called(told, _name_here(endpoint, (told["source"], told["id"])))
    return told, events.find(c, endpoint.tenant_id, told["source"], told["id"])


def _name_here(endpoint: Endpoint, told: tuple[str, str]) -> tuple[str, str]:
    """The identity of a record that we hear of for the first time: a source of its own is this EHR."""
    source, id = told
    return told if source == endpoint.name else (endpoint.name, f"{source}.{id}")


def _called(event: Event, name: tuple[str, str]) -> Event:
    if (event["source"], event["id"]) == name:
        return event
    return load_event({**event, "source": name[0], "id": name[1]})


def _base(link: Link | None, theirs: Event, known: list[StoredEvent]) -> Event | None:
    named = next((one for one in known if one.version == version(theirs)), None)
    agreed = next((one for one in known if link is not None and one.seq == link.event_seq), None)
    if named is not None and agreed is not None and named.version > agreed.version:
        return named.event  # we wrote it, and its answer is not noted yet
    if link is not None and link.told is not None:
        return load_event(loads(link.told))
    if link is not None and link.event_seq is not None:
        return agreed.event if agreed is not None else None
    return named.event if named is not None else None


def _admit(
    c: Connection, endpoint: Endpoint, event: Event, now: datetime, actor: str | None = None
) -> Accepted:
    return admit(
        c,
        endpoint.tenant_id,
        event,
        received_at=now,
        actor=actor or endpoint.name,
        endpoints=endpoints.every(c, endpoint.tenant_id),
        origin=endpoint.name,
    )


def _identity(resource: Json, told: Event) -> tuple[str, str]:
    if (named := identified(resource)) is not None:
        return named
    told_by = telling_of(resource)
    assert told_by is not None
    return sid(told_by[0].kind), identity.business_value(told["source"], told["id"])


def _link(
    endpoint: Endpoint,
    resource: Json,
    hashed: str,
    about: Event,
    seq: int | None,
    told: Event | None = None,
    ours: str | None = None,
) -> Link:
    """What the EHR holds is what was last agreed: `told`, or the event in the ledger's row `seq`."""
    key = _identity(resource, about)
    return Link(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        system=key[0],
        value=key[1],
        resource_type=resource["resourceType"],
        remote_id=resource["id"],
        version_id=str(resource.get("meta", {}).get("versionId", "")),
        content_hash=hashed,
        event_seq=seq,
        told=None if told is None else dumps(told).decode(),
        ours=ours,
    )


def _ours(theirs: Event, resource: Json, hashed: str) -> str | None:
    """The resource as we would write what it tells, where that is not all that it holds (`hashed`)."""
    type = resource["resourceType"]
    made = next((one for one in encode(theirs) if one["resourceType"] == type and is_telling(one)), None)
    if made is None:
        return None
    if identified(resource) != resource_identity(made):
        made.pop("identifier")  # the EHR's own record: our identifier is to be added
    elif content_hash(made) == hashed:
        return None
    return dumps(made).decode()


# --- asking ---------------------------------------------------------------------------------------------


def _ask(
    c: Connection,
    endpoint: Endpoint,
    told: Told,
    theirs: Event,
    ours: StoredEvent,
    base: Event | None,
    merged: Merged,
    now: datetime,
) -> Outcome:
    asked = Conflict(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        kind="edited",
        source=theirs["source"],
        event_id=theirs["id"],
        lane=lane_key(ours.event),
        base=base,
        ours_seq=ours.seq,
        resource_type=told.resource["resourceType"],
        remote_id=told.resource["id"],
        version_id=str(told.resource.get("meta", {}).get("versionId", "")),
        theirs=theirs,
        raw=dumps(told.resource).decode(),
        fields=[_field(one) for one in merged.asked],
        two_persons=needs_two(ours.event["type"], merged.asked),
    )
    saved = conflicts.save(c, asked, now=now)
    _audit(c, endpoint, saved, "conflict", _paths(merged.asked), now)
    return "conflict", None


def ask_deleted(c: Connection, endpoint: Endpoint, name: tuple[str, str], link: Link, now: datetime) -> str:
    """A resource of a record is gone in the EHR: the record stays, and a person says what that means."""
    ours = events.find(c, endpoint.tenant_id, *name)[-1]
    if is_retracted(ours.event):
        return "deleted"  # both sides say that it should not be there
    telling = telling_link(c, endpoint, link)
    is_record = telling is None or telling.remote_id == link.remote_id
    kind = "deleted" if is_record else "rewritten"
    _ask_about(c, endpoint, kind, name, ours, link, None, now, "deleted")
    return "deleted"


def ask_rewritten(
    c: Connection,
    endpoint: Endpoint,
    name: tuple[str, str],
    resource: Json,
    now: datetime,
    why: str = "edited",
) -> str:
    """What follows from a record (a segment, a flag) was edited there, or the record to what cannot be read.

    Only the record itself, as it stands here, can be written again.
    """
    ours = events.find(c, endpoint.tenant_id, *name)[-1]
    link = links.find_remote(c, endpoint.id, resource["resourceType"], resource["id"])
    assert link is not None
    _ask_about(c, endpoint, "rewritten", name, ours, link, resource, now, why)
    return "conflict"


def _ask_about(
    c: Connection,
    endpoint: Endpoint,
    kind: str,
    name: tuple[str, str],
    ours: StoredEvent,
    link: Link,
    resource: Json,
    now: datetime,
    why: str,
) -> None:
    known = conflicts.open_of(c, endpoint.id, endpoint.tenant_id, *name)
    if known is not None and known.kind == "deleted":
        return
    place = {"path": f"{link.resource_type}/{link.remote_id}", "owner": "dose", "base": None}
    asked = Conflict(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        kind=kind,
        source=name[0],
        event_id=name[1],
        lane=lane_key(ours.event),
        base=None,
        ours_seq=ours.seq,
        resource_type=link.resource_type,
        remote_id=link.remote_id,
        version_id=str(resource["meta"].get("versionId", "")) if resource else None,
        theirs=None,
        raw=dumps(resource).decode() if resource else None,
        fields=[place | {"ours": "there", "theirs": why}],
        two_persons=ours.event["type"] in DOSE_TYPES,
    )
    saved = conflicts.save(c, asked, now=now)
    _audit(c, endpoint, saved, "conflict", f"{place['path']} {why}", now)


def _field(one: Difference) -> Json:
    changed = one.changed.value if one.changed is not None else None
    return {
        "path": one.path,
        "owner": one.owner.value,
        "changed": changed,
        "base": one.base,
        "ours": one.ours,
        "theirs": one.theirs,
    }


def _paths(found: tuple[Difference, ...]) -> str:
    return ", ".join(one.path for one in found)


def _note(
    c: Connection, endpoint: Endpoint, event: Event, merged: Merged, outcome: str, now: datetime
) -> None:
    """Which side's value was taken field by field, where that was not obvious; never the values."""
    if outcome in ("unchanged", "corrected") and not merged.overruled:
        return
    told = [f"theirs: {_paths(merged.taken)}"] if merged.taken else []
    told += [f"changed on both sides: {_paths(merged.overruled)}"] if merged.overruled else []
    audit.write(
        c,
        endpoint.tenant_id,
        at=stamp(now),
        actor=endpoint.name,
        action=outcome,
        subject=f"event/{event['source']}/{event['id']}",
        detail="; ".join(told) or "ours stands",
    )


def _audit(
    c: Connection, endpoint: Endpoint, conflict: Conflict, action: str, detail: str, now: datetime
) -> None:
    audit.write(
        c,
        endpoint.tenant_id,
        at=stamp(now),
        actor=endpoint.name,
        action=action,
        subject=f"conflict/{conflict.id}",
        detail=detail,
    )
