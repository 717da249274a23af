"""Which acknowledgements a message asks for (HL7 v2 §2.9), and their bytes. Pure.

Original mode (MSH-15 and MSH-16 empty): one of AA, AE, AR. Enhanced mode: MSH-15 says when an accept
acknowledgement (CA, CE, CR) is wanted, MSH-16 when an application acknowledgement is; both go back over the
same connection. CA is never said of a message whose events are not in the ledger: a sender who asks for no
more than CA would take it for done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from mappings.hl7v2 import Message, ack, dump
from mappings.rows import Issue

from .framing import framed
from .reading import REJECTED, Understood
from .senders import Sender

WANTED = {
    "AL": (True, True),
    "NE": (False, False),
    "": (False, False),
    "ER": (False, True),
    "SU": (True, False),
}
"""HL7 table 0155: whether it is wanted of (a success, a failure); of an unknown word, always."""


def codes(accept: str, application: str, letter: str) -> list[str]:
    """The acknowledgement codes, in order; `letter` is A, E or R."""
    if not accept and not application:
        return [f"A{letter}"]
    failed = letter != "A"
    made = [f"C{letter}"] if WANTED.get(accept, (True, True))[failed] else []
    if WANTED.get(application, (True, True))[failed] and not (made and failed):
        made.append(f"A{letter}")
    return made


def letter_of(issues: Sequence[Issue]) -> str:
    """A for none, R for a message that is refused as such, E for one whose content is."""
    if not issues:
        return "A"
    return "R" if any(issue.rule in REJECTED for issue in issues) else "E"


def answer(it: Understood, issues: Sequence[Issue], now: datetime) -> bytes:
    """The acknowledgements of a message, framed, one after the other; empty where none is asked for."""
    return _answers(it.message, it.sender, it.content_hash, letter_of(issues), issues, now)


def unable(it: Understood, now: datetime) -> bytes:
    """Nothing was stored, for a reason that passes: send it again."""
    issue = Issue("$", "unavailable", "it could not be stored now: send it again")
    return _answers(it.message, it.sender, it.content_hash, "R", [issue], now)


def _answers(
    message: Message | None,
    sender: Sender | None,
    content_hash: str,
    letter: str,
    issues: Sequence[Issue],
    now: datetime,
) -> bytes:
    asked = ("", "") if message is None else (message.field("MSH", 15), message.field("MSH", 16))
    made = []
    for code in codes(*asked, letter):
        said = f"{content_hash}{code}{now.isoformat()}"
        made.append(
            ack(
                message,
                code,
                issues,
                control_id=hashlib.sha256(said.encode()).hexdigest()[:20],
                made_at=now.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f")[:18] + "+0000",
                **({"sender": sender.map} if sender is not None else {}),
            )
        )
    return b"".join(framed(dump(one)) for one in made)
