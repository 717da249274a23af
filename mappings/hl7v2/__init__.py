"""Events to and from HL7 v2 messages: pure functions, no IO, no clock."""

from .message import Message, dump, parse

__all__ = ["Message", "dump", "parse"]
