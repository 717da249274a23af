"""Compare what an EHR holds with the ledger, and mend what may be mended: `itb reconcile`.

The ledger is walked in batches, so memory is bounded and a run can stop and go on. Of each record that the
EHR should hold its resources are looked up by identifier and compared by content. A difference counts only
when it is still there after the ledger was asked again: somebody may have written meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mappings.codes import sid
from mappings.event import Event
from mappings.identity import KINDS as OUR_KINDS
from mappings.identity import content_hash, identified, resource_identity
from service.chain import Damaged
from service.store import audit, deliveries, drift, events, links, remote
from service.store.drift import Found, Run
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.links import Link
from service.store.times import stamp

from . import arrival, capability, ladder
from .capability import Matrix
from .drift import ASK, KINDS, RESEND, TAKE_IN, Agreed, Finding, judge
from .ehr import Ehr, Missing
from .readback import find
from .reading import Reader

Json = Any
Key = tuple[str, str]
BATCH = 100
"""Records compared at a time."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record that the EHR should hold: its event, its delivery there, and its resources' identities."""

    event: Event
    delivery_id: int | None
    types: dict[Key, str]
    unread: frozenset[str] = frozenset()


@dataclass(slots=True)
class Batch:
    """Some records beside what is linked and held of them."""

    records: list[Record]
    linked: dict[Key, Link]
    held: dict[Key, list[Json]] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    reused: set[Key] = field(default_factory=set)

    @property
    def types(self) -> dict[Key, str]:
        return {key: type for record in self.records for key, type in record.types.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One EHR and the ledger; with `fix` what may be mended is."""

    store: Store
    ehr: Ehr
    endpoint: Endpoint
    matrix: Matrix
    now: Callable[[], datetime]
    fix: bool = False

    def batches(self, run: Run, advance: Callable[[int], None]) -> Iterator[Run]:
        """The run after each batch; raises `EhrError` with what was found so far kept."""
        while True:
            with self.store.read() as c:
                settled = drift.settled(c, self.endpoint, after_seq=run.cursor, limit=BATCH)
                if not settled:
                    return
                batch = self._batch(c, settled)
            self._look(batch)
            run = self._judged(run, batch, settled[-1].seq)
            advance(len(settled))
            yield run

    # --- what should be there, and what is -----------------------------------------------------------------

    def _batch(self, c: Connection, settled: Sequence[drift.Settled]) -> Batch:
        stored = events.by_seqs(c, self.endpoint.tenant_id, [one.seq for one in settled])
        records = []
        for one in settled:
            found = stored[one.seq]
            if isinstance(found, Damaged):
                continue  # `itb verify` tells of it; what it said cannot be compared
            event = found.event
            plan = ladder.choose(self.matrix, event)
            made = ladder.shape(plan, event)
            types = {resource_identity(resource): resource["resourceType"] for resource in made}
            records.append(Record(event, one.delivery_id, types, frozenset(plan.lost)))
        linked = links.find_many(c, self.endpoint.id, [key for record in records for key in record.types])
        known = [
            record if record.delivery_id is not None else replace(record, types=_linked(record.types, linked))
            for record in records
        ]
        return Batch(known, linked)

    def _look(self, batch: Batch) -> None:
        """Fill in what the EHR holds: by identifier, else by the id that is linked."""
        types = batch.types
        by_patient = {
            key for key, type in types.items() if capability.finding(self.matrix, type) == "patient"
        }
        batch.held = find(self.ehr, types.keys() - by_patient, types)
        self._look_by_patient(batch, by_patient)
        for key, type in types.items():
            link = batch.linked.get(key)
            if key in batch.held or link is None or link.deleted_at is not None:
                continue
            try:
                resource = self.ehr.read(type, link.remote_id)
            except Missing as error:
                if error.status == 410:
                    batch.gone.add(key)
                continue
            if identified(resource) in (None, key):  # without one of ours it is the EHR's own record
                batch.held[key] = [resource]
        with self.store.read() as c:
            for type in set(types.values()):
                keys = [key for key, link in batch.linked.items() if link.resource_type == type]
                batch.reused |= _reused(c, self.endpoint, batch, type, keys)

    def _look_by_patient(self, batch: Batch, keys: set[Key]) -> None:
        """For servers without a search by identifier: among all of a type that its patient has."""
        of = {
            key: (record.event["patient"]["system"], record.event["patient"]["value"])
            for record in batch.records
            for key in record.types.keys() & keys
        }
        patients = find(self.ehr, set(of.values()), dict.fromkeys(of.values(), "Patient"))
        among = {
            key: f"Patient/{found[0]['id']}" for key, name in of.items() if (found := patients.get(name))
        }
        batch.held |= find(self.ehr, list(among), batch.types, among)

    # --- how it differs ------------------------------------------------------------------------------------

    def _judged(self, run: Run, batch: Batch, upto: int) -> Run:
        found = [one for record in batch.records for one in self._findings(batch, record)]
        edited: list[Json] = []
        with self.store.write() as c:
            found = self._still(c, run, batch, found)
            kept = [self._kept(c, batch, record, one, edited) for record, one in found]
            self._close_cases(c, batch, {one.key for _, one in found})
            run = _counted(run, [one for _, one in found], upto, len(batch.records))
            drift.add(c, run, kept)
            drift.save(c, run)
        if edited:
            arrival.take(
                self.store,
                self.ehr,
                Reader(self.store, self.ehr, self.endpoint),
                self.endpoint,
                edited,
                self.now,
            )
        return run

    def _findings(self, batch: Batch, record: Record) -> list[tuple[Record, Finding]]:
        found = []
        for key, type in record.types.items():
            held = batch.held.get(key, [])
            one = judge(
                type,
                key,
                _agreed(batch.linked.get(key)),
                held,
                gone=key in batch.gone,
                reused=key in batch.reused,
            )
            if one is not None:
                found.append((record, one))
        if record.delivery_id is not None and all(one.type == "Provenance" for _, one in found):
            found += self._stale(batch, record)
        return found

    def _stale(self, batch: Batch, record: Record) -> list[tuple[Record, Finding]]:
        """What the EHR tells of the record, where it can be read, and is not what the ledger says."""
        resources = [resource for key in record.types for resource in batch.held.get(key, [])]
        back = ladder.read_back(record.event["type"], resources)
        if (back.get("source"), back.get("id")) != (record.event["source"], record.event["id"]):
            return []
        fields = [name for name in ladder.lost(record.event, back) if name not in record.unread]
        if not fields:
            return []
        key, type = next(iter(record.types.items()))
        return [(record, Finding("stale", type, key, f"tells otherwise: {', '.join(fields)}"))]

    def _still(
        self, c: Connection, run: Run, batch: Batch, found: Sequence[tuple[Record, Finding]]
    ) -> list[tuple[Record, Finding]]:
        """Without what was written meanwhile, is on its way, or was found before in this run."""
        keys = [one.key for _, one in found]
        now = links.find_many(c, self.endpoint.id, keys)
        before = drift.known(c, run.id, keys)
        waiting = deliveries.not_sent(c, [record.delivery_id for record, _ in found if record.delivery_id])
        left = []
        for record, one in found:
            if (
                one.key in before
                or record.delivery_id in waiting
                or now.get(one.key) != batch.linked.get(one.key)
            ):
                continue
            before.add(one.key)
            left.append((record, one))
        return left

    # --- what is done about it -----------------------------------------------------------------------------

    def _kept(self, c: Connection, batch: Batch, record: Record, one: Finding, edited: list[Json]) -> Found:
        repaired = None
        if one.kind == "duplicate":
            case = drift.open_case(
                c, self.endpoint, "duplicate", one.type, one.key, one.remote_ids, now=self.now()
            )
            repaired = f"case {case}"
        elif self.fix:
            repaired = self._repair(c, batch, record, one, edited)
        return Found(one.kind, one.type, *one.key, list(one.remote_ids), one.reason, repaired)

    def _repair(
        self, c: Connection, batch: Batch, record: Record, one: Finding, edited: list[Json]
    ) -> str | None:
        repair = KINDS[one.kind].repair
        link, held = batch.linked.get(one.key), batch.held.get(one.key, [])
        if repair == RESEND and record.delivery_id is not None:
            self._relink(c, one, link, held)
            deliveries.reopen(c, self.endpoint, [record.delivery_id], now=self.now())
            return f"delivery {record.delivery_id} is due again"
        if repair == TAKE_IN:
            if (
                link is not None and one.key in batch.reused
            ):  # its number says nothing: it must not look like ours
                links.save(c, replace(link, version_id=None), now=self.now())
            edited += held
            return "read into the ledger"
        if repair == ASK and link is not None and one.kind == "deleted":
            return arrival.take_deletion(c, self.endpoint, one.type, link.remote_id, self.now())
        return None

    def _relink(self, c: Connection, one: Finding, link: Link | None, held: Sequence[Json]) -> None:
        """What is known of the resource there, so that exactly it is sent again."""
        if one.kind == "missing":
            links.forget(c, self.endpoint.id, *one.key)
        elif link is not None and held:
            (resource,) = held
            hashed = None if one.kind == "stale" else content_hash(resource)
            version = str(resource["meta"]["versionId"])
            links.save(
                c,
                replace(link, remote_id=resource["id"], version_id=version, content_hash=hashed, ours=None),
                now=self.now(),
            )

    def _close_cases(self, c: Connection, batch: Batch, found: set[Key]) -> None:
        once = [key for key, held in batch.held.items() if len(held) == 1 and key not in found]
        for id in drift.open_cases_of(c, self.endpoint.id, once).values():
            drift.close_case(c, self.endpoint.tenant_id, id, "is there once now", now=self.now())

    # --- what nobody expects -------------------------------------------------------------------------------

    def extras(self, run: Run) -> Run:
        """What the EHR holds under identifiers of ours that was never delivered there."""
        for type, kinds in OUR_KINDS.items():
            if capability.finding(self.matrix, type) != "identifier":
                continue
            for kind in kinds:
                for page in self.ehr.search(type, {"identifier": f"{sid(kind)}|"}):
                    run = self._extra(run, type, page.resources)
        return run

    def _extra(self, run: Run, type: str, resources: Sequence[Json]) -> Run:
        named = {key: resource for resource in resources if (key := identified(resource)) is not None}
        with self.store.write() as c:
            linked = links.find_many(c, self.endpoint.id, list(named))
            unknown = named.keys() - linked.keys() - drift.known(c, run.id, list(named))
            found = [
                Finding("extra", type, key, KINDS["extra"].words, (named[key]["id"],))
                for key in sorted(unknown)
            ]
            kept = [Found(one.kind, type, *one.key, list(one.remote_ids), one.reason) for one in found]
            run = _counted(run, found, run.cursor, 0)
            drift.add(c, run, kept)
            drift.save(c, run)
        return run


def reconcile(
    comparison: Comparison, begun_by: str, advance: Callable[[int], None] = lambda number: None
) -> Run:
    """One whole comparison, from the first record to what nobody expects; raises `EhrError`."""
    with comparison.store.write() as c:
        last = drift.begin(c, comparison.endpoint, begun_by, now=comparison.now())
    for run in comparison.batches(last, advance):
        last = run
    return finish(comparison, comparison.extras(last))


def finish(comparison: Comparison, run: Run) -> Run:
    """End a run, and write down what it came to."""
    endpoint, now = comparison.endpoint, comparison.now()
    with comparison.store.write() as c:
        drift.save(c, run, finished=now)
        said = ", ".join(f"{number} {kind}" for kind, number in run.counts.items()) or "no difference"
        audit.write(
            c,
            endpoint.tenant_id,
            at=stamp(now),
            actor=run.begun_by,
            action="reconcile",
            subject=f"endpoint/{endpoint.name}",
            detail=f"{run.compared} records: {said}",
        )
    return run


def _counted(run: Run, found: Iterable[Finding], cursor: int, compared: int) -> Run:
    counts = dict(run.counts)
    for one in found:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    return replace(run, counts=counts, cursor=cursor, compared=run.compared + compared)


def _agreed(link: Link | None) -> Agreed | None:
    if link is None:
        return None
    return Agreed(link.remote_id, link.version_id, link.content_hash, link.deleted_at is not None)


def _linked(types: dict[Key, str], linked: dict[Key, Link]) -> dict[Key, str]:
    return {key: type for key, type in types.items() if key in linked}


def _reused(c: Connection, endpoint: Endpoint, batch: Batch, type: str, keys: Sequence[Key]) -> set[Key]:
    """Whose agreed version was seen before with another content than it has now."""
    ids = [batch.linked[key].remote_id for key in keys]
    seen = remote.seen(c, endpoint.id, type, ids)
    found = set()
    for key in keys:
        link, held = batch.linked[key], batch.held.get(key, [])
        hashes = {
            hashed for (id, version, hashed) in seen if (id, version) == (link.remote_id, link.version_id)
        }
        if len(held) == 1 and hashes and content_hash(held[0]) not in hashes:
            found.add(key)
    return found
