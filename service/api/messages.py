"""/api/v1/messages: HL7 v2 messages as they came, how they were answered, what waits and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Response
from marshmallow import fields
from sqlalchemy import Connection

from mappings.fields import Code, Line
from mappings.hl7v2 import Message, parse
from mappings.rows import MappingError
from service.mllp.framing import unframed
from service.mllp.intake import retry
from service.mllp.senders import Sender, SendersError, load
from service.problems import Refused, listed
from service.store import events, messages
from service.store.messages import STATUSES, Stored
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import Page, cut, page

Json = Any
HL7 = "x-application/hl7-v2+er7"
blueprint = Blueprint(
    "messages", __name__, url_prefix="/api/v1/messages", description="HL7 v2 messages that were received"
)


class MessageQuery(Page):
    """Filters of the list; `source_message` is a Provenance.entity's identifier, `sha256:…`."""

    status = Code(*STATUSES)
    sender = fields.String()
    source_message = Line(pattern=r"sha256:[0-9a-f]{64}", words="sha256: and 64 hexadecimal digits")


def shown(message: Stored) -> Json:
    """A message as JSON, without its content."""
    return {
        "id": message.id,
        "sender": message.sender,
        "application": message.application,
        "facility": message.facility,
        "control_id": message.control_id,
        "type": message.type,
        "status": message.status,
        "issues": listed(message.issues),
        "received_at": message.received_at,
        "updated_at": message.updated_at,
    }


def _whole(c: Connection, tenant_id: int, message: Stored) -> Json:
    told = [events.by_seq(c, tenant_id, seq) for seq in messages.seqs(c, tenant_id, message.id)]
    return shown(message) | {
        "message": _text(message.raw),
        "answers": [_text(one) for one in unframed(message.answer)],
        "events": [
            {
                "source": one.event["source"],
                "id": one.event["id"],
                "version": one.version,
                "type": one.event["type"],
                "source_message": f"sha256:{one.content_hash}",
            }
            for one in told
            if one is not None
        ],
    }


def _text(raw: bytes) -> str:
    """A line a segment, for reading; GET …/raw has the bytes."""
    message = _parsed(raw)
    codec = message.codec if message is not None else "latin-1"
    return raw.decode(codec).replace("\r\n", "\n").replace("\r", "\n")


def _parsed(raw: bytes) -> Message | None:
    try:
        return parse(raw)
    except MappingError:
        return None


@blueprint.route("", methods=["GET"])
@blueprint.arguments(MessageQuery(), location="query")
@blueprint.doc(responses=described.answers(422, ok="MessagePage"))
def list_messages(query: Json) -> Response:
    """The messages in the order of arrival; `status=parked` waits for a change of the sender's file."""
    source_message = query.get("source_message")
    with services().store.read() as c:
        found = messages.search(
            c,
            caller().tenant_id,
            limit=query["limit"] + 1,
            after_id=query["cursor"],
            status=query.get("status"),
            sender=query.get("sender"),
            source_message=source_message and source_message.removeprefix("sha256:"),
        )
    listed_, last = cut(found, query["limit"])
    return answer(page("messages", [shown(one) for one in listed_], last and last.id))


@blueprint.route("/<int:message_id>", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="Message"))
def get_message(message_id: int) -> Response:
    """A message with its content, its answers and the events that it became."""
    with services().store.read() as c:
        return answer(_whole(c, caller().tenant_id, _found(c, message_id)))


@blueprint.route("/<int:message_id>/raw", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="RawMessage", types=(HL7,)))
def get_raw_message(message_id: int) -> Response:
    """A message byte for byte."""
    with services().store.read() as c:
        return Response(_found(c, message_id).raw, mimetype=HL7)


@blueprint.route("/<int:message_id>/retry", methods=["POST"])
@blueprint.doc(responses=described.answers(404, 409, 422, 503, ok="Message"))
def retry_message(message_id: int) -> Response:
    """Read a parked or refused message again, by its sender's file as it is now."""
    made, who = services(), caller()
    with made.store.read() as c:
        message = _found(c, message_id)
    if message.status == "taken":
        raise Refused(409, "its events are in the ledger already", rule="taken", path="status")
    issues = retry(made.store, who.tenant_id, message, _senders(), made.clock, who.name)
    if issues:
        raise MappingError(list(issues))
    return get_message(message_id)


def _senders() -> list[Sender]:
    path = services().settings.mllp_senders
    try:
        return load(Path(path)) if path else []
    except SendersError as error:
        raise Refused(503, f"the file of senders cannot be used: {error}", rule="senders") from None


def _found(c: Connection, message_id: int) -> Stored:
    found = messages.find(c, caller().tenant_id, message_id)
    if found is None:
        raise Refused(404, "no message has this number")
    return found
