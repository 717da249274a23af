"""Parcels to one EHR: as few transactions as it takes, or one resource after the other where it knows none.

A transaction that is refused for what one of its entries may have is sent again in halves, so that a bad
entry never fails its neighbours. An answer counts only where each entry names the identity it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mappings import identity
from mappings.exact_json import dumps
from mappings.identity import content_hash, identified, referenced
from mappings.weave import says_all
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.links import Link

from . import ladder
from .ehr import Ambiguous, Ehr, EhrError, Stale
from .readback import clothed, link_of
from .retry import TABLE
from .shape import Key, Parcel, Wanted

Json = Any
References = dict[Key, str]
"""`Type/id` in this EHR of what resources refer to; a patient stands under its own identifier."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What did not get there: resource types left out, fields of the event that cannot be read back."""

    left_out: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a delivery: links of what the EHR holds now, or the error that it met.

    `kept` are links that the ledger had already: a poll may have renewed them meanwhile.
    `again`: what stood in the way was read in, so it is due at once and no try is counted. `answered`: the
    other side said so, in an answer that has no HTTP status.
    """

    delivery: Delivery
    links: Sequence[Link] = ()
    kept: Sequence[Link] = ()
    note: str = ""
    status: int | None = None
    error: Exception | None = None
    again: bool = False
    answered: bool = False
    rung: str | None = None
    loss: Loss | None = None


@dataclass(frozen=True)
class Answer:
    """A resource as the EHR answered with it."""

    resource: Json

    @cached_property
    def hash(self) -> str:
        return content_hash(self.resource)


@dataclass
class Sending:
    """One endpoint's parcels on their way; `references` grows with what was sent."""

    ehr: Ehr
    endpoint: Endpoint
    references: References
    settle: Callable[[Sequence[Sent]], object]
    transactions: bool = True
    done: list[Sent] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)  # lanes

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Send what can be sent; of a lane nothing goes after a delivery that failed."""
        parcels = [parcel for parcel in parcels if parcel.delivery.lane not in self.failed]
        if not parcels:
            return
        if not self.transactions:
            for parcel in parcels:
                self._one_by_one(parcel)
            return
        due = [one for parcel in parcels for one in parcel.due]
        try:
            found = self.ehr.transaction(self.bundle(due))
            if len(found) != len(due):
                raise Ambiguous(f"{len(due)} entries were sent and {len(found)} answered")
        except EhrError as error:
            if len(parcels) > 1 and TABLE[type(error).__name__].split:
                self._halves(parcels)
            else:
                self._fail(parcels, error)
        except Exception as error:  # a bug with one content: its neighbours go on
            if len(parcels) > 1:
                self._halves(parcels)
            else:
                self._fail(parcels, error)
        else:
            self._count(parcels, found)

    def _one_by_one(self, parcel: Parcel) -> None:
        """A parcel's resources, each alone, what another refers to first; links of what arrived are kept."""
        if parcel.delivery.lane in self.failed:
            return
        made: dict[Key, Link] = {}
        answers: dict[Key, Answer] = {}
        try:
            for one in ordered(parcel.due):
                stored = self.ehr.write(entry(self.endpoint, one, self._lookup))
                answer = Answer(stored)
                (link,) = answered(self.endpoint, [one], [answer])
                made[one.key], answers[one.key] = link, answer
                self.references[one.key] = f"{link.resource_type}/{link.remote_id}"
        except Exception as error:  # of the EHR, or a bug with this content
            self.done.append(Sent(parcel.delivery, list(made.values()), error=error))
            self.failed.add(parcel.delivery.lane)
            return
        self._arrived(parcel, [answers[one.key] for one in parcel.due], list(made.values()))

    def _lookup(self, type: str, system: str, value: str) -> str | None:
        return self.references.get((system, value))

    def _arrived(self, parcel: Parcel, answers: Sequence[Answer], made: Sequence[Link]) -> None:
        links, kept = [*parcel.there(seen=True), *made], parcel.there(seen=False)
        loss = Loss(parcel.plan.left_out, lost(parcel, answers))
        self.done.append(Sent(parcel.delivery, links, kept, status=200, rung=parcel.plan.rung, loss=loss))

    def _halves(self, parcels: Sequence[Parcel]) -> None:
        middle = len(parcels) // 2
        self.send(parcels[:middle])
        # Before the next request: what a poll reads meanwhile must know what we wrote.
        self.settle(self.done)
        self.done = []
        self.send(parcels[middle:])

    def _fail(self, parcels: Sequence[Parcel], error: Exception) -> None:
        for parcel in parcels:
            self.done.append(Sent(parcel.delivery, error=error))
            self.failed.add(parcel.delivery.lane)

    def _count(self, parcels: Sequence[Parcel], found: list[Json]) -> None:
        at = 0
        for parcel in parcels:
            due = parcel.due
            answers, at = [Answer(one) for one in found[at : at + len(due)]], at + len(due)
            try:
                made = answered(self.endpoint, due, answers)
            except EhrError as error:
                self._fail([parcel], error)
                continue
            for link in made:
                self.references[link.system, link.value] = f"{link.resource_type}/{link.remote_id}"
            self._arrived(parcel, answers, made)

    def bundle(self, due: Sequence[Wanted]) -> Json:
        """The transaction of these resources; references lead into it, into the EHR, or stay logical."""
        within = {one.key for one in due if one.link is None}

        def lookup(type: str, system: str, value: str) -> str | None:
            if (system, value) in within:
                return identity.urn(system, value)
            return self._lookup(type, system, value)

        return {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [entry(self.endpoint, one, lookup) for one in due],
        }


def ordered(due: Sequence[Wanted]) -> list[Wanted]:
    """What another refers to first; as they stand where they refer to each other in a ring."""
    left, made = list(due), list[Wanted]()
    while left:
        keys = {one.key for one in left}
        free = [one for one in left if not referenced(one.resource) & (keys - {one.key})]
        taken = free or left[:1]
        made += taken
        left = [one for one in left if one not in taken]
    return made


def lost(parcel: Parcel, answers: Sequence[Answer]) -> tuple[str, ...]:
    """The fields that the plan gives up, and those that the server left out of what it stored."""
    pairs = zip(parcel.due, answers, strict=True)
    # A Provenance tells nothing of the event.
    if all(one.key[0] == "Provenance" or answer.hash == one.hash for one, answer in pairs):
        return parcel.plan.lost
    stored = {one.key: answer.resource for one, answer in zip(parcel.due, answers, strict=True)}
    whole = [stored.get(one.key, one.resource) for one in parcel.wanted]
    gone = ladder.lost(parcel.event, ladder.read_back(parcel.event["type"], whole))
    return tuple(dict.fromkeys((*parcel.plan.lost, *gone)))


def entry(endpoint: Endpoint, one: Wanted, lookup: identity.Lookup) -> Json:
    """First contact creates on the condition that nobody has, an update names the version it replaces."""
    identity.point(one.references, lookup)
    resource = clothed(endpoint, one.resource) if one.woven is None else one.woven
    type = resource["resourceType"]
    if one.link is not None:
        resource = {**resource, "id": one.link.remote_id}
        request = {"method": "PUT", "url": f"{type}/{one.link.remote_id}"}
        request["ifMatch"] = f'W/"{one.link.version_id}"'
    elif one.key[0] == "Provenance":
        request = {"method": "PUT", "url": f"Provenance/{one.key[1]}"}
    else:
        request = {"method": "POST", "url": type, "ifNoneExist": identity.conditional("", *one.key)[1:]}
    return {"fullUrl": identity.urn(*one.key), "resource": resource, "request": request}


def answered(endpoint: Endpoint, due: Sequence[Wanted], found: Sequence[Answer]) -> list[Link]:
    """A link for each resource; Ambiguous where the answer does not name what was asked."""
    made = []
    for one, answer in zip(due, found, strict=True):
        remote = answer.resource
        if remote["resourceType"] != one.resource["resourceType"] or identified(remote) != one.key:
            raise Ambiguous(f"the answer for {one.key[0]}|{one.key[1]} names another resource")
        made.append(_written(endpoint, one, answer))
    return made


def _written(endpoint: Endpoint, one: Wanted, answer: Answer) -> Link:
    """The link after our write; what the EHR holds more than we wrote is others', and stays."""
    remote = answer.resource
    if one.key[0] == "Provenance" or answer.hash == one.hash:
        return link_of(endpoint, one.key, remote, one.hash)
    if one.link is None:
        raise Stale(f"{one.key[0]}|{one.key[1]} was there already and says something else")
    if says_all(one.resource, remote):
        return replace(link_of(endpoint, one.key, remote, answer.hash), ours=dumps(one.resource).decode())
    return link_of(endpoint, one.key, remote, one.hash)
