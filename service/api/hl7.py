"""/api/v1/convert/hl7-to-fhir and back, for interface engines; nothing is stored."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from marshmallow import Schema

from mappings import exact_json
from mappings.fields import Code, Line
from mappings.hl7v2 import SenderMap, dump, parse
from mappings.hl7v2.catalogue import CHOICES
from mappings.hl7v2.fhir import ER7, from_fhir, to_fhir
from mappings.hl7v2.framing import messages
from mappings.identity import SOURCE
from mappings.rows import Issue, MappingError
from mappings.stream import Converter
from mappings.validate import validate
from service.problems import FHIR_JSON, Refused, listed
from service.web import JSON_TYPES, Blueprint, answer, check_content_type, read_body, services

from . import described
from .convert import together

Json = Any
blueprint = Blueprint(
    "hl7", __name__, url_prefix="/api/v1/convert", description="Stateless conversion of HL7 v2"
)
NAMED = {"description": "the sender's file, by its name in the folder ITB_HL7_SENDERS (docs/hl7.md)"}


class SenderQuery(Schema):
    """Whose messages they are."""

    sender = Line(pattern=SOURCE.pattern, words="must match [a-z0-9-]{1,40}", metadata=NAMED)


class ToHl7Query(SenderQuery):
    """To whom, and as which message."""

    message = Code(*CHOICES, metadata={"description": "another message than that of the event's type"})
    source = Line(
        pattern=SOURCE.pattern,
        words="must match [a-z0-9-]{1,40}",
        load_default="fhir",
        metadata={"description": "the `source` of events that do not come from an event of ours"},
    )


def _sender(query: Json) -> SenderMap:
    name = query.get("sender")
    if name is None:
        return SenderMap()
    found = services().senders.get(name)
    if found is None:
        raise Refused(422, f"no file of a sender {name} is configured", rule="sender", path="sender")
    return found


@blueprint.route("/hl7-to-fhir", methods=["POST"])
@blueprint.arguments(SenderQuery(), location="query")
@blueprint.doc(
    requestBody=described.body("Er7", ER7),
    responses=described.answers(400, 413, 415, 422, ok="Resource", types=(FHIR_JSON, described.JSON)),
)
def convert_hl7_to_fhir(query: Json) -> Response:
    """HL7 v2 messages (one, or several back to back) to one FHIR transaction Bundle.

    One refused message refuses the whole; an issue's path begins with its message, `[0]` for the first of
    several. With `Accept: application/json` the answer is `{"bundle", "notes"}`: also what was converted.
    """
    check_content_type(ER7)
    sender = _sender(query)
    sent = list(messages([read_body(services().settings.max_body_bytes)]))
    if not sent:
        raise Refused(422, "no message was sent", rule="required")
    converter = Converter()
    bundles: list[Json] = []
    issues: list[Issue] = []
    notes: list[Issue] = []
    for number, data in sent:
        at = f"[{number - 1}]." if len(sent) > 1 else ""
        try:
            if isinstance(data, MappingError):
                raise data
            made = to_fhir(parse(data, charset=sender.charset), sender, converter)
        except MappingError as error:
            issues += _under(at, error.issues)
            continue
        bundles += made.bundles
        issues += _under(at, made.errors)
        notes += _under(at, made.notes)
    if len(bundles) > 1 and any(bundle["type"] != "transaction" for bundle in bundles):
        raise Refused(422, "a message about a patient (ADT) is converted alone", rule="message")
    bundle = together(bundles) if len(bundles) != 1 else bundles[0]
    issues = issues or validate(bundle)
    if issues:
        raise MappingError(issues)
    if request.accept_mimetypes.best_match([FHIR_JSON, described.JSON]) == described.JSON:
        return answer({"bundle": bundle, "notes": listed(notes)})
    return answer(bundle, mimetype=FHIR_JSON)


def _under(at: str, issues: list[Issue]) -> list[Issue]:
    return [Issue(f"{at}{i.path}", i.rule, i.message) for i in issues]


@blueprint.route("/fhir-to-hl7", methods=["POST"])
@blueprint.arguments(ToHl7Query(), location="query")
@blueprint.doc(
    requestBody=described.body("Resource", FHIR_JSON, described.JSON),
    responses=described.answers(400, 413, 415, 422, ok="Er7", types=(ER7,)),
)
def convert_fhir_to_hl7(query: Json) -> Response:
    """A Bundle or a resource to HL7 v2 messages, back to back; the original where it came along.

    The character set is that of MSH-18, UTF-8 in what is written anew.
    """
    check_content_type(*JSON_TYPES)
    content = exact_json.loads(read_body(services().settings.max_body_bytes))
    made = from_fhir(content, _sender(query), source=query["source"], message=query.get("message", ""))
    if made.errors:
        raise MappingError(made.errors)
    return Response(b"".join(dump(message) for message in made.messages), mimetype=ER7)
