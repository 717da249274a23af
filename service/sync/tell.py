"""The message that tells an event to a receiver of HL7 v2, and what it loses: the lowest rung. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mappings import MappingError
from mappings.event import Event
from mappings.hl7v2 import Header, Message, SenderMap, dump, parse, read, write
from mappings.hl7v2.values import Context, moment_out

from .ladder import NONE, Plan, lost

RUNG = "hl7v2"


@dataclass(frozen=True, slots=True)
class Told:
    """A message, and the fields of its event that cannot be read back from it."""

    message: Message
    lost: tuple[str, ...]


def tell(event: Event, how: SenderMap, control_id: str) -> Told:
    """The message of an event; raises `MappingError` where none says it, in the receiver's character set.

    A message that its own map cannot read is none: nobody knows what the receiver would make of it.
    """
    made = Header(control_id, moment_out(event["occurred_at"], Context(how)))
    message = write(event, how, made=made)
    reading = read(parse(dump(message), charset=how.charset), how)
    if reading.errors:
        raise MappingError(reading.errors)
    return Told(message, lost(event, reading.events[0]))


def plan_of(event: Event, how: SenderMap) -> Plan:
    """The plan of an event at a receiver: its `types` are the message's (MSH-9)."""
    try:
        told = tell(event, how, "PLAN")
    except MappingError as error:
        return Plan(NONE, lost=lost(event, {}), why=places(error))
    return Plan(RUNG, frozenset({told.message.field("MSH", 9)}), lost=told.lost)


def places(error: MappingError) -> tuple[str, ...]:
    """Where, and by which rule; the words may hold a value and stay out."""
    return tuple(f"{issue.path} {issue.rule}" for issue in error.issues[:5])
