"""Deliveries to a receiver of HL7 v2: one message after the other, each after the answer to the one before.

Nothing can be read back from such a receiver. So a message whose outcome is not known is sent again under the
same control id, by which the receiver knows it; what the answers mean is a table (`retry.ERROR_CODES`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from mappings import MappingError
from mappings.hl7v2 import SenderMap, sender_map
from service.chain import Damaged
from service.mllp.client import Acknowledged, MllpClient
from service.store import events
from service.store.deliveries import Delivery
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.events import StoredEvent

from .ehr import CLASSES, Ambiguous, EhrError, Unreachable
from .retry import classify_answer
from .send import Loss, Sent
from .shape import Unresolved, superseded_by
from .tell import RUNG, places, tell

Settle = Callable[[Sequence[Sent]], Collection[str]]
"""Commits what became of a delivery; the lanes that nobody else has taken meanwhile."""


@dataclass(frozen=True, slots=True)
class Line:
    """The way to one receiver: where the ledger is, the connection, how messages are written for it.

    `beside` as of a `Route`.
    """

    store: Store
    client: MllpClient
    endpoint: Endpoint
    now: Callable[[], datetime]
    beside: int = 1

    @property
    def size(self) -> int:
        """About how many messages a step sends."""
        return int(self.endpoint.options["batch_size"])

    @property
    def map(self) -> SenderMap:
        return map_of(self.endpoint)


def map_of(endpoint: Endpoint) -> SenderMap:
    """How messages for this receiver are written."""
    return sender_map(endpoint.options.get("hl7v2", {}))


def deliver(line: Line, found: Sequence[Delivery], settle: Settle) -> list[Sent]:
    """What became of the last delivery that was tried; those before it were given to `settle`.

    A lane goes no further after a failure, or once another worker has it; no lane does where there is no
    connection, or no answer: that is the receiver's, and the breaker counts it.
    """
    how = line.map
    seqs = [delivery.event_seq for delivery in found]
    with line.store.read() as c:
        stored = events.by_seqs(c, line.endpoint.tenant_id, seqs)
        versions = events.other_versions(c, line.endpoint.tenant_id, seqs)
    done: list[Sent] = []
    left: set[str] = set()  # lanes that go no further this time
    for delivery in found:
        if delivery.lane in left:
            continue
        if done:
            # Before the next message: a kill must find no more than one whose outcome is not known.
            held = settle(done)
            done = []
            if delivery.lane not in held:
                left.add(delivery.lane)
                continue
        seq = delivery.event_seq
        sent = _sent(line, how, delivery, stored[seq], versions.get(seq, []))
        done = [sent]
        if isinstance(sent.error, (Unreachable, Ambiguous)):
            break
        if sent.error is not None:
            left.add(delivery.lane)
    return done


def _sent(
    line: Line,
    how: SenderMap,
    delivery: Delivery,
    stored: StoredEvent | Damaged,
    versions: Sequence[StoredEvent | Damaged],
) -> Sent:
    try:
        if isinstance(stored, Damaged):
            raise stored
        if later := superseded_by(stored, versions):
            return Sent(delivery, note=f"superseded by version {later}")
        told = tell(stored.event, how, control_id(line.endpoint, stored))
        answer = line.client.exchange(told.message)
    except MappingError as error:
        return Sent(delivery, error=Unresolved(f"no message can say it: {'; '.join(places(error))}"))
    except Exception as error:  # of the receiver, or a bug with this content
        return Sent(delivery, error=error)
    if (refused := refusal(answer)) is not None:
        return Sent(delivery, error=refused)
    note = "; ".join([answer.code, *map(str, answer.errors)])
    return Sent(delivery, note=note, answered=True, rung=RUNG, loss=Loss(lost=told.lost))


def control_id(endpoint: Endpoint, stored: StoredEvent) -> str:
    """MSH-10 of an event at a receiver, the same for each try.

    The endpoint is part of it: behind one interface engine there may be several, and it would take the
    message for the second one for a copy of the first.
    """
    return hashlib.sha256(f"{endpoint.name}\x1f{stored.content_hash}".encode()).hexdigest()[:20]


def refusal(answer: Acknowledged) -> EhrError | None:
    """The failure that an acknowledgement tells of; None where the message was taken."""
    kind = classify_answer(answer.code, [(one.code, one.severity) for one in answer.errors])
    if kind is None:
        return None
    return CLASSES[kind]("; ".join([answer.code, *map(str, answer.errors)]))
