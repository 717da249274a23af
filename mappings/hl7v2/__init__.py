"""Events to and from HL7 v2 messages: pure functions, no IO, no clock.

`parse` and `dump` are bytes to message and back; `read` gives a message's events, `write` an event's message,
`ack` the answer to a sender; `sender_map` reads a sender's file.
"""

from .convert import Header, Reading, ack, read, write, write_update
from .message import Message, dump, head, parse
from .sender import SenderMap, sender_map

__all__ = [
    "Header",
    "Message",
    "Reading",
    "SenderMap",
    "ack",
    "dump",
    "head",
    "parse",
    "read",
    "sender_map",
    "write",
    "write_update",
]
