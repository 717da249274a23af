"""How a sent event gets into the ledger: loaded, checked against what the ledger knows, and accepted.

Events are independent: one that is refused never stops another. Several share a database transaction,
and a result is given out only when that transaction is on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from mappings import exact_json
from mappings.event import Event, identity, is_retracted, load_event, occurred, pump_of, version
from mappings.rows import Issue, MappingError
from mappings.stream import capacity_issues

from .chain import Damaged
from .store import audit, deliveries, endpoints, events
from .store.engine import Store
from .store.events import Accepted, content_hash
from .store.keys import Caller
from .store.times import stamp

Json = Any
PER_TRANSACTION = 50
OUTCOMES = ("accepted", "replayed", "corrected", "conflict", "rejected")


@dataclass(frozen=True, slots=True)
class Loaded:
    """One sent event: canonical, or the reasons why not; `source` and `id` as far as they can be read."""

    source: str | None
    id: str | None
    event: Event | None
    issues: tuple[Issue, ...] = ()
    notes: tuple[Issue, ...] = ()
    """What was converted on the way here: kept in the audit."""
    revises: bool = False
    """Other content of a known record is its next version: its sender counts no versions."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one sent event."""

    source: str | None
    id: str | None
    outcome: str
    seq: int | None = None
    issues: tuple[Issue, ...] = ()
    deliveries: tuple[Json, ...] = ()


def load(raw: Json) -> Loaded:
    """An event from parsed JSON."""
    try:
        event = load_event(raw)
    except MappingError as error:
        return Loaded(_name(raw, "source"), _name(raw, "id"), None, tuple(error.issues))
    return Loaded(*identity(event), event)


def load_line(line: bytes) -> Loaded:
    """An event from one line of NDJSON."""
    try:
        return load(exact_json.loads(line))
    except MappingError as error:
        return Loaded(None, None, None, tuple(error.issues))


def _name(raw: Json, key: str) -> str | None:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, str) and len(value) <= 200 else None


def take(
    store: Store, caller: Caller, sent: Iterable[Loaded], *, clock: Callable[[], datetime]
) -> Iterator[Result]:
    """A result for each sent event, in order."""
    waiting = iter(sent)
    while batch := list(islice(waiting, PER_TRANSACTION)):
        with store.write() as c:
            targets = endpoints.every(c, caller.tenant_id)
            results = [_take_one(c, caller, loaded, targets, clock()) for loaded in batch]
        yield from results


MOST_REHEARSED = 20_000
"""Events of a rehearsal, which keeps every writer of the ledger waiting until it ends."""


class TooMany(Exception):
    """More events than one rehearsal takes."""


class _Undone(Exception):
    """Ends the transaction of a rehearsal."""


def rehearse(
    store: Store, caller: Caller, sent: Iterable[Loaded], *, clock: Callable[[], datetime]
) -> Iterator[Result]:
    """What `take` would give, with nothing kept: the same steps in one transaction that is undone.

    Raises `TooMany` beyond MOST_REHEARSED.
    """
    results = []
    try:
        with store.write() as c:
            targets = endpoints.every(c, caller.tenant_id)
            for loaded in sent:
                results.append(_take_one(c, caller, loaded, targets, clock()))
                if len(results) > MOST_REHEARSED:
                    why = (
                        f"a dry run takes at most {MOST_REHEARSED} records: the ledger's writers wait for it"
                    )
                    raise TooMany(f"{why}; split the file, or use a copy of the ledger")
            raise _Undone
    except _Undone:
        yield from results


def _take_one(
    c: Connection, caller: Caller, loaded: Loaded, targets: Sequence[endpoints.Endpoint], now: datetime
) -> Result:
    if loaded.event is None:
        return Result(loaded.source, loaded.id, "rejected", issues=loaded.issues)
    try:
        event = _revised(c, caller.tenant_id, loaded.event) if loaded.revises else loaded.event
        done = admit(c, caller.tenant_id, event, received_at=now, actor=caller.name, endpoints=targets)
    except MappingError as error:
        return Result(loaded.source, loaded.id, "rejected", issues=tuple(error.issues))
    except Damaged as error:  # what it must be checked against cannot be trusted; its neighbours go on
        issue = Issue("$", "ledger-damaged", f"{error}; send this again when the ledger is mended")
        return Result(loaded.source, loaded.id, "rejected", issues=(issue,))
    if done.seq is None:
        issue = Issue("version", "conflict", done.reason or "")
        return Result(loaded.source, loaded.id, "conflict", issues=(issue,))
    if loaded.notes and done.outcome != "replayed":
        audit.converted(c, caller.tenant_id, event, loaded.notes, at=stamp(now), actor=caller.name)
    names = {endpoint.id: endpoint.name for endpoint in targets}
    sending = tuple(
        {"id": d.id, "endpoint": names[d.endpoint_id], "status": d.status}
        for d in deliveries.of_event(c, done.seq)
    )
    return Result(loaded.source, loaded.id, done.outcome, done.seq, deliveries=sending)


def _revised(c: Connection, tenant_id: int, event: Event) -> Event:
    """The event as the next version of its record, where the record is known and never said the same."""
    known = events.find(c, tenant_id, *identity(event))
    if not known or version(event) > known[-1].version:
        return event
    said = next((k.event for k in reversed(known) if _unversioned(k.event) == _unversioned(event)), None)
    return said or load_event({**event, "version": known[-1].version + 1})


def _unversioned(event: Event) -> bytes:
    return exact_json.dumps({name: value for name, value in event.items() if name != "version"})


def admit(
    c: Connection,
    tenant_id: int,
    event: Event,
    *,
    received_at: datetime,
    actor: str,
    endpoints: Sequence[endpoints.Endpoint],
    origin: str | None = None,
) -> Accepted:
    """`store.events.accept`, after checks against the ledger; raises `MappingError` (P4, R1), `Damaged`."""
    done = admit_many(
        c, tenant_id, [event], received_at=received_at, actor=actor, endpoints=endpoints, origin=origin
    )[0]
    if not isinstance(done, Accepted):
        raise done
    return done


def admit_many(
    c: Connection,
    tenant_id: int,
    sent: Sequence[Event],
    *,
    received_at: datetime,
    actor: str,
    endpoints: Sequence[endpoints.Endpoint],
    origin: str | None = None,
) -> list[Accepted | MappingError | Damaged]:
    """`admit` each, as if those before it were in the ledger already; an error is that of its event alone.

    Several are new records, each once: a correction may change what the next one is checked against.
    """
    done: dict[int, Accepted | MappingError | Damaged] = {}
    around = _Around(c, tenant_id, [event for event in sent if not is_retracted(event)])
    for n, event in enumerate(sent):
        if is_retracted(event) or (len(sent) == 1 and _is_replay(c, tenant_id, event)):
            continue
        try:
            if issues := around.issues(event):
                done[n] = MappingError(issues)
                continue
        except Damaged as error:  # what it must be checked against cannot be trusted
            done[n] = error
            continue
        around.add(event)
    passed = [n for n in range(len(sent)) if n not in done]
    accepted = events.accept_many(
        c,
        tenant_id,
        [sent[n] for n in passed],
        received_at=received_at,
        actor=actor,
        endpoints=endpoints,
        origin=origin,
    )
    done |= dict(zip(passed, accepted, strict=True))
    return [done[n] for n in range(len(sent))]


def _is_replay(c: Connection, tenant_id: int, event: Event) -> bool:
    hashed = content_hash(event)
    return any(known == hashed for _, _, known in events.versions(c, tenant_id, *identity(event)))


class _Around:
    """What the ledger knows about the pumps of some events, and what is being added to it."""

    def __init__(self, c: Connection, tenant_id: int, about: Sequence[Event]) -> None:
        self._c, self._tenant_id = c, tenant_id
        self._most = (
            2 if len(about) == 1 else 1
        )  # only what comes alone may be a version of the first of them
        pumps = {pump for event in about if (pump := pump_of(event)) is not None}
        self._devices: dict[str, list[Event]] = {}
        self._damaged: dict[str, Damaged] = {}
        self._others: dict[str, list[Event]] = {}
        for pump, known in (events.devices_of(c, tenant_id, pumps) if pumps else {}).items():
            for one in known:
                if isinstance(one, Damaged):
                    self._damaged[pump] = one
                else:
                    self._devices.setdefault(pump, []).append(one.event)

    def add(self, event: Event) -> None:
        """It has no issues, and is as good as in the ledger."""
        pump = pump_of(event)
        if pump is not None and event["type"] == "device":
            self._devices[pump] = sorted([*self._devices.get(pump, ()), event], key=occurred)
        elif pump is not None:
            self._others.setdefault(pump, []).append(event)

    def issues(self, event: Event) -> list[Issue]:
        """What contradicts the ledger: P4 another patient's pump, R1 more than its reservoir holds."""
        pump = pump_of(event)
        if pump is None:
            return []
        if pump in self._damaged:
            raise self._damaged[pump]
        devices = [one for one in self._devices.get(pump, ()) if identity(one) != identity(event)]
        found = _patient_issues(event, devices or self._others_of(event, pump))
        if event["type"] == "refill":
            found.extend(capacity_issues(event, _capacity(devices)))
        return found

    def _others_of(self, event: Event, pump: str) -> list[Event]:
        """Of a pump without a device record, what else tells whose it is; a device record itself decides."""
        if event["type"] == "device":
            return []
        if pump not in self._others:
            found = events.current(self._c, self._tenant_id, pump=pump, limit=self._most)
            self._others[pump] = [one.event for one in found]
        return [one for one in self._others[pump] if identity(one) != identity(event)]


def _patient_issues(event: Event, known: Sequence[Event]) -> list[Issue]:
    """P4 (docs/clinical.md, "Rules"): a serial number belongs to one patient; who it is stays unsaid."""
    other = next((one for one in known if one["patient"] != event["patient"]), None)
    if other is None:
        return []
    source, event_id = identity(other)
    why = (
        f"is not the patient that {source}/{event_id} records for this pump; "
        "correct or retract the one that is wrong first"
    )
    return [Issue("patient", "P4", why)]


def _capacity(devices: Sequence[Event]) -> Decimal | None:
    """The reservoir of the pump, mL, as its latest device record says."""
    said = [one["reservoir_capacity"]["value"] for one in devices if "reservoir_capacity" in one]
    return said[-1] if said else None
