"""Received messages into the ledger: raw message, events, deliveries and answer in one transaction.

`take` returns an answer only when what it says is on the disk. A message is one thing: all of its events are
taken, or none. The same message again gets the first answer again, byte for byte, and does nothing; another
message under a control id that was used is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mappings.rows import Issue, MappingError
from service.chain import Damaged
from service.intake import admit
from service.store import audit, endpoints, messages
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.events import content_hash
from service.store.faults import fault_of
from service.store.messages import Known, New, Stored, Told
from service.store.times import stamp

from . import answers
from .reading import Received, Understood, other_key, status_of, understand
from .senders import Peer, Sender, anywhere, named

Clock = Callable[[], datetime]
OUTCOMES = (*messages.STATUSES, "repeated", "unknown", "unavailable")
"""A message's status; sent before; not kept, as nobody who may send sent it; not stored, to be sent again."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a message: one of `OUTCOMES`; `issues` are why it was not taken.

    `id` is the number of the message that was there before.
    """

    outcome: str
    answer: bytes
    sender: str = ""
    issues: tuple[Issue, ...] = ()
    id: int | None = None


def take(store: Store, tenant_id: int, received: Sequence[Understood], clock: Clock) -> list[Taken]:
    """Take messages in their order, in one transaction; one that cannot be taken stops no other."""
    try:
        return _together(store, tenant_id, received, clock)
    except Exception as error:
        if len(received) == 1:
            return [_alone(store, tenant_id, received[0], clock, error)]
    done: list[Taken] = []
    for it in received:  # one of them is to blame: take each for itself, and none after one that must wait
        if done and done[-1].outcome == "unavailable":
            done.append(_unavailable(it, clock()))
        else:
            done.extend(take(store, tenant_id, [it], clock))
    return done


def _alone(store: Store, tenant_id: int, it: Understood, clock: Clock, error: Exception) -> Taken:
    """A message that could not be taken: the database is away, or it hits a bug of ours and is parked."""
    passes = isinstance(error, DBAPIError) and fault_of(error) is not None
    if not passes and not _is_bug(it.issues):
        why = f"internal error: {type(error).__name__}"
        bad = Understood(
            it.content, it.content_hash, it.message, it.sender, it.key, (), (Issue("$", "internal", why),)
        )
        return take(store, tenant_id, [bad], clock)[0]
    return _unavailable(it, clock())


def _unavailable(it: Understood, now: datetime) -> Taken:
    return Taken("unavailable", answers.unable(it, now), it.sender.name if it.sender is not None else "")


def _is_bug(issues: Sequence[Issue]) -> bool:
    return any(issue.rule == "internal" for issue in issues)


def _together(store: Store, tenant_id: int, received: Sequence[Understood], clock: Clock) -> list[Taken]:
    keys = {key for it in received if it.key for key in (it.key, other_key(it))}
    new: list[New] = []
    with store.write() as c:
        known = messages.known(c, tenant_id, keys) if keys else {}
        targets = endpoints.every(c, tenant_id)
        done = [_one(c, tenant_id, it, known, new, targets, clock()) for it in received]
        messages.add(c, tenant_id, new, now=clock())
    return done


def _one(
    c: Connection,
    tenant_id: int,
    it: Understood,
    known: dict[str, Known],
    new: list[New],
    targets: Sequence[Endpoint],
    now: datetime,
) -> Taken:
    if not it.key or it.sender is None:
        return Taken("unknown", answers.answer(it, it.issues, now), issues=it.issues)
    name, key, issues = it.sender.name, it.key, it.issues
    told: list[Told] = []
    first = known.get(key)
    if first is not None and first.content_hash != it.content_hash:
        key, first = other_key(it), known.get(other_key(it))
        why = "belongs to another message of this sender: send this one under an id of its own"
        issues = (Issue("MSH[1]-10", "control-id-used", why),)
    if first is not None:
        return Taken("repeated", first.answer, name, id=first.id)
    if not issues:
        told, refused = _admit(c, tenant_id, it.sender, it, targets, now)
        issues = tuple(refused)
    status = status_of(issues) if issues else "taken"
    answered = answers.answer(it, issues, now)
    new.append(
        New(
            key=key,
            sender=name,
            application=it.field(3)[:LONGEST],
            facility=it.field(4)[:LONGEST],
            control_id=it.field(10)[:LONGEST],
            type=it.field(9)[:LONGEST],
            status=status,
            content_hash=it.content_hash,
            raw=it.content,
            answer=answered,
            issues=issues or it.notes,
            told=told,
        )
    )
    known[key] = Known(None, key, it.content_hash, answered)
    return Taken(status, answered, name, issues)


LONGEST = 250
"""Characters of a header field that are shown in lists; the raw message has all."""


def _admit(
    c: Connection,
    tenant_id: int,
    sender: Sender,
    it: Understood,
    targets: Sequence[Endpoint],
    now: datetime,
) -> tuple[list[Told], list[Issue]]:
    """Every event of the message, or none and the reasons."""
    if len(it.events) == 1:
        return _admit_each(c, tenant_id, sender, it, targets, now)
    undo = c.begin_nested()
    told, issues = _admit_each(c, tenant_id, sender, it, targets, now)
    if issues:
        undo.rollback()
        return [], issues
    undo.commit()
    return told, []


def _admit_each(
    c: Connection,
    tenant_id: int,
    sender: Sender,
    it: Understood,
    targets: Sequence[Endpoint],
    now: datetime,
) -> tuple[list[Told], list[Issue]]:
    told: list[Told] = []
    issues: list[Issue] = []
    actor = f"mllp/{sender.name}"
    own = endpoints.of_sender(targets, sender.name)
    origin = own.name if own is not None else None
    for event in it.events:
        try:
            done = admit(c, tenant_id, event, received_at=now, actor=actor, endpoints=targets, origin=origin)
        except MappingError as error:
            issues.extend(error.issues)
            continue
        except Damaged as error:  # what it must be checked against cannot be trusted
            issues.append(Issue("$", "ledger-damaged", str(error)))
            continue
        if done.seq is None:
            issues.append(Issue("version", "conflict", done.reason or ""))
            continue
        told.append((done.seq, content_hash(event)))
        if it.notes and done.outcome != "replayed":
            audit.converted(c, tenant_id, event, it.notes, at=stamp(now), actor=actor)
    return ([], issues) if issues else (told, issues)


# --- retry ----------------------------------------------------------------------------------------------


def retry(
    store: Store, tenant_id: int, message: Stored, senders: Sequence[Sender], clock: Clock, actor: str
) -> tuple[Issue, ...]:
    """Read a kept message again by the file of its sender as it is now; the issues that still stop it."""
    sender = named(senders, message.sender)
    if sender is None:
        return (Issue("sender", "sender", f"{message.sender} is no longer in the file of senders"),)
    it = understand(Received(message.raw, Peer("")), [anywhere(sender)])
    now = clock()
    told: list[Told] = []
    issues = list(it.issues)
    with store.write() as c:
        as_it_is = messages.find(c, tenant_id, message.id)
        if as_it_is is None or as_it_is.status == "taken":
            return ()
        if not issues:
            told, issues = _admit(c, tenant_id, sender, it, endpoints.every(c, tenant_id), now)
        status = status_of(issues) if issues else "taken"
        messages.decide(
            c,
            tenant_id,
            message.id,
            status=status,
            answer=answers.answer(it, issues, now),
            issues=issues or it.notes,
            told=told,
            now=now,
        )
        subject = f"message/{message.id}"
        audit.write(c, tenant_id, at=stamp(now), actor=actor, action="retry", subject=subject, detail=status)
    return tuple(issues)
