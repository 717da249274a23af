"""The history checker: did what was acknowledged arrive, once, in order, digit for digit, and no more? Pure.

It reads what was acknowledged, what the EHR applied (every version, in order), and what the ledger keeps,
and names each breach of one of seven invariants. Every test of faults and kills uses it, and ships with bugs
that it must see (`tests/chaos_bugs.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mappings.event import lane_key
from mappings.exact_json import dumps
from mappings.identity import content_hash, resource_identity
from mappings.stream import Converter

Json = Any
Key = tuple[str, str, str]

INVARIANTS = {
    "I1": "no loss: what was acknowledged is in the ledger and in the EHR, or visibly held",
    "I2": "no duplicate: one resource for each identity, and no version without a change",
    "I3": "order: of a lane, what came first is applied first, and nothing older overwrites it",
    "I4": "exact: every element as the event says, digit for digit, about the same patient and pump",
    "I5": "audit: one row for each effect, and none without one",
    "I6": "no patient in a log",
    "I7": "alive: all is quiet soon after the last fault, and nothing waits for a person",
}


@dataclass(frozen=True, slots=True)
class Write:
    """One version in an EHR; `position` sorts in the order of application (ties: the order is not known)."""

    type: str
    id: str
    version: int
    position: Any
    resource: Json


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery as the ledger keeps it."""

    id: int
    event_seq: int
    status: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What one run left behind, at one EHR."""

    acknowledged: Sequence[Json]
    ledger: Sequence[tuple[int, Json]]
    deliveries: Sequence[Sent]
    audit: Sequence[tuple[str, str]]
    writes: Sequence[Write]
    logs: str = ""
    canaries: Iterable[str] = ()
    chain_problems: Sequence[str] = ()
    quiet_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that does not hold, and where."""

    invariant: str
    what: str


QUIET_S = 30.0


def check(history: History) -> list[Breach]:
    """Every breach; empty when all seven invariants hold."""
    checks = (_lost, _doubled, _order, _exact, _audit, _private, _alive)
    return [breach for one in checks for breach in one(history)]


def summary(breaches: Sequence[Breach]) -> str:
    """`0 lost, 0 duplicated, …`: one line for people."""
    counts = Counter(b.invariant for b in breaches)
    words = ("lost", "duplicated", "reordered", "inexact", "audit", "private", "stuck")
    return ", ".join(f"{counts[name]} {word}" for name, word in zip(INVARIANTS, words, strict=True))


# --- what should be there -------------------------------------------------------------------------------


@dataclass(slots=True)
class Expected:
    """For each identity its contents, in order; for each event what it writes (Provenance last)."""

    contents: dict[Key, list[str]] = field(default_factory=dict)
    of_event: dict[int, list[Key]] = field(default_factory=dict)


def expected(ledger: Sequence[tuple[int, Json]]) -> Expected:
    """What the events, in ledger order, make an EHR hold."""
    made, converter = Expected(), Converter()
    for seq, event in ledger:
        keys = made.of_event[seq] = []
        for entry in converter.to_fhir(event)["entry"]:
            key = key_of(entry["resource"])
            keys.append(key)
            told = made.contents.setdefault(key, [])
            # Provenance.recorded is the ledger's own time, which the stateless converter cannot know.
            said = "" if key[0] == "Provenance" else content_hash(entry["resource"])
            if not told or told[-1] != said:
                told.append(said)
        keys.sort(key=lambda key: key[0] == "Provenance")
    return made


def key_of(resource: Json) -> Key:
    """(type, system, value) of one of our resources; ValueError for another."""
    return (resource["resourceType"], *resource_identity(resource))


def ours(writes: Iterable[Write]) -> dict[Key, dict[str, list[Write]]]:
    """Versions by identity, and by the id they have in the EHR."""
    found: dict[Key, dict[str, list[Write]]] = defaultdict(lambda: defaultdict(list))
    for write in writes:
        if write.resource is None:
            continue
        try:
            found[key_of(write.resource)][write.id].append(write)
        except (ValueError, KeyError):
            continue  # not one of ours: a patient, somebody else's record
    return found


# --- the seven ------------------------------------------------------------------------------------------


def _lost(history: History) -> Iterator[Breach]:
    kept = {(e["source"], e["id"], e.get("version", 1)): dumps(e) for _, e in history.ledger}
    for event in history.acknowledged:
        name = (event["source"], event["id"], event.get("version", 1))
        if kept.get(name) != dumps(event):
            yield Breach("I1", f"{name}: acknowledged, and not in the ledger as it was sent")
    by_seq = {d.event_seq: d for d in history.deliveries}
    there = ours(history.writes)
    for seq, keys in expected(history.ledger).of_event.items():
        delivery = by_seq.get(seq)
        if delivery is None:
            yield Breach("I1", f"event {seq}: there is no delivery of it")
        elif delivery.status == "sent":
            for key in keys:
                if key not in there:
                    yield Breach("I1", f"event {seq} is sent, and {key} is not in the EHR")


def _doubled(history: History) -> Iterator[Breach]:
    for key, by_id in ours(history.writes).items():
        if len(by_id) > 1:
            yield Breach("I2", f"{key}: {len(by_id)} resources, {sorted(by_id)}")
        for id, versions in by_id.items():
            told = [(content_hash(w.resource), _marks(w.resource)) for w in versions]
            again = sum(a == b for a, b in zip(told, told[1:], strict=False))
            if again:
                yield Breach("I2", f"{key}: {again} versions of {id} without a change")
    names = Counter((e["source"], e["id"], e.get("version", 1)) for _, e in history.ledger)
    for name, number in names.items():
        if number > 1:
            yield Breach("I2", f"{name}: {number} times in the ledger")


def _marks(resource: Json) -> str:
    """Tags: how a version that somebody else saved unchanged is told from one that we wrote twice."""
    return dumps(resource.get("meta", {}).get("tag", [])).decode()


def _order(history: History) -> Iterator[Breach]:
    there = ours(history.writes)
    wanted = expected(history.ledger)
    last: dict[str, tuple[Any, int]] = {}
    for seq, event in history.ledger:
        key = wanted.of_event[seq][-1]
        if key not in there:
            continue
        at = min(w.position for versions in there[key].values() for w in versions)
        lane = lane_key(event)
        if lane in last and at < last[lane][0]:
            yield Breach("I3", f"event {seq} was applied before event {last[lane][1]} of the same lane")
        last[lane] = max(last.get(lane, (at, seq)), (at, seq))
    for key, contents in wanted.contents.items():
        for versions in there.get(key, {}).values():
            seen = _changes(content_hash(w.resource) for w in versions)
            if key[0] != "Provenance" and not _is_subsequence(seen, contents):
                yield Breach("I3", f"{key}: its {len(seen)} states are not those of its history, in order")


def _changes(hashes: Iterable[str]) -> list[str]:
    found: list[str] = []
    for one in hashes:
        if not found or found[-1] != one:
            found.append(one)
    return found


def _is_subsequence(seen: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(one in rest for one in seen)


def _exact(history: History) -> Iterator[Breach]:
    there = ours(history.writes)
    newest = {(w.type, w.id): w.resource for w in history.writes}
    wanted = expected(history.ledger)
    waiting = {d.event_seq for d in history.deliveries if d.status != "sent"}
    unfinished = {key for seq in waiting for key in wanted.of_event.get(seq, ())}
    for key, contents in wanted.contents.items():
        for id, versions in there.get(key, {}).items():
            if (
                key[0] != "Provenance"
                and key not in unfinished
                and content_hash(versions[-1].resource) != contents[-1]
            ):
                yield Breach("I4", f"{key}: {id} does not say what the events say")
            for name, target in _named_references(versions[-1].resource):
                if not _is_named(newest.get(tuple(target.split("/", 1))), name):  # type: ignore[arg-type]
                    yield Breach("I4", f"{key}: refers to {target}, which is not {name['value']}")


def _named_references(node: Json) -> Iterator[tuple[Json, str]]:
    """Literal references that carry a business identifier too: both must mean the same."""
    if isinstance(node, dict):
        name, target = node.get("identifier"), node.get("reference")
        if isinstance(name, dict) and isinstance(target, str) and "/" in target:
            yield name, target
        for value in node.values():
            yield from _named_references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _named_references(item)


def _is_named(resource: Json, name: Json) -> bool:
    if resource is None:
        return False
    if resource["resourceType"] == "Provenance":
        return True
    listed = resource.get("identifier", [])
    return any((i.get("system"), i.get("value")) == (name["system"], name["value"]) for i in listed)


def _audit(history: History) -> Iterator[Breach]:
    rows = Counter(history.audit)
    kept = Counter(f"{event['source']}/{event['id']}" for _, event in history.ledger)
    told = Counter[str]()
    for (action, subject), number in rows.items():
        if action in ("accepted", "corrected"):
            told[subject] += number
    for subject in kept.keys() | told.keys():
        if kept[subject] != told[subject]:
            yield Breach("I5", f"{subject}: {kept[subject]} versions, {told[subject]} audit rows of them")
    for delivery in history.deliveries:
        number = rows["sent", f"delivery/{delivery.id}"]
        if number != (delivery.status == "sent"):
            yield Breach("I5", f"delivery {delivery.id} is {delivery.status}, with {number} audit rows of it")
    for problem in history.chain_problems:
        yield Breach("I5", problem)


def _private(history: History) -> Iterator[Breach]:
    for word in history.canaries:
        if word in history.logs:
            yield Breach("I6", f"{word} is in a log")


def _alive(history: History) -> Iterator[Breach]:
    if history.quiet_after_s > QUIET_S:
        yield Breach("I7", f"quiet only {history.quiet_after_s:.0f} s after the last fault")
    for delivery in history.deliveries:
        if delivery.status != "sent":
            yield Breach("I7", f"delivery {delivery.id} is {delivery.status}: {delivery.reason}")
