"""One step: bring what some deliveries say to one EHR, and tell what it holds now.

Nothing is sent that the EHR has already. After a try whose outcome is not known, the EHR is read before
anything is sent again (docs/decisions/0006). `shape` says what is wanted, `send` how it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mappings import identity
from mappings.identity import content_hash, resource_identity
from mappings.validate import validate
from service.store import conflicts, links
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.engine import Store

from . import arrival, survey
from .capability import Matrix, finding
from .ehr import Busy, Ehr, EhrError, Missing, Refused, Stale
from .patient_cache import Name, Patients
from .readback import Changed, find, link_of, read_back
from .reading import Reader
from .send import Loss, Sending, Sent
from .shape import Key, Parcel, Unresolved, shape, unlinked_chain, waits_for

Json = Any


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one EHR: where the ledger is, how the EHR is reached, who its patients are.

    `beside`: how many threads go it side by side, and so share the lanes that are due.
    """

    store: Store
    ehr: Ehr
    endpoint: Endpoint
    patients: Patients
    now: Callable[[], datetime]
    beside: int = 1

    @property
    def size(self) -> int:
        """About how many resources go in one transaction."""
        return int(self.endpoint.options.get("batch_size", 50))

    @property
    def matrix(self) -> Matrix:
        """What the server can do, asked when it was never asked; raises `EhrError`."""
        return survey.matrix_of(self.store, self.ehr, self.endpoint, self.now)


Settle = Callable[[Sequence[Sent]], object]
"""Commits what became of some deliveries, when more is still to be sent."""


def deliver(route: Route, found: Sequence[Delivery], settle: Settle) -> list[Sent]:
    """What became of the first deliveries of each lane; those that there was no room for are left out.

    So are those that `settle` was given already.
    """
    done: list[Sent] = []
    try:
        matrix = route.matrix
    except EhrError as error:
        return [Sent(delivery, error=error) for delivery in found]

    def failed(delivery: Delivery, error: Exception) -> None:
        done.append(Sent(delivery, error=error))

    try:
        with route.store.read() as c:
            parcels = shape(c, route.endpoint, matrix, found, route.size, failed)
        return done + _bring(route, matrix, parcels, settle)
    except EhrError as error:  # reading back, or looking for patients: nothing of it was sent
        told = {sent.delivery.id for sent in done}
        return done + [Sent(p.delivery, error=error) for p in parcels if p.delivery.id not in told]


def _bring(route: Route, matrix: Matrix, parcels: list[Parcel], settle: Settle) -> list[Sent]:
    done: list[Sent] = []
    failed: set[str] = set()

    def stop(parcel: Parcel, error: Exception) -> None:
        done.append(Sent(parcel.delivery, error=error))
        failed.add(parcel.delivery.lane)

    tried = [p for p in parcels if p.wanted and _must_be_read(p, matrix)]
    if tried:
        read, stuck = read_back(route.ehr, route.endpoint, tried, _among(route, matrix, tried), route.now())
        now_known = {parcel.delivery.id: parcel for parcel in read}
        asked = {parcel.delivery.id: parcel for parcel in tried}
        for parcel in read:
            if _was_there(asked[parcel.delivery.id], parcel) and _link_chain(route, matrix, parcel):
                done.append(
                    Sent(parcel.delivery, note="the EHR holds later programs of the pump", again=True)
                )
                failed.add(parcel.delivery.lane)
        for parcel, error in stuck:
            if isinstance(error, Changed):
                done.append(_read_in(route, parcel, error))
                failed.add(parcel.delivery.lane)
            else:
                stop(parcel, error)
        parcels = [now_known.get(parcel.delivery.id, parcel) for parcel in parcels]
    for parcel in parcels:
        issues = [
            f"{one.resource['resourceType']}: {i.path} {i.rule}"
            for one in parcel.due
            for i in validate(one.resource)
        ]
        if issues and parcel.delivery.lane not in failed:
            stop(parcel, Unresolved(f"what would be sent is not valid: {'; '.join(issues[:5])}"))
    names = {_patient(parcel) for parcel in _going(parcels, failed) if parcel.due}
    believed = {name for name in names if route.patients.known(name)}
    patients = route.patients.resolve(route.ehr, names) if names else {}
    for parcel in parcels:
        who = patients.get(_patient(parcel))
        if parcel.due and isinstance(who, Unresolved) and parcel.delivery.lane not in failed:
            stop(parcel, who)
    found = {name: who for name, who in patients.items() if isinstance(who, str)}
    about = {parcel.delivery.id: _patient(parcel) for parcel in parcels}

    def doubted(sent: Sequence[Sent]) -> list[Sent]:
        return [_doubted(route, one, about[one.delivery.id], believed) for one in sent]

    going = _going(parcels, failed)
    sent = _send(route, matrix, going, found, lambda some: settle(doubted(some)))
    return done + doubted(sent)


def _was_there(before: Parcel, parcel: Parcel) -> bool:
    """Whether the EHR holds a program that the ledger did not know to be there."""
    return parcel.event["type"] == "dose-change" and any(
        old.link is None and new.link is not None
        for old, new in zip(before.wanted, parcel.wanted, strict=True)
    )


def _link_chain(route: Route, matrix: Matrix, parcel: Parcel) -> bool:
    """Link the programs of a pump that the EHR holds from a ledger that was lost; whether there were any.

    A ledger restored from a backup would else write each program as if it were the last, and the one that
    it replaced long ago would be active in the chart until the next delivery.
    """
    endpoint = route.endpoint
    with route.store.read() as c:
        unknown = unlinked_chain(c, endpoint, parcel.event)
    types = {
        resource_identity(one): one["resourceType"]
        for one in unknown
        if one["resourceType"] in parcel.plan.types
    }
    patients: dict[Key, str] = {}
    if any(finding(matrix, type) == "patient" for type in types.values()):
        who = route.patients.resolve(route.ehr, {_patient(parcel)})[_patient(parcel)]
        patients = {key: who for key in types if isinstance(who, str)}
    found = find(route.ehr, list(types), types, patients)
    once = [(key, held[0]) for key, held in found.items() if len(held) == 1]
    made = [link_of(endpoint, key, resource, content_hash(resource)) for key, resource in once]
    with route.store.write() as c:
        links.save_many(c, made, now=route.now())
    return bool(made)


def _nothing(parcel: Parcel) -> Sent:
    """Of a delivery that the EHR has already, or that a later version has made needless."""
    seen, kept, note = parcel.there(seen=True), parcel.there(seen=False), parcel.note or "unchanged"
    if not parcel.wanted:
        return Sent(parcel.delivery, seen, kept, note)
    loss = Loss(parcel.plan.left_out, parcel.plan.lost)
    return Sent(parcel.delivery, seen, kept, note, rung=parcel.plan.rung, loss=loss)


def _must_be_read(parcel: Parcel, matrix: Matrix) -> bool:
    """Whether the EHR is read before anything is sent: what a try did, or what others added, is not known."""
    unknown = parcel.delivery.attempts > 0 or _could_double(parcel, matrix)
    return unknown or any(one.must_be_woven for one in parcel.wanted)


def _could_double(parcel: Parcel, matrix: Matrix) -> bool:
    """Whether a resource would be created without a condition: a worker that was killed may have done so."""
    return any(
        one.link is None
        and one.key[0] != "Provenance"
        and not matrix.of(one.resource["resourceType"]).conditional_create
        for one in parcel.due
    )


def _among(route: Route, matrix: Matrix, parcels: Sequence[Parcel]) -> dict[Key, str]:
    """`Patient/id` of those identities that are found only among their patient's resources."""
    wanted = {
        one.key: _patient(parcel)
        for parcel in parcels
        for one in parcel.wanted
        if one.link is None and finding(matrix, one.resource["resourceType"]) == "patient"
    }
    patients = route.patients.resolve(route.ehr, set(wanted.values())) if wanted else {}
    return {key: who for key, name in wanted.items() if isinstance(who := patients.get(name), str)}


def _doubted(route: Route, sent: Sent, who: Name, believed: set[Name]) -> Sent:
    """A refusal may be about a patient who was believed to be there and is not any more: ask again."""
    if who not in believed or not isinstance(sent.error, (Refused, Missing)):
        return sent
    route.patients.forget([who])
    error = sent.error
    return replace(sent, error=Busy(f"{error}; the patient is looked up again", error.status))


def _read_in(route: Route, parcel: Parcel, changed: Changed) -> Sent:
    """What stands in the way is read as by a poll: merged and sent at once, or a conflict holds this."""
    store, endpoint, delivery = route.store, route.endpoint, parcel.delivery
    if changed.resource is None:
        with store.write() as c:
            arrival.take_deletion(c, endpoint, changed.type, changed.id, route.now())
        return Sent(delivery, note=f"{changed} was deleted in the EHR: read in", again=True)
    try:
        reader = Reader(store, route.ehr, endpoint)
        taken = arrival.take(store, route.ehr, reader, endpoint, [changed.resource], route.now)
    except EhrError as error:
        return Sent(delivery, error=error)
    with store.read() as c:
        asked = conflicts.open_in_lanes(c, endpoint, [delivery.lane])
        conflict = waits_for(c, parcel.event, delivery, asked)
    if conflict is None:
        refused = arrival.refusal(store, endpoint, changed.resource)
        if refused is not None:
            why = f"{changed} was edited in the EHR to what cannot be read: {refused}"
            return Sent(delivery, error=Unresolved(why))
        if not taken:  # a poll was faster
            return Sent(delivery, error=Stale(f"{changed} was edited in the EHR"))
    return Sent(delivery, note=f"{changed} was edited in the EHR: read in", again=True)


def _going(parcels: Iterable[Parcel], failed: set[str]) -> list[Parcel]:
    return [parcel for parcel in parcels if parcel.delivery.lane not in failed]


def _patient(parcel: Parcel) -> Name:
    return parcel.event["patient"]["system"], parcel.event["patient"]["value"]


def _send(
    route: Route, matrix: Matrix, parcels: list[Parcel], patients: dict[Name, str], settle: Settle
) -> list[Sent]:
    going: list[Parcel] = []
    nothing: list[Sent] = []
    behind: set[str] = set()
    for parcel in parcels:
        if parcel.due:
            going.append(parcel)
            behind.add(parcel.delivery.lane)
        elif parcel.delivery.lane not in behind:  # else it waits for the one before it
            nothing.append(_nothing(parcel))
    if not going:
        return nothing
    # What was read back is not in the database yet; referred to by identifier now, it would be by id later.
    linked = {one.key: one.link for parcel in parcels for one in parcel.wanted if one.link is not None}
    due = [one for parcel in going for one in parcel.due]
    named = {identity.target_of(found) for one in due for found in one.references}
    asked = named - {one.key for one in due} - linked.keys() - patients.keys()
    with route.store.read() as c:
        linked |= links.find_many(c, route.endpoint.id, asked)
    references = {
        key: f"{link.resource_type}/{link.remote_id}"
        for key, link in linked.items()
        if link.deleted_at is None
    }
    sending = Sending(route.ehr, route.endpoint, references | patients, settle, matrix.transactions)
    sending.send(going)
    return nothing + sending.done
