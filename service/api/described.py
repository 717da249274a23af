"""How bodies look in /openapi.json: JSON Schemas, those of events derived from the marshmallow schemas."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema

from mappings import fields
from mappings.event import MAPPINGS
from service.intake import OUTCOMES
from service.problems import PROBLEM_JSON
from service.store import messages
from service.store.conflicts import KINDS as CONFLICT_KINDS
from service.store.conflicts import STATUSES as CONFLICT_STATUSES
from service.store.deliveries import STATUSES
from service.web import NDJSON

Json = Any
JSON = "application/json"


def json_schema(schema: Schema) -> Json:
    """The JSON Schema of what a marshmallow schema of ours loads."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, field in schema.fields.items() if field.required],
        "properties": {name: _field(field) for name, field in schema.fields.items()},
    }


def _field(field: Any) -> Json:
    """The JSON Schema of one of the strict fields; an unknown kind of field is a bug here."""
    match field:
        case fields.Line():
            length = {"type": "string", "maxLength": field.most}
            return length | ({"description": field.words} if field.words else {})
        case fields.Prose():
            return {"type": "string"}
        case fields.Code():
            return {"type": "string", "enum": list(field.choices)}
        case fields.Flag():
            return {"type": "boolean"}
        case fields.Whole():
            return {"type": "integer", "minimum": field.least, "maximum": field.most}
        case fields.Moment():
            return {"type": "string", "format": "date-time", "description": "ISO 8601 with offset"}
        case fields.Day():
            return {"type": "string", "description": "YYYY-MM-DD"}
        case fields.Quantity():
            return _quantity(field)
        case fields.Part():
            inner = json_schema(field.schema)
            return {"type": "array", "items": inner, "minItems": 1} if field.many else inner
        case fields.Words():
            return {"type": "array", "items": {"type": "string", "enum": list(field.choices)}}
    return _by_words(field)


def _by_words(field: Any) -> Json:
    """A field of one type of event alone, such as a clock time: text with a rule of its own."""
    return {"type": "string", "description": type(field).__doc__ or ""}


def _quantity(field: fields.Quantity) -> Json:
    lowest = "exclusiveMinimum" if field.above_zero else "minimum"
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["value", "unit"],
        "properties": {
            "value": {"type": "number", lowest: 0, "description": "kept digit for digit"},
            "unit": {"type": "string", "enum": list(field.units), "description": "UCUM; mcg is read as ug"},
        },
    }


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list_of(name: str) -> Json:
    return {"type": "array", "items": ref(name)}


def ref(name: str) -> Json:
    """A reference to one of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


FIELD_TYPES = {
    fields.Line: "string",
    fields.Prose: "string",
    fields.Code: "string",
    fields.Moment: "string",
    fields.Day: "string",
    fields.Flag: "boolean",
    fields.Whole: "integer",
    fields.Part: "object",
}
"""What our fields are called in the schemas that flask-smorest describes by itself."""

TEXT: Json = {"type": "string"}
MAYBE: Json = {"type": ["string", "null"]}
NUMBER: Json = {"type": "integer"}
EVENT_NAMES = {kind: f"{kind.title().replace('-', '')}Event" for kind in MAPPINGS}

COMPONENTS: dict[str, Json] = {
    **{EVENT_NAMES[kind]: json_schema(mapping.SCHEMA) for kind, mapping in MAPPINGS.items()},
    "Event": {
        "oneOf": [ref(name) for name in EVENT_NAMES.values()],
        "discriminator": {
            "propertyName": "type",
            "mapping": {kind: ref(name)["$ref"] for kind, name in EVENT_NAMES.items()},
        },
    },
    "Issue": _object("path rule message", path=TEXT, rule=TEXT, message=TEXT),
    "Problem": _object(
        "type title status detail errors",
        type=TEXT,
        title=TEXT,
        status=NUMBER,
        detail=TEXT,
        errors=_list_of("Issue"),
    ),
    "Result": _object(
        "source id outcome issues deliveries",
        source=MAYBE,
        id=MAYBE,
        outcome={"type": "string", "enum": list(OUTCOMES)},
        issues=_list_of("Issue"),
        deliveries={"type": "array", "items": _object("id endpoint status")},
    ),
    "EventPage": _object("events next_cursor", events=_list_of("Event"), next_cursor=MAYBE),
    "Record": _object(
        "event versions",
        event=ref("Event"),
        versions={
            "type": "array",
            "items": _object(
                "version status received_at origin event deliveries",
                version=NUMBER,
                status=TEXT,
                received_at=TEXT,
                origin=MAYBE,
                event=ref("Event"),
                deliveries=_list_of("Delivery"),
            ),
        },
    ),
    "Explanation": _object(
        "source id map_version elements",
        source=TEXT,
        id=TEXT,
        map_version=TEXT,
        elements={"type": "array", "items": _object("resource path value from how rule")},
    ),
    "Pump": {"type": "object", "description": "the state of one pump, folded from its events"},
    "PumpPage": _object("pumps next_cursor", pumps=_list_of("Pump"), next_cursor=MAYBE),
    "Er7": {"type": "string", "description": "HL7 v2 messages (ER7), back to back"},
    "Resource": {"type": "object", "description": "a FHIR R4 resource or Bundle"},
    "Reading": _object("events notes", events=_list_of("Event"), notes=_list_of("Issue")),
    "Endpoint": _object(
        "name url enabled options created_at read_until",
        name=TEXT,
        url=TEXT,
        enabled={"type": "boolean"},
        options={"type": "object"},
        created_at=TEXT,
        read_until=MAYBE,
        server={
            "type": ["object", "null"],
            "description": "what its CapabilityStatement says, once it was read",
        },
        drift={"type": ["object", "null"], "description": "the newest comparison with the ledger, in short"},
        breaker=_object(
            "state failures until",
            state={"type": "string", "enum": ["closed", "open", "half-open"]},
            failures=NUMBER,
            until=MAYBE,
        ),
    ),
    "Scorecard": _object(
        "endpoint url software fhir_version problems by_option system types events",
        endpoint=TEXT,
        url=TEXT,
        software=TEXT,
        fhir_version=TEXT,
        problems={"type": "array", "items": TEXT},
        by_option={"type": "array", "items": TEXT},
        system={"type": "object"},
        types={"type": "array", "items": _object("type written why interactions found_by")},
        events={"type": "array", "items": _object("type rung sends left_out lost why judged")},
    ),
    "Drift": _object(
        "comparison findings next_cursor",
        comparison={"type": ["object", "null"], "description": "when, by whom, how many records, counts"},
        findings={
            "type": "array",
            "items": _object("kind resource_type identifier remote_ids reason repaired"),
        },
        next_cursor=MAYBE,
    ),
    "Case": _object(
        "id endpoint kind resource_type identifier remote_ids status reason opened_at updated_at",
        id=NUMBER,
        endpoint=TEXT,
        kind=TEXT,
        resource_type=TEXT,
        identifier=_object("system value", system=TEXT, value=TEXT),
        remote_ids={"type": "array", "items": TEXT},
        status={"type": "string", "enum": ["open", "closed"]},
        reason=MAYBE,
        opened_at=TEXT,
        updated_at=TEXT,
    ),
    "CasePage": _object("cases next_cursor", cases=_list_of("Case"), next_cursor=MAYBE),
    "EndpointList": _object("endpoints", endpoints=_list_of("Endpoint")),
    "Delivery": _object(
        "id endpoint status attempts reason",
        id=NUMBER,
        endpoint=TEXT,
        event=_object("source id version", source=TEXT, id=TEXT, version=NUMBER),
        status={"type": "string", "enum": list(STATUSES)},
        attempts=NUMBER,
        failure=MAYBE,
        next_try_at=TEXT,
        last_status={"type": ["integer", "null"]},
        rung={"type": ["string", "null"], "description": "the form in which it went (docs/servers.md)"},
        loss={
            "type": ["object", "null"],
            "description": "left_out: resource types that the server refuses; lost: fields of the event that "
            "cannot be read back from what it stored",
        },
        reason=MAYBE,
        conflict={"type": ["integer", "null"]},
    ),
    "Changed": _object("endpoint changed", endpoint=TEXT, changed=NUMBER),
    "Message": _object(
        "id sender application facility control_id type status issues received_at updated_at",
        id=NUMBER,
        sender=TEXT,
        application=TEXT,
        facility=TEXT,
        control_id=TEXT,
        type=TEXT,
        status={"type": "string", "enum": list(messages.STATUSES)},
        issues=_list_of("Issue"),
        received_at=TEXT,
        updated_at=TEXT,
        message={"type": "string", "description": "a line a segment; of one message only"},
        answers={"type": "array", "items": TEXT},
        events={"type": "array", "items": _object("source id version type source_message")},
    ),
    "MessagePage": _object("messages next_cursor", messages=_list_of("Message"), next_cursor=MAYBE),
    "RawMessage": {"type": "string", "description": "an HL7 v2 message, byte for byte"},
    "Conflict": _object(
        "id endpoint kind source event_id resource fields two_persons status",
        id=NUMBER,
        endpoint=TEXT,
        kind={"type": "string", "enum": list(CONFLICT_KINDS)},
        source=TEXT,
        event_id=TEXT,
        resource=TEXT,
        version_id=MAYBE,
        fields={"type": "array", "items": _object("path owner", path=TEXT, owner=TEXT)},
        two_persons={"type": "boolean"},
        status={"type": "string", "enum": list(CONFLICT_STATUSES)},
        proposal={"type": ["object", "null"]},
        proposed_by=MAYBE,
        resolved_by=MAYBE,
        opened_at=TEXT,
        updated_at=TEXT,
        base={"type": ["object", "null"]},
        ours={"type": "object"},
        theirs={"type": ["object", "null"]},
        raw=MAYBE,
    ),
    "ConflictPage": _object("conflicts next_cursor", conflicts=_list_of("Conflict"), next_cursor=MAYBE),
    "DeliveryPage": _object("deliveries next_cursor", deliveries=_list_of("Delivery"), next_cursor=MAYBE),
}


def answers(*statuses: int, ok: str, status: int = 200, types: tuple[str, ...] = (JSON,)) -> Json:
    """The `responses` of an operation: component `ok`, and a problem for each of `statuses` and 401."""
    made: Json = {str(status): _response("done", ok, types)}
    for refused in sorted({401, *statuses}):
        made[str(refused)] = _response("refused", "Problem", (PROBLEM_JSON,))
    return made


def _response(words: str, name: str, types: tuple[str, ...]) -> Json:
    return {"description": words, "content": {type: {"schema": ref(name)} for type in types}}


def events_body() -> Json:
    """The `requestBody` that takes one event, an array, or NDJSON."""
    one_or_many = {"oneOf": [ref("Event"), _list_of("Event")]}
    return {
        "required": True,
        "content": {JSON: {"schema": one_or_many}, NDJSON: {"schema": ref("Event")}},
    }


def body(name: str, *types: str) -> Json:
    """The `requestBody` of one component."""
    return {"required": True, "content": {type: {"schema": ref(name)} for type in types or (JSON,)}}
