"""What a delivery wants an EHR to hold: resources, and what is known of each there.

This is where a delivery gets its form; how it is sent is `send`. Several deliveries go together as long as
none of them touches what another one writes: the same identity twice in one transaction loses one of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from sqlalchemy import Connection

from mappings import identity
from mappings.bundle import encode, neighbours
from mappings.codes import sid
from mappings.dose_change import ALONE, chain, chain_resources, places
from mappings.event import Event, is_retracted
from mappings.exact_json import loads
from mappings.identity import content_hash, resource_identity
from service.chain import Damaged
from service.store import conflicts, events, links
from service.store.conflicts import Conflict
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.events import StoredEvent
from service.store.faults import is_outage
from service.store.links import Link

from . import ladder
from .capability import Matrix, cannot_write
from .ladder import NONE, Plan, choose, superseded

Json = Any
Key = tuple[str, str]
ONE_BY_ONE = ("Ambiguous", "Busy", "Bug")
"""Failures after which a delivery travels in ever smaller company: one of them may be to blame for all."""


class Unresolved(Exception):
    """A person must decide before this can be sent; the message says what."""


class Doubled(Unresolved):
    """The EHR holds one identity of ours more than once: a case is opened for it."""

    def __init__(self, type: str, key: Key, remote_ids: Sequence[str]) -> None:
        self.type, self.key, self.remote_ids = type, key, tuple(remote_ids)
        super().__init__(f"the EHR holds {len(remote_ids)} resources of {type} {key[0]}|{key[1]}")


class Held(Exception):
    """A conflict about the record is open."""

    def __init__(self, conflict_id: int) -> None:
        super().__init__(f"conflict {conflict_id}: a person must decide")
        self.conflict_id = conflict_id


@lru_cache(maxsize=1024)  # what is due is asked several times on the way
def _hash_of(ours: str) -> str:
    return content_hash(loads(ours))


@dataclass(frozen=True)
class Wanted:
    """A resource as the EHR should hold it, and what is known of it there; `seen`: read there just now.

    `woven`: the resource with what others added to it there, which is what is written.
    """

    key: Key
    resource: Json
    hash: str
    link: Link | None
    seen: bool = False
    woven: Json | None = None

    @cached_property  # asked at every step on the way
    def is_there(self) -> bool:
        """Also what was deleted there: it is never written again without a person's word."""
        link = self.link
        if link is None or link.deleted_at is not None:
            return link is not None
        return link.content_hash == self.hash or (link.ours is not None and _hash_of(link.ours) == self.hash)

    @property
    def must_be_woven(self) -> bool:
        """Whether others added to it there, and what they added has not been read yet."""
        has_more = self.link is not None and self.link.ours is not None
        return has_more and self.woven is None and not self.is_there

    @cached_property
    def references(self) -> list[identity.Named]:
        """The References in what is written that are our word, not what others added."""
        ours = identity.references(self.resource)
        if self.woven is None:
            return ours
        targets = {identity.target_of(one) for one in ours}
        return [one for one in identity.references(self.woven) if identity.target_of(one) in targets]


@dataclass(frozen=True)
class Parcel:
    """A delivery and its resources; `note` says why there are none."""

    delivery: Delivery
    event: Event
    wanted: tuple[Wanted, ...]
    plan: Plan
    note: str = ""

    @cached_property
    def due(self) -> list[Wanted]:
        return [one for one in self.wanted if not one.is_there]

    def there(self, *, seen: bool) -> list[Link]:
        """The links of what is there already: `seen` just now, or as the ledger has it."""
        return [w.link for w in self.wanted if w.is_there and w.link is not None and w.seen is seen]

    def with_wanted(self, wanted: Iterable[Wanted]) -> Parcel:
        return replace(self, wanted=tuple(wanted))


def room(delivery: Delivery, size: int) -> int:
    """How many resources may travel together: half as many after each failure that may be its own."""
    if delivery.failure in ONE_BY_ONE:
        return max(1, size >> min(delivery.attempts, 30))
    return size


@dataclass(frozen=True)
class Draft:
    """A delivery before its links are known.

    `moved`: other programs' resources that it changes; `gone`: what only its earlier versions told.
    """

    delivery: Delivery
    event: Event
    own: Sequence[Json] = ()
    moved: Sequence[Json] = ()
    gone: Sequence[Json] = ()
    plan: Plan = Plan(NONE)
    note: str = ""

    @cached_property
    def keys(self) -> list[Key]:
        return [resource_identity(resource) for resource in (*self.gone, *self.moved, *self.own)]


def shape(
    c: Connection,
    endpoint: Endpoint,
    matrix: Matrix,
    found: Sequence[Delivery],
    size: int,
    failed: Callable[[Delivery, Exception], None],
) -> list[Parcel]:
    """The first of the deliveries that can travel together: about `size` resources, lanes in order.

    One that cannot be shaped is given to `failed`, and the rest of its lane left out.
    """
    drafts = _drafts(c, endpoint, matrix, found, size, failed)
    linked = links.find_many(c, endpoint.id, [key for draft in drafts for key in draft.keys])
    return [_parcel(draft, linked) for draft in drafts]


def _drafts(
    c: Connection,
    endpoint: Endpoint,
    matrix: Matrix,
    found: Sequence[Delivery],
    size: int,
    failed: Callable[[Delivery, Exception], None],
) -> list[Draft]:
    seqs = [delivery.event_seq for delivery in found]
    stored = events.by_seqs(c, endpoint.tenant_id, seqs)
    versions = events.other_versions(c, endpoint.tenant_id, seqs)
    asked = conflicts.open_in_lanes(c, endpoint, {delivery.lane for delivery in found})
    drafts: list[Draft] = []
    taken: set[Key] = set()
    left: set[str] = set()  # lanes that go no further this time
    chained: set[str] = set()  # lanes whose chain of programs one of the drafts changes
    most = room(found[0], size) if found else size
    for delivery in found:
        of = stored[delivery.event_seq]
        chains = isinstance(of, StoredEvent) and of.event["type"] == "dose-change"
        full = len(taken) >= most or room(delivery, size) < most
        if full or delivery.lane in left or (chains and delivery.lane in chained):
            left.add(delivery.lane)
            continue
        try:
            whole = _whole(of)
            if (conflict := waits_for(c, whole.event, delivery, asked)) is not None:
                raise Held(conflict)
            draft = _draft(c, endpoint, matrix, delivery, whole, versions.get(delivery.event_seq, []))
            keys = set(draft.keys)
        except Exception as error:  # a bug with this one content: its neighbours go on
            if is_outage(error):
                raise
            failed(delivery, error)
            left.add(delivery.lane)
            continue
        if keys & taken or (drafts and len(taken | keys) > most):
            left.add(delivery.lane)
            continue
        drafts.append(draft)
        taken |= keys
        if chains:
            chained.add(delivery.lane)
    return drafts


def _whole(found: StoredEvent | Damaged) -> StoredEvent:
    if isinstance(found, Damaged):
        raise found
    return found


def superseded_by(stored: StoredEvent, versions: Sequence[StoredEvent | Damaged]) -> int | None:
    """The newest of the other versions of a record, where it is newer than this one; raises `Damaged`."""
    return max((v for other in versions if (v := _whole(other).version) > stored.version), default=None)


def waits_for(c: Connection, event: Event, delivery: Delivery, asked: Sequence[Conflict]) -> int | None:
    """The open conflict that this must wait for: its record's, or of a program in the same chain."""
    for found in asked:
        if found.lane != delivery.lane:
            continue
        if (found.source, found.event_id) == _name(event):
            return found.id
        if event["type"] == "dose-change":
            other = events.find(c, delivery.tenant_id, found.source, found.event_id)
            if other and other[-1].event["type"] == "dose-change":
                return found.id
    return None


def _draft(
    c: Connection,
    endpoint: Endpoint,
    matrix: Matrix,
    delivery: Delivery,
    stored: StoredEvent,
    versions: Sequence[StoredEvent | Damaged],
) -> Draft:
    event = stored.event
    others = [_whole(other) for other in versions]
    if newest := superseded_by(stored, others):
        return Draft(delivery, event, note=f"superseded by version {newest}")
    encoded = encode(event)
    plan = choose(matrix, event, encoded)
    if plan.rung == NONE:
        raise Unresolved(f"this server can take no form of it: {'; '.join(plan.why)}")
    place = ALONE
    moved: list[Json] = []
    if event["type"] == "dose-change" and plan.rung != "chart":
        held = _held_changes(c, endpoint, event)
        around = neighbours(event, held)
        place = around.place
        # A first version only moves its neighbours; a later one may have left a place that must be mended.
        moved = _chain_changes(event, held) if others else around.changed
        moved = [resource for resource in moved if resource["resourceType"] in plan.types]
    if place != ALONE:
        encoded = encode(event, place)
    recorded = _milliseconds(stored.received_at)
    own = ladder.shape(plan, event, encoded, recorded=recorded)
    return Draft(delivery, event, own, moved, _gone(matrix, delivery, event, plan, others), plan)


def _gone(
    matrix: Matrix, delivery: Delivery, event: Event, plan: Plan, others: Sequence[StoredEvent]
) -> list[Json]:
    """What other versions told and this one does not, and what was sent before the server took more."""
    if not others and delivery.rung in (None, plan.rung):
        return []
    gone = superseded(plan, event, [other.event for other in others])
    return [resource for resource in gone if not cannot_write(matrix, resource["resourceType"])]


def _parcel(draft: Draft, linked: Mapping[Key, Link]) -> Parcel:
    """What the EHR never had need not be withdrawn there."""
    gone = [one for one in _known(draft.gone, linked) if one.link is not None]
    beside = [one for one in (*gone, *_known(draft.moved, linked)) if not one.is_there]
    return Parcel(draft.delivery, draft.event, (*beside, *_known(draft.own, linked)), draft.plan, draft.note)


def _known(resources: Iterable[Json], linked: Mapping[Key, Link]) -> list[Wanted]:
    listed = [(resource_identity(resource), resource) for resource in resources]
    return [Wanted(key, resource, content_hash(resource), linked.get(key)) for key, resource in listed]


def _milliseconds(stamped: str) -> str:
    """An instant as HAPI keeps it: it cuts what is beyond milliseconds."""
    return f"{stamped[:-4]}Z"


def _held_changes(c: Connection, endpoint: Endpoint, event: Event) -> list[Event]:
    """The other dose changes of the pump, as they stand now, that this EHR holds."""
    changes = [
        other.event
        for other in events.timeline(c, endpoint.tenant_id, event["pump"], type="dose-change")
        if _name(other.event) != _name(event)
    ]
    keys = [(sid("program"), identity.business_value(*_name(other))) for other in changes]
    linked = links.find_many(c, endpoint.id, keys)
    return [other for other, key in zip(changes, keys, strict=True) if key in linked]


def unlinked_chain(c: Connection, endpoint: Endpoint, event: Event) -> list[Json]:
    """Programs and segments of the pump's other dose changes that the EHR is not known to hold."""
    changes = events.timeline(c, endpoint.tenant_id, event["pump"], type="dose-change")
    made = [
        one
        for other in changes
        if _name(other.event) != _name(event)
        for one in chain_resources(other.event, ALONE)
    ]
    linked = links.find_many(c, endpoint.id, [resource_identity(one) for one in made])
    return [one for one in made if resource_identity(one) not in linked]


def _chain_changes(event: Event, held: list[Event]) -> list[Json]:
    """Program and segment of every other dose change there, where this one puts them."""
    ordered = chain([*(e for e in held if not is_retracted(e)), event])
    made: list[Json] = []
    for one, place in zip(ordered, places(ordered), strict=True):
        if _name(one) != _name(event):
            made.extend(chain_resources(one, place))
    return made


def _name(event: Event) -> Key:
    return event["source"], event["id"]
