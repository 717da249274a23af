"""A record as a document: any event in a DocumentReference, for servers that take no more than that.

Two attachments: the text that people read, and the event's canonical JSON, digit for digit, which is what is
read back. What stands beside it (identifier, patient, version) must say the same (docs/fhir.md, "Documents").
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from . import program, refill
from .codes import LOCAL, US_CORE_DOCUMENT_CATEGORY, bare, local, table
from .envelope import Event, identity, is_retracted
from .exact_json import dumps, loads
from .paths import Json
from .rows import Always, Derived, Issue, Mapping, MappingError, Row
from .shared_rows import SUBJECT, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import PUMP, shown, shown_quantity

JSON_FORMAT = {"system": LOCAL, "code": "itb-event", "display": "Canonical event of itb-fhir"}
STATUS = table({"final": "current", "entered-in-error": "entered-in-error"})


def headline(event: Event) -> str:
    """The event in a sentence, doses in mcg."""
    if event["type"] == "refill":
        return refill.words(event)
    if event["type"] == "dose-change":
        said = f"Pump programmed: {program.summary(event['after'])}."
        return said + (f" Before: {program.summary(event['before'])}." if "before" in event else "")
    return f"Intrathecal baclofen pump record: {event['type'].replace('-', ' ')}."


def text(event: Event) -> str:
    """Every field of the event for people, but for the patient, whose chart it stands in."""
    withdrawn = ["ENTERED IN ERROR: this record was withdrawn."] if is_retracted(event) else []
    source, id = identity(event)
    lines = [f"{label}: {value}" for label, value in _said(event) if label not in ("source", "id", "type")]
    return "\n".join([*withdrawn, headline(event), "", f"record: {id} of {source}", *lines, ""])


def _said(node: Json, label: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node.keys() == {"value", "unit"}:
        yield label, shown_quantity(node)
    elif isinstance(node, dict):
        for name, value in node.items():
            if label or name != "patient":
                yield from _said(value, f"{label}, {name}".lstrip(", ").replace("_", " "))
    elif isinstance(node, list):
        for number, item in enumerate(node, start=1):
            yield from _said(item, f"{label} {number}")
    elif isinstance(node, bool):
        yield label, "yes" if node else "no"
    else:
        yield label, shown(node) if isinstance(node, (int, Decimal)) else str(node)


def _content(event: Event) -> Json:
    return [
        {
            "attachment": _attachment(
                "text/plain", "utf-8", text(event).encode(), "Intrathecal baclofen pump record"
            )
        },
        {
            "attachment": _attachment("application/json", "", dumps(event), "Canonical event"),
            "format": JSON_FORMAT,
        },
    ]


def _attachment(type: str, charset: str, content: bytes, title: str) -> Json:
    return {
        "contentType": f"{type}; charset={charset}" if charset else type,
        "data": b64encode(content).decode(),
        "size": len(content),
        "hash": b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode(),
        "title": title,
    }


RECORD = Mapping(
    Always("resourceType", "DocumentReference"),
    claim("itb-record"),
    VERSION,
    key("record"),
    Row("status", "status", STATUS, required=True),
    Always("type", local("itb-record"), strict=False),
    Always("category[0]", bare(US_CORE_DOCUMENT_CATEGORY, "clinical-note"), strict=False),
    SUBJECT,
    Row("occurred_at", "date", required=True),
    Derived("description", headline),
    Row("pump", "context.related[0]", PUMP),
)
"""The DocumentReference but for its attachments."""

TELLING = Telling("DocumentReference", "record", "type", ("itb-record",), "itb-record")
MAPPED: tuple[Any, ...] = ()


def encode(event: Event) -> Json:
    """The DocumentReference of an event."""
    made = RECORD.encode({"status": "final", **event})
    return made | {"content": _content(event)}


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of its attachment, and the residue; raises `MappingError`.

    A document that the EHR's users marked as entered in error withdraws its event.
    """
    beside = RECORD.read(resource)
    event = _attached(resource)
    if beside.get("status") == "entered-in-error":
        event = {**event, "status": "entered-in-error"}
    for name in ("source", "id", "patient", "pump", "version"):
        if beside.get(name, event.get(name)) != event.get(name):
            raise MappingError(
                [Issue("DocumentReference", "record", f"{name} is another than in the attached event")]
            )
    if is_retracted(event) and beside.get("status") == "final":
        why = "is current, and the attached event was withdrawn"
        raise MappingError([Issue("DocumentReference.status", "record", why)])
    return event, {"DocumentReference": resource}


def _attached(resource: Json) -> Event:
    """The canonical event in the attachments of a DocumentReference; it is taken out."""
    place = "DocumentReference.content"
    for content in resource.get("content", []):
        if (content.get("format") or {}).get("code") != JSON_FORMAT["code"]:
            continue
        attachment = content["attachment"]
        if "data" not in attachment:
            raise MappingError(
                [Issue(f"{place}.attachment.data", "record", "the attached event did not come with it")]
            )
        found = b64decode(attachment["data"])
        said = attachment.get("hash")
        if said is not None and b64decode(said) != hashlib.sha1(found, usedforsecurity=False).digest():
            raise MappingError(
                [Issue(f"{place}.attachment.hash", "record", "is not that of the attached event")]
            )
        event = loads(found)
        if not isinstance(event, dict):
            raise MappingError([Issue(f"{place}.attachment.data", "record", "is not an event")])
        resource["content"] = [item for item in resource["content"] if item is not content]
        return event
    raise MappingError([Issue(place, "record", "holds no event of ours")])
