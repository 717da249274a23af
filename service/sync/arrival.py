"""What was read in an EHR comes into the ledger: an echo, a new record, a correction, a merge, a conflict.

Reading calls the EHR and comes first; then one transaction takes in a whole page. A version is taken in once.
An edit of something we hold is read again before it is believed: the page may be older than our last write.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from mappings import Issue, MappingError
from mappings.bundle import is_telling
from mappings.event import lane_key
from mappings.exact_json import dumps, loads
from mappings.identity import content_hash, identified
from mappings.weave import says_all
from service.chain import Damaged
from service.store import audit, conflicts, deliveries, events, hints, links, remote
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.links import Link, is_past_caches
from service.store.remote import RemoteVersion
from service.store.times import stamp

from . import agreement
from .drift import is_older
from .ehr import Ehr, Missing
from .readback import LOOKS
from .reading import Reader, Told, names_of, record_of

Json = Any
Clock = Callable[[], datetime]
DAMAGED = MappingError([Issue("the ledger's row", "damaged", "is not what was written (itb verify)")])
GONE = "gone"
"""The version of a resource that is not there any more."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A version that was not seen before, the link there was when it was read, and what it tells."""

    seen: RemoteVersion
    resource: Json
    link: Link | None
    told: Told | None = None
    error: MappingError | None = None
    echo: bool = False


def take(
    store: Store,
    ehr: Ehr,
    reader: Reader,
    endpoint: Endpoint,
    resources: Iterable[Json],
    now: Clock,
    also: Callable[[Connection], None] | None = None,
    *,
    by_poll: bool = False,
) -> dict[str, int]:
    """Take in versions of resources; how many became what. Raises `EhrError` with none of them taken in.

    `also` is done in the same transaction. `by_poll`: what may be a write of ours that is not recorded yet
    is left for later.
    """
    arrived = _read(store, ehr, reader, endpoint, list(resources), now())
    counts: dict[str, int] = {}
    if not arrived and also is None:
        return counts
    with store.write() as c:
        for some in _once_each(arrived):
            for kept in _take_all(c, endpoint, some, now, by_poll):
                name = kept.outcome.partition(":")[0]
                counts[name] = counts.get(name, 0) + 1
        if also is not None:
            also(c)
    return counts


# --- reading: calls the EHR, no transaction is open -----------------------------------------------------


def _read(
    store: Store, ehr: Ehr, reader: Reader, endpoint: Endpoint, resources: list[Json], now: datetime
) -> list[Arrival]:
    with store.read() as c:
        seen = _seen(c, endpoint, resources)
        known = _links(c, endpoint, resources)
    arrived = []
    for resource in resources:
        version = _version(endpoint, resource)
        if _key(version) in seen:
            continue
        link = known.get((version.resource_type, version.remote_id))
        arrived.append(Arrival(version, resource, link, echo=_is_echo(link, version)))
    ours = _may_be_written(store, endpoint, arrived)
    arrived = [
        one
        for old in arrived
        if (one := _current(ehr, endpoint, old, now) if _place(old) in ours else old) is not None
    ]
    must = [_must_be_read(one) for one in arrived]
    reader.prepare([one.resource for one, is_due in zip(arrived, must, strict=True) if is_due])
    return [_told(reader, one) if is_due else one for one, is_due in zip(arrived, must, strict=True)]


def _may_be_written(store: Store, endpoint: Endpoint, arrived: Sequence[Arrival]) -> set[tuple[str, str]]:
    """Where a write of ours may be newer than what was read: an edit of something we hold, and what no link
    leads to yet but carries the identifier of a record of ours."""
    found = set()
    names: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in arrived:
        if one.echo:
            continue
        if one.link is not None:
            found.add(_place(one))
        elif (identity := identified(one.resource)) is not None:
            names[_place(one)] = names_of(identity[1])
    with store.read() as c:
        known = events.versions_of(c, endpoint.tenant_id, [one for some in names.values() for one in some])
    # A device is known by its serial number, which names no record.
    return found | {place for place, some in names.items() if not some or any(one in known for one in some)}


def _place(one: Arrival) -> tuple[str, str]:
    return one.seen.resource_type, one.seen.remote_id


def _current(ehr: Ehr, endpoint: Endpoint, one: Arrival, now: datetime) -> Arrival | None:
    """What the EHR says of it now; None when it is gone, and for an answer of a cache that is too old."""
    for _ in range(LOOKS):  # one answer may come from a cache: an edit is seen as often as a read-back looks
        try:
            there = ehr.read(one.seen.resource_type, one.seen.remote_id)
        except Missing:
            return None  # `take_deletion` is told of it
        version = _version(endpoint, there)
        found = replace(one, seen=version, resource=there, echo=_is_echo(one.link, version))
        if found.echo or one.link is None:
            return found
    return None if _is_from_a_cache(found, now) else found


def _is_from_a_cache(one: Arrival, now: datetime) -> bool:
    """Whether it is older than what was seen there, and that so lately that a cache may have answered."""
    link = one.link
    return (
        link is not None and is_older(one.seen.version_id, link.version_id) and not is_past_caches(link, now)
    )


def _is_echo(link: Link | None, version: RemoteVersion) -> bool:
    return link is not None and (
        link.version_id == version.version_id or link.content_hash == version.content_hash
    )


def _must_be_read(one: Arrival) -> bool:
    if one.echo and one.link is not None:  # else the EHR changed what we wrote, while it stored it
        return one.link.content_hash != one.seen.content_hash and is_telling(one.resource)
    return one.link is not None or is_telling(one.resource)


def _told(reader: Reader, one: Arrival) -> Arrival:
    try:
        if one.link is None or is_telling(one.resource):
            return replace(one, told=reader.told(one.resource, one.seen.content_hash))
        return replace(one, told=reader.told_by_part(one.resource, one.link))
    except MappingError as error:
        return replace(one, error=error)
    except Damaged:
        return replace(one, error=DAMAGED)


def _version(endpoint: Endpoint, resource: Json) -> RemoteVersion:
    meta = resource.get("meta", {})
    return RemoteVersion(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        resource_type=resource["resourceType"],
        remote_id=resource["id"],
        version_id=str(meta.get("versionId", "")),
        last_updated=meta.get("lastUpdated"),
        raw=dumps(resource).decode(),
        content_hash=content_hash(resource),
        outcome="",
    )


def _key(version: RemoteVersion) -> tuple[str, str, str, str]:
    return version.resource_type, version.remote_id, version.version_id, version.content_hash


def _by_type(resources: list[Json]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for resource in resources:
        found.setdefault(resource["resourceType"], []).append(resource["id"])
    return found


def _seen(c: Connection, endpoint: Endpoint, resources: list[Json]) -> dict[tuple[str, str, str, str], str]:
    return {
        (type, *key): outcome
        for type, ids in _by_type(resources).items()
        for key, outcome in remote.seen(c, endpoint.id, type, ids).items()
    }


def _links(c: Connection, endpoint: Endpoint, resources: list[Json]) -> dict[tuple[str, str], Link]:
    return {
        (type, id): link
        for type, ids in _by_type(resources).items()
        for id, link in links.of_remote(c, endpoint.id, type, ids).items()
    }


# --- taking in: one transaction -------------------------------------------------------------------------


def _once_each(arrived: Sequence[Arrival]) -> Iterator[list[Arrival]]:
    """Parts in which no resource is twice: what became of its first version, the second one must know."""
    left = list(arrived)
    while left:
        part: dict[tuple[str, str], Arrival] = {}
        again = []
        for one in left:
            if part.setdefault(_place(one), one) is not one:
                again.append(one)
        yield list(part.values())
        left = again


def _take_all(
    c: Connection, endpoint: Endpoint, arrived: Sequence[Arrival], now: Clock, by_poll: bool
) -> list[RemoteVersion]:
    """The versions that are new here, with what became of them; those that follow each other and are of one
    kind at once."""
    known = _seen(c, endpoint, [one.resource for one in arrived])
    linked = _links(c, endpoint, [one.resource for one in arrived])
    kept: list[RemoteVersion] = []
    for batch, some in groupby(_due(c, endpoint, arrived, known, linked, now, by_poll), key=_batch):
        kept += batch(c, endpoint, list(some), now)
    remote.add(c, kept, now=now())
    return kept


Due = tuple[Arrival, Link | None]
"""What is taken in, and the link there is now."""


def _due(
    c: Connection,
    endpoint: Endpoint,
    arrived: Sequence[Arrival],
    known: Container[tuple[str, str, str, str]],
    linked: Mapping[tuple[str, str], Link],
    now: Clock,
    by_poll: bool,
) -> Iterator[Due]:
    for one in arrived:
        if _key(one.seen) in known:
            continue
        link = linked.get(_place(one))
        if by_poll and _may_be_ours(c, endpoint, one, link):
            hints.add(c, endpoint, [_place(one)], now=now())
            continue
        if link is not None and (one.link is None or link.version_id != one.link.version_id):
            if not _is_echo(link, one.seen):
                continue  # we wrote it meanwhile: what was read may be older than that, it comes again
            one = replace(one, echo=True)
        yield one, link


def _batch(due: Due) -> Callable[[Connection, Endpoint, list[Due], Clock], list[RemoteVersion]]:
    """By what it is taken in."""
    one, link = due
    if one.echo and link is not None:
        return _take_echoes
    if link is None and one.told is not None and one.error is None:
        return _take_unlinked
    return _take_each


def _take_each(c: Connection, endpoint: Endpoint, due: list[Due], now: Clock) -> list[RemoteVersion]:
    return [_take(c, endpoint, one, link, now) for one, link in due]


def _take_unlinked(c: Connection, endpoint: Endpoint, due: list[Due], now: Clock) -> list[RemoteVersion]:
    """What tells an event, and was never known here as a resource of this EHR."""
    told = [(one, one.told) for one, _ in due if one.told is not None]
    done = agreement.accept_unlinked(c, endpoint, [it for _, it in told], now())
    at, noted, kept = stamp(now()), [], []
    for (one, it), became in zip(told, done, strict=True):
        if isinstance(became, Damaged):
            kept.append(replace(one.seen, outcome=_refused(DAMAGED)))
        elif isinstance(became, MappingError):
            kept.append(_take_refused(c, endpoint, one, became, now))
        else:
            kept.append(replace(one.seen, outcome=became[0], event_seq=became[1]))
            if it.notes and became[0] != "unchanged":
                noted.append(audit.conversion(it.event, it.notes, at=at, actor=endpoint.name))
    audit.write_many(c, endpoint.tenant_id, noted)
    return kept


def _may_be_ours(c: Connection, endpoint: Endpoint, one: Arrival, link: Link | None) -> bool:
    """Whether a change of what follows from a record may be a write of ours whose outcome is not recorded.

    A worker that was killed, or whose answer was lost, has closed a segment and its ledger does not know yet.
    While the lane goes on, its deliveries find out what it is: they read back before they write.
    """
    if is_telling(one.resource):
        return False
    if link is None or _is_echo(link, one.seen):
        return False
    name = record_of(c, endpoint, link)
    if name is None:
        return False
    event = events.find(c, endpoint.tenant_id, *name)[-1].event
    return deliveries.are_going(c, endpoint.id, lane_key(event))


def _take(c: Connection, endpoint: Endpoint, one: Arrival, link: Link | None, now: Clock) -> RemoteVersion:
    """The version with what became of it; `link` is that of now."""
    if one.error is not None:
        return _take_refused(c, endpoint, one, one.error, now)
    if one.told is None and link is None:
        return replace(one.seen, outcome="ignored", raw="")
    try:
        if link is not None and (one.told is None or not is_telling(one.resource)):
            outcome, seq = _take_part(c, endpoint, one, link, now)
        else:
            assert one.told is not None
            outcome, seq = agreement.accept(c, endpoint, one.told, link, now())
    except MappingError as error:
        return _take_refused(c, endpoint, one, error, now)
    except Damaged:
        return replace(one.seen, outcome=_refused(DAMAGED))
    if one.told is not None and one.told.notes and outcome != "unchanged":
        at = stamp(now())
        audit.converted(c, endpoint.tenant_id, one.told.event, one.told.notes, at=at, actor=endpoint.name)
    return replace(one.seen, outcome=outcome, event_seq=seq)


def _take_refused(
    c: Connection, endpoint: Endpoint, one: Arrival, error: MappingError, now: Clock
) -> RemoteVersion:
    """Kept and named; where it was a record of ours that was edited so, a person is asked."""
    outcome = _refused(error)
    if error is DAMAGED:
        return replace(one.seen, outcome=outcome)
    link = links.find_remote(c, endpoint.id, one.seen.resource_type, one.seen.remote_id)
    name = record_of(c, endpoint, link) if link is not None else None
    if name is not None and name[0] != endpoint.name:
        agreement.ask_rewritten(c, endpoint, name, one.resource, now(), outcome)
    return replace(one.seen, outcome=outcome)


def _refused(error: MappingError) -> str:
    return "refused: " + "; ".join(f"{i.path} {i.rule}" for i in error.issues)


def _take_echoes(c: Connection, endpoint: Endpoint, due: list[Due], now: Clock) -> list[RemoteVersion]:
    """Nothing new; but an EHR that left something out of what we wrote says less than we did."""
    heard: list[Link] = []
    for one, link in due:
        assert link is not None
        told = link.told
        if link.content_hash != one.seen.content_hash and one.told is not None:
            told = dumps(one.told.event).decode()
        heard.append(replace(link, version_id=one.seen.version_id, told=told, deleted_at=None))
    links.save_many(c, heard, now=now())
    if conflicts.are_open(c, endpoint.id):
        for link in heard:
            agreement.settle(c, endpoint, record_of(c, endpoint, link), now())
    return [replace(one.seen, outcome="echo") for one, _ in due]


def _take_part(
    c: Connection, endpoint: Endpoint, one: Arrival, link: Link, now: Clock
) -> tuple[str, int | None]:
    """An edit of what belongs to a record: the record is told anew; what only follows from it is asked."""
    outcome: str = "unchanged"
    seq: int | None = None
    if one.told is not None:
        resource = one.told.resource
        telling = links.find_remote(c, endpoint.id, resource["resourceType"], resource["id"])
        outcome, seq = agreement.accept(c, endpoint, one.told, telling, now())
    if outcome == "unchanged":
        ours = link.ours or remote.raw_of(
            c, endpoint.id, link.resource_type, link.remote_id, link.version_id or ""
        )
        name = record_of(c, endpoint, link)
        if name is not None and not (ours and says_all(loads(ours), one.resource)):
            return agreement.ask_rewritten(c, endpoint, name, one.resource, now()), None
    else:
        ours = None  # an edit: what it is made of is written whole
    saved = replace(link, version_id=one.seen.version_id, content_hash=one.seen.content_hash, ours=ours)
    links.save(c, replace(saved, deleted_at=None), now=now())
    return outcome, seq


# --- what is gone ---------------------------------------------------------------------------------------


def take_deletion(c: Connection, endpoint: Endpoint, type: str, id: str, now: datetime) -> str:
    """A resource is gone, as the EHR said of this id: a tombstone, and a person is asked. The outcome."""
    link = links.find_remote(c, endpoint.id, type, id)
    if link is None:
        return "ignored"
    if link.deleted_at is not None:
        return "unchanged"
    links.set_deleted(c, endpoint.id, type, id, at=stamp(now))
    seen = RemoteVersion(endpoint.tenant_id, endpoint.id, type, id, GONE, None, "", stamp(now), "deleted")
    remote.add(c, [seen], now=now)
    name = record_of(c, endpoint, link)
    return agreement.ask_deleted(c, endpoint, name, link, now) if name is not None else "deleted"


def refusal(store: Store, endpoint: Endpoint, resource: Json) -> str | None:
    """Why this version was refused, if it was."""
    with store.read() as c:
        outcome = _seen(c, endpoint, [resource]).get(_key(_version(endpoint, resource)), "")
    name, _, why = outcome.partition(": ")
    return why if name == "refused" else None
