"""A message to FHIR and back, losing nothing: what the event does not say travels as the original itself.

A message that is not word for word what we would write for its event goes into the Bundle as a Binary (R4
Binary, `x-application/hl7-v2+er7`), which the event's Provenance names as its source.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from mappings.bundle import read_fhir
from mappings.envelope import identity as key_of
from mappings.identity import client_id, urn
from mappings.paths import Json
from mappings.rows import Issue, MappingError
from mappings.stream import Converter

from .convert import Reading, is_ours, read, write, write_update
from .message import Message, dump, parse
from .rewrite import rewrite
from .sender import SenderMap
from .update_fhir import MAPPED, bundle_of, still_told, updates_of

ER7 = "x-application/hl7-v2+er7"


@dataclass(frozen=True, slots=True)
class Bundles:
    """A transaction Bundle for each event of a message, what could not be read, and notes."""

    bundles: list[Json]
    errors: list[Issue]
    notes: list[Issue]


@dataclass(frozen=True, slots=True)
class Messages:
    """A message for each event of a Bundle (or the one they came in), what could not be read, and notes."""

    messages: list[Message]
    errors: list[Issue]
    notes: list[Issue]


def to_fhir(message: Message, sender: SenderMap, converter: Converter, *, original: bool = True) -> Bundles:
    """The Bundles of a message; with `original` it travels along where its events do not say all of it."""
    reading = read(message, sender)
    errors = list(reading.errors)
    bundles = []
    for event in reading.events:
        try:
            bundles.append(converter.to_fhir(event))
        except MappingError as error:
            errors += error.issues
    bundles += [bundle_of(update) for update in reading.updates]
    if original and bundles and not is_ours(message, sender):
        _carry(bundles, dump(message))
    return Bundles(bundles, errors, reading.notes)


def _carry(bundles: list[Json], data: bytes) -> None:
    """Put the message into each Bundle (under the same id), and name it in its Provenance."""
    digest = hashlib.sha256(data).hexdigest()
    id, url = client_id("Binary", digest), urn("Binary", digest)
    carried = {
        "resourceType": "Binary",
        "id": id,
        "contentType": ER7,
        "data": base64.b64encode(data).decode("ascii"),
    }
    for bundle in bundles:
        for entry in bundle["entry"]:
            if entry["resource"]["resourceType"] == "Provenance":
                entry["resource"]["entity"].append({"role": "source", "what": {"reference": url}})
    for bundle in bundles:
        entry = {"fullUrl": url, "resource": carried}
        if bundle["type"] == "transaction":
            entry["request"] = {"method": "PUT", "url": f"Binary/{id}"}
        bundle["entry"].append(entry)


def from_fhir(content: Json, sender: SenderMap, *, source: str = "fhir", message: str = "") -> Messages:
    """The messages of a Bundle or resource: the original where it came along, with what changed since."""
    carried = _carried(content, sender)
    before = read(carried, sender) if carried is not None else Reading([])
    told = before.events
    updates = updates_of(content)
    updates += [u for u in before.updates if u["kind"] not in MAPPED and still_told(u, content)]
    reading = read_fhir(content, source=source)
    errors = [i for i in reading.errors if not (updates and i.rule == "not-ours")]
    same = told == reading.events and before.updates == updates
    if carried is not None and (told or updates) and same and not message:
        return Messages([carried], errors, reading.notes)
    made = []
    for event in reading.events:
        try:
            if carried is not None and [key_of(one) for one in told] == [key_of(event)] and not message:
                made.append(rewrite(carried, event, sender))
            else:
                made.append(write(event, sender, message=message))
        except MappingError as error:
            errors += error.issues
    made += [write_update(update, sender) for update in updates]
    return Messages(made, errors, reading.notes)


def _carried(content: Json, sender: SenderMap) -> Message | None:
    """The message that came along; None where there is none that can be read."""
    entries = content.get("entry", ()) if isinstance(content, dict) else ()
    for entry in entries if isinstance(entries, list) else ():
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict) or resource.get("resourceType") != "Binary":
            continue
        if resource.get("contentType") == ER7 and isinstance(resource.get("data"), str):
            try:
                return parse(base64.b64decode(resource["data"], validate=True), charset=sender.charset)
            except (MappingError, binascii.Error, ValueError):
                return None
    return None
