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

from mappings.event import Event, identity
from mappings.rows import Issue, MappingError
from service.chain import Damaged
from service.intake import admit_many
from service.store import audit, endpoints, events, messages
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
    names = {identity(event) for it in received for event in it.events}
    with store.write() as c:
        taking = _Taking(
            c,
            tenant_id,
            clock,
            messages.known(c, tenant_id, keys) if keys else {},
            set(events.versions_of(c, tenant_id, names)),
            endpoints.every(c, tenant_id),
        )
        for it in received:
            taking.take(it)
        return taking.end()


class _Taking:
    """Messages of one transaction. Those that follow each other and tell of new records are admitted as one.

    `known` are the messages that are kept, by their keys; `heard` the records that the ledger knows.
    """

    def __init__(
        self,
        c: Connection,
        tenant_id: int,
        clock: Clock,
        known: dict[str, Known],
        heard: set[tuple[str, str]],
        targets: Sequence[Endpoint],
    ) -> None:
        self._c, self._tenant_id, self._clock, self._targets = c, tenant_id, clock, targets
        self._known, self._heard = known, heard
        self._plain: list[Understood] = []
        self._new: list[New] = []
        self._done: list[Taken] = []

    def take(self, it: Understood) -> None:
        plain = self._is_plain(it)
        if self._plain and not (plain and it.sender == self._plain[0].sender):
            self._admit_plain()
        if plain:
            self._plain.append(it)
        else:
            self._done.append(self._one(it))
        self._heard.update(identity(event) for event in it.events)

    def end(self) -> list[Taken]:
        """What became of each."""
        self._admit_plain()
        messages.add(self._c, self._tenant_id, self._new, now=self._clock())
        return self._done

    def _is_plain(self, it: Understood) -> bool:
        return (
            it.sender is not None
            and not it.issues
            and len(it.events) == 1
            and identity(it.events[0]) not in self._heard
            and it.key not in self._known
            and all(it.key != other.key for other in self._plain)
        )

    def _admit_plain(self) -> None:
        plain, self._plain = self._plain, []
        if not plain:
            return
        assert (sender := plain[0].sender) is not None
        now = self._clock()
        sent = [(it, it.events[0]) for it in plain]
        admitted = _admit_many(self._c, self._tenant_id, sender, sent, self._targets, now)
        for it, (told, issues) in zip(plain, admitted, strict=True):
            self._done.append(self._keep(it, it.key, sender, told, issues, now))

    def _one(self, it: Understood) -> Taken:
        now = self._clock()
        if not it.key or it.sender is None:
            return Taken("unknown", answers.answer(it, it.issues, now), issues=it.issues)
        key, issues = it.key, it.issues
        told: list[Told] = []
        first = self._known.get(key)
        if first is not None and first.content_hash != it.content_hash:
            key, first = other_key(it), self._known.get(other_key(it))
            why = "belongs to another message of this sender: send this one under an id of its own"
            issues = (Issue("MSH[1]-10", "control-id-used", why),)
        if first is not None:
            return Taken("repeated", first.answer, it.sender.name, id=first.id)
        if not issues:
            told, refused = _admit(self._c, self._tenant_id, it.sender, it, self._targets, now)
            issues = tuple(refused)
        return self._keep(it, key, it.sender, told, issues, now)

    def _keep(
        self,
        it: Understood,
        key: str,
        sender: Sender,
        told: list[Told],
        issues: Sequence[Issue],
        now: datetime,
    ) -> Taken:
        status = status_of(issues) if issues else "taken"
        answered = answers.answer(it, issues, now)
        self._new.append(
            New(
                key=key,
                sender=sender.name,
                application=it.field(3)[:LONGEST],
                facility=it.field(4)[:LONGEST],
                control_id=it.field(10)[:LONGEST],
                type=it.field(9)[:LONGEST],
                status=status,
                content_hash=it.content_hash,
                raw=it.content,
                answer=answered,
                issues=tuple(issues) or it.notes,
                told=told,
            )
        )
        self._known[key] = Known(None, key, it.content_hash, answered)
        return Taken(status, answered, sender.name, tuple(issues))


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
    for event in it.events:
        ((some, why),) = _admit_many(c, tenant_id, sender, [(it, event)], targets, now)
        told += some
        issues += why
    return ([], issues) if issues else (told, issues)


def _admit_many(
    c: Connection,
    tenant_id: int,
    sender: Sender,
    sent: Sequence[tuple[Understood, Event]],
    targets: Sequence[Endpoint],
    now: datetime,
) -> list[tuple[list[Told], list[Issue]]]:
    """Of each event (of its message) that it is told, or why not; several as `admit_many` takes them."""
    actor = f"mllp/{sender.name}"
    own = endpoints.of_sender(targets, sender.name)
    admitted = admit_many(
        c,
        tenant_id,
        [event for _, event in sent],
        received_at=now,
        actor=actor,
        endpoints=targets,
        origin=own.name if own is not None else None,
    )
    made: list[tuple[list[Told], list[Issue]]] = []
    for (it, event), done in zip(sent, admitted, strict=True):
        if isinstance(done, MappingError):
            made.append(([], done.issues))
        elif isinstance(done, Damaged):  # what it must be checked against cannot be trusted
            made.append(([], [Issue("$", "ledger-damaged", str(done))]))
        elif done.seq is None:
            made.append(([], [Issue("version", "conflict", done.reason or "")]))
        else:
            if it.notes and done.outcome != "replayed":
                audit.converted(c, tenant_id, event, it.notes, at=stamp(now), actor=actor)
            made.append(([(done.seq, content_hash(event))], []))
    return made


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
