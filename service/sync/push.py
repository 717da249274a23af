"""One step of a lane: bring what one event says to one EHR, and record what the EHR now holds.

Nothing is sent that the EHR has already, first contact is a conditional create, an update names the
version it replaces, and an answer counts only where each entry names the identity it answers. After an
unknown outcome the EHR is read before anything is sent again (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import mappings
from mappings import identity
from mappings.bundle import dropped, neighbours
from mappings.codes import sid
from mappings.dose_change import ALONE, chain, chain_resources, places
from mappings.event import Event, is_retracted
from mappings.identity import content_hash, resource_identity
from mappings.validate import validate
from service.chain import Damaged
from service.store import audit, conflicts, deliveries, events, links
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.events import StoredEvent
from service.store.links import Link
from service.store.times import stamp

from . import arrival, patients
from .ehr import Ambiguous, Ehr, EhrError, Missing, Stale
from .reading import Reader
from .retry import Act, decide

Json = Any
Key = tuple[str, str]


class Unresolved(Exception):
    """A person must decide before this can be sent; the message says what."""


class Changed(Exception):
    """The EHR's users edited or deleted (`resource` None) something of ours that was not read yet."""

    def __init__(self, type: str, id: str, resource: Json) -> None:
        super().__init__(f"{type}/{id}")
        self.type, self.id, self.resource = type, id, resource


class Held(Exception):
    """A conflict about the record is open."""

    def __init__(self, conflict_id: int) -> None:
        super().__init__(str(conflict_id))
        self.conflict_id = conflict_id


@dataclass(frozen=True, slots=True)
class Wanted:
    """A resource as the EHR should hold it, and what is known of it there."""

    key: Key
    resource: Json
    hash: str
    link: Link | None

    @property
    def is_there(self) -> bool:
        """Also what was deleted there: it is never written again without a person's word."""
        link = self.link
        return link is not None and (link.deleted_at is not None or link.content_hash == self.hash)


def deliver(
    store: Store, ehr: Ehr, endpoint: Endpoint, delivery: Delivery, now: Callable[[], datetime], chance: float
) -> str:
    """Try the delivery once; its new status: sent, pending (to be tried again), failed or parked."""
    try:
        status, made, note = _send(store, ehr, endpoint, delivery)
    except Damaged as error:
        return _failed(store, delivery, "Damaged", str(error), now(), chance, None)
    except Changed as changed:
        return _read_in(store, ehr, endpoint, delivery, changed, now, chance)
    except Held as held:
        with store.write() as c:
            deliveries.hold_for(c, delivery.id, held.conflict_id, now=now())
            _audit(c, delivery, "parked", f"conflict {held.conflict_id}", now())
        return "parked"
    except Unresolved as error:
        return _failed(store, delivery, "Unresolved", str(error), now(), chance, None)
    except EhrError as error:
        name = type(error).__name__
        return _failed(store, delivery, name, f"{name}: {error}", now(), chance, error)
    with store.write() as c:
        for link in made:
            links.save(c, replace(link, event_seq=delivery.event_seq), now=now())
        deliveries.set_sent(c, delivery.id, now=now(), last_status=status, reason=note)
        _audit(c, delivery, "sent", note or "", now())
    return "sent"


def _read_in(
    store: Store,
    ehr: Ehr,
    endpoint: Endpoint,
    delivery: Delivery,
    changed: Changed,
    now: Callable[[], datetime],
    chance: float,
) -> str:
    """What stands in the way is read as by a poll: merged and sent at once, or a conflict holds this."""
    if changed.resource is None:
        with store.write() as c:
            arrival.take_deletion(c, endpoint, changed.type, changed.id, now())
    else:
        try:
            reader = Reader(store, ehr, endpoint)
            taken = arrival.take(store, ehr, reader, endpoint, [changed.resource], now)
        except EhrError as error:
            name = type(error).__name__
            return _failed(store, delivery, name, f"{name}: {error}", now(), chance, error)
        with store.read() as c:
            event = events.by_seq(c, delivery.tenant_id, delivery.event_seq)
            asked = event is not None and _conflict(c, endpoint, delivery, event.event) is not None
        refused = None if asked else arrival.refusal(store, endpoint, changed.resource)
        if refused is not None:
            reason = f"{changed} was edited in the EHR to what cannot be read: {refused}"
            return _failed(store, delivery, "Unresolved", reason, now(), chance, None)
        if not taken and not asked:  # a poll was faster
            return _failed(store, delivery, "Stale", f"{changed} was edited in the EHR", now(), chance, None)
    with store.write() as c:
        deliveries.set_due(c, delivery.id, now=now(), reason=f"{changed} was edited in the EHR: read in")
    return "pending"


def _failed(
    store: Store,
    delivery: Delivery,
    failure: str,
    reason: str,
    now: datetime,
    chance: float,
    error: EhrError | None,
) -> str:
    repeats = delivery.repeats if delivery.failure == failure else 0
    decision = decide(failure, delivery.attempts, repeats, chance, error.retry_after_s if error else None)
    status = error.status if error else None
    with store.write() as c:
        if decision.act is Act.RETRY:
            at = now + decision.delay
            deliveries.set_retry(
                c, delivery.id, now=now, next_try_at=at, failure=failure, last_status=status, reason=reason
            )
            return "pending"
        held = "parked" if decision.act is Act.PARK else "failed"
        deliveries.set_held(
            c, delivery.id, now=now, status=held, failure=failure, last_status=status, reason=reason
        )
        _audit(c, delivery, held, reason, now)
    return held


def _audit(c: Any, delivery: Delivery, action: str, detail: str, now: datetime) -> None:
    subject = f"delivery/{delivery.id}"
    audit.write(
        c, delivery.tenant_id, at=stamp(now), actor="sync", action=action, subject=subject, detail=detail
    )


def _send(
    store: Store, ehr: Ehr, endpoint: Endpoint, delivery: Delivery
) -> tuple[int | None, list[Link], str]:
    """(HTTP status, links to record, note) of a delivery that the EHR has taken in, or had already."""
    with store.read() as c:
        stored = events.by_seq(c, delivery.tenant_id, delivery.event_seq)
        assert stored is not None
        event = stored.event
        versions = events.find(c, delivery.tenant_id, event["source"], event["id"])
        if versions[-1].seq != stored.seq:
            return None, [], f"superseded by version {versions[-1].version}"
        if (conflict := _conflict(c, endpoint, delivery, event)) is not None:
            raise Held(conflict)
        wanted = _wanted(c, endpoint, stored, [v.event for v in versions[:-1]])
    if delivery.attempts:
        wanted = [_read_back(ehr, endpoint, one) for one in wanted]
    due = [one for one in wanted if not one.is_there]
    if not due:
        return None, [one.link for one in wanted if one.link is not None], "unchanged"
    issues = [
        f"{one.resource['resourceType']}: {i.path} {i.rule}" for one in due for i in validate(one.resource)
    ]
    if issues:
        raise Unresolved(f"what would be sent is not valid: {'; '.join(issues[:5])}")
    patient = _patient(ehr, endpoint, event["patient"])
    with store.read() as c:
        bundle = _bundle(endpoint, due, _lookup(c, endpoint, due, patient))
    found = ehr.transaction(bundle)
    return (
        200,
        [*(one.link for one in wanted if one.is_there and one.link), *_answered(endpoint, due, found)],
        "",
    )


def _conflict(c: Any, endpoint: Endpoint, delivery: Delivery, event: Event) -> int | None:
    """The open conflict that this must wait for: its record's, or of a program in the same chain."""
    for found in conflicts.open_in_lane(c, delivery.tenant_id, delivery.lane):
        if found.endpoint_id != endpoint.id:
            continue
        if (found.source, found.event_id) == _key(event):
            return found.id
        if event["type"] == "dose-change":
            other = events.find(c, delivery.tenant_id, found.source, found.event_id)
            if other and other[-1].event["type"] == "dose-change":
                return found.id
    return None


def _wanted(c: Any, endpoint: Endpoint, stored: StoredEvent, earlier: list[Event]) -> list[Wanted]:
    """The event's resources, those of its neighbours in the chain that it changes, and what its earlier
    versions told and it does not."""
    event = stored.event
    place = ALONE
    others: list[Json] = []
    if event["type"] == "dose-change":
        place = neighbours(event, _held_changes(c, endpoint, event)).place
        others = _chain_changes(c, endpoint, event)
    own = mappings.resources(event, place=place, recorded=_milliseconds(stored.received_at))
    gone = [w for w in _known(c, endpoint, dropped(event, earlier)) if w.link is not None]
    changed = [w for w in [*gone, *_known(c, endpoint, others)] if not w.is_there]
    return [*changed, *_known(c, endpoint, own)]


def _milliseconds(stamped: str) -> str:
    """An instant as HAPI keeps it: it cuts what is beyond milliseconds."""
    return f"{stamped[:-4]}Z"


def _held_changes(c: Any, endpoint: Endpoint, event: Event) -> list[Event]:
    """The other dose changes of the pump, as they stand now, that this EHR holds."""
    found = []
    for other in events.timeline(c, endpoint.tenant_id, event["pump"]):
        if other.event["type"] != "dose-change" or _key(other.event) == _key(event):
            continue
        value = identity.business_value(*_key(other.event))
        if links.find(c, endpoint.id, sid("program"), value) is not None:
            found.append(other.event)
    return found


def _chain_changes(c: Any, endpoint: Endpoint, event: Event) -> list[Json]:
    """Program and segment of every other dose change here, where this one puts them."""
    others = [e for e in _held_changes(c, endpoint, event) if not is_retracted(e)]
    ordered = chain([*others, event])
    made: list[Json] = []
    for one, place in zip(ordered, places(ordered), strict=True):
        if _key(one) != _key(event):
            made.extend(chain_resources(one, place))
    return made


def _key(event: Event) -> Key:
    return event["source"], event["id"]


def _known(c: Any, endpoint: Endpoint, resources: Iterable[Json]) -> list[Wanted]:
    found = []
    for resource in resources:
        key = resource_identity(resource)
        found.append(Wanted(key, resource, content_hash(resource), links.find(c, endpoint.id, *key)))
    return found


def _read_back(ehr: Ehr, endpoint: Endpoint, one: Wanted) -> Wanted:
    """What the EHR holds of it now; Changed when somebody edited it there since we last agreed."""
    if one.link is not None and one.link.deleted_at is not None:
        return one
    remote = _remote(ehr, one)
    if remote is None:
        return replace(one, link=None)
    hashed, version = content_hash(remote), remote["meta"]["versionId"]
    agreed = one.link
    if agreed is not None and agreed.version_id != version and hashed not in (agreed.content_hash, one.hash):
        raise Changed(remote["resourceType"], remote["id"], remote)
    return replace(one, link=_link(endpoint, one.key, remote, hashed))


def _remote(ehr: Ehr, one: Wanted) -> Json | None:
    type = one.resource["resourceType"]
    id = one.link.remote_id if one.link is not None else one.key[1] if one.key[0] == "Provenance" else None
    if id is not None:
        try:
            return ehr.read(type, id)
        except Missing as error:
            if one.link is not None:
                raise Changed(type, id, None) from error
            return None
    found = [r for page in ehr.search(type, {"identifier": "|".join(one.key)}) for r in page.resources]
    if len(found) > 1:
        raise Unresolved(f"the EHR holds {len(found)} resources of {type} {one.key[0]}|{one.key[1]}")
    return found[0] if found else None


def _link(endpoint: Endpoint, key: Key, remote: Json, hashed: str) -> Link:
    return Link(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        system=key[0],
        value=key[1],
        resource_type=remote["resourceType"],
        remote_id=remote["id"],
        version_id=remote["meta"]["versionId"],
        content_hash=hashed,
    )


def _patient(ehr: Ehr, endpoint: Endpoint, name: Json) -> str:
    """`Patient/id` of the one patient with this business identifier; Unresolved for none or several."""
    try:
        return f"Patient/{patients.find(ehr, name)}"
    except patients.Unclear as error:
        if not isinstance(error, patients.Nobody) or not endpoint.options.get("create_missing_patients"):
            raise Unresolved(str(error)) from None
    made = ehr.create(
        {"resourceType": "Patient", "identifier": [dict(name)]},
        f"identifier={identity.token(name['system'], name['value'])}",
    )
    return f"Patient/{made['id']}"


def _lookup(c: Any, endpoint: Endpoint, due: list[Wanted], patient: str) -> identity.Lookup:
    within = {one.key for one in due if one.link is None}

    def lookup(type: str, system: str, value: str) -> str | None:
        if type == "Patient":
            return patient
        if (system, value) in within:
            return identity.urn(system, value)
        link = links.find(c, endpoint.id, system, value)
        if link is None or link.deleted_at is not None:
            return None
        return f"{link.resource_type}/{link.remote_id}"

    return lookup


def _bundle(endpoint: Endpoint, due: list[Wanted], lookup: identity.Lookup) -> Json:
    entries = []
    for one in due:
        resource = identity.rewrite_references(one.resource, lookup)
        if not endpoint.options.get("claim_profiles", True):
            resource = {name: value for name, value in resource.items() if name != "meta"}
        type = resource["resourceType"]
        if one.key[0] == "Provenance":
            request = {"method": "PUT", "url": f"Provenance/{one.key[1]}"}
        elif one.link is not None:
            resource = {**resource, "id": one.link.remote_id}
            request = {"method": "PUT", "url": f"{type}/{one.link.remote_id}"}
            request["ifMatch"] = f'W/"{one.link.version_id}"'
        else:
            request = {"method": "POST", "url": type, "ifNoneExist": identity.conditional("", *one.key)[1:]}
        entries.append({"fullUrl": identity.urn(*one.key), "resource": resource, "request": request})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _answered(endpoint: Endpoint, due: list[Wanted], found: list[Json]) -> list[Link]:
    """A link for each entry; Ambiguous where the answer does not name what was asked."""
    if len(found) != len(due):
        raise Ambiguous(f"{len(due)} entries were sent and {len(found)} answered")
    made = []
    for one, remote in zip(due, found, strict=True):
        if remote["resourceType"] != one.resource["resourceType"] or _named(remote) != one.key:
            raise Ambiguous(f"the answer for {one.key[0]}|{one.key[1]} names another resource")
        if one.link is None and one.key[0] != "Provenance" and content_hash(remote) != one.hash:
            raise Stale(f"{one.key[0]}|{one.key[1]} was there already and says something else")
        made.append(_link(endpoint, one.key, remote, one.hash))
    return made


def _named(remote: Json) -> Key | None:
    try:
        return resource_identity(remote)
    except (ValueError, KeyError):
        return None
