"""/fhir: the interaction table. A handler parses, calls one function, and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from mappings import Issue, MappingError, read_fhir
from mappings.codes import ITB
from mappings.event import identity, load_event, version
from mappings.identity import client_id, resource_identity
from mappings.validate import validate
from service import problems
from service.intake import admit
from service.problems import FHIR_JSON, Refused
from service.store import endpoints, events
from service.web import answer, caller, check_content_type, read_json, services

from . import record, search

Json = Any
blueprint = Blueprint("fhir", __name__, url_prefix="/fhir")
PAGE, LARGEST_PAGE = 100, 1000
JSON_RANGES = {FHIR_JSON, "application/json", "application/json+fhir", "application/*", "*/*"}


@blueprint.before_request
def only_json() -> None:
    """406 before anything is done; no Accept is any, parameters such as fhirVersion do not matter."""
    asked = request.accept_mimetypes
    if asked and not any(weight and range.partition(";")[0] in JSON_RANGES for range, weight in asked):
        raise Refused(406, "only JSON is given")


def metadata() -> Response:
    """The CapabilityStatement: just what the table below can do."""
    return _fhir(capability(services().clock().isoformat(timespec="seconds")))


def read(type: str, id: str) -> Response:
    """One resource."""
    _known(type)
    with services().store.read() as c:
        found = [r for r in record.record(c, caller().tenant_id, type) if r["id"] == id]
    if not found:
        raise Refused(404, f"there is no {type} with this id")
    made = _fhir(found[0])
    made.headers["ETag"] = f'W/"{found[0]["meta"]["versionId"]}"'
    return made


def search_type(type: str) -> Response:
    """A search of one type, by GET or POST."""
    _known(type)
    if type == "_search":
        raise Refused(404, "a search names a type")
    asked = list(request.args.items(multi=True)) + list(request.form.items(multi=True))
    lenient = "handling=lenient" in request.headers.get("Prefer", "")
    with services().store.read() as c:
        held = record.record(c, caller().tenant_id, type, _one_patient(asked))
    found = search.select(type, held, asked, lenient)
    return _fhir(_page(type, found, asked))


def validate_any(type: str | None = None) -> Response:
    """$validate: what is wrong with a resource, always 200."""
    resource = _body()
    issues = validate(resource)
    if type is not None and isinstance(resource, dict) and resource.get("resourceType") != type:
        issues = [Issue("resourceType", "resource-type", f"must be {type}"), *issues]
    if not issues:
        fine = Issue("$", "valid", "No issues found")
        return _fhir(problems.outcome([fine], "informational", "information"))
    return _fhir(problems.outcome(issues))


def transaction() -> Response:
    """A transaction (all or nothing) or batch (each entry by itself) of resources that tell events."""
    bundle = _body()
    kind = bundle.get("type") if isinstance(bundle, dict) else None
    if kind not in ("transaction", "batch"):
        raise Refused(422, "a Bundle of type transaction or batch is needed", path="Bundle.type")
    issues = validate(bundle)
    if issues:
        raise MappingError(issues)
    if kind == "transaction":
        return _fhir(_response(kind, _take_all(bundle)))
    taken = [_take_alone(entry) for entry in bundle.get("entry", [])]
    return _fhir(_response(kind, taken))


def write(type: str, id: str | None = None) -> Response:
    """POST or PUT of a single resource that tells an event by itself."""
    _known(type)
    resource = _body()
    if not isinstance(resource, dict) or resource.get("resourceType") != type:
        raise Refused(422, f"the resource must be a {type}", path="resourceType")
    issues = validate(resource)
    if issues:
        raise MappingError(issues)
    (taken,) = _take_all({"resourceType": "Bundle", "type": "batch", "entry": [{"resource": resource}]})
    made = _fhir(taken["outcome"], int(taken["status"][:3]))
    made.headers["Location"] = f"/fhir/{taken['location']}"
    return made


TABLE: tuple[tuple[str, str, Callable[..., Response]], ...] = (
    ("GET", "/metadata", metadata),
    ("POST", "", transaction),
    ("POST", "/", transaction),
    ("POST", "/$validate", validate_any),
    ("POST", "/<type>/$validate", validate_any),
    ("GET", "/<type>", search_type),
    ("POST", "/<type>/_search", search_type),
    ("GET", "/<type>/<id>", read),
    ("POST", "/<type>", write),
    ("PUT", "/<type>/<id>", write),
)
for method, rule, handler in TABLE:
    blueprint.add_url_rule(rule, f"{method} {rule}", handler, methods=[method])


# --- helpers of the handlers ------------------------------------------------------------------------------


def _known(type: str) -> None:
    if type not in record.EVENTS_OF:
        raise Refused(
            404, f"this server has {', '.join(record.EVENTS_OF)}", rule="not-supported", path="resourceType"
        )


def _body() -> Json:
    check_content_type(FHIR_JSON, "application/json")
    return read_json(services().settings.max_body_bytes)


def _fhir(resource: Json, status: int = 200) -> Response:
    return answer(resource, status, FHIR_JSON)


def _one_patient(asked: list[tuple[str, str]]) -> tuple[str, str] | None:
    named = [value for name, value in asked if name in ("patient", "patient:identifier")]
    system, _, value = named[0].partition("|") if len(named) == 1 else ("", "", "")
    return (system, value) if system and value and "," not in named[0] else None


def _page(type: str, found: list[Json], asked: list[tuple[str, str]]) -> Json:
    count, at = _number(asked, "_count", PAGE), _number(asked, "_offset", 0)
    count = min(count, LARGEST_PAGE)
    rest = [(name, value) for name, value in asked if name not in ("_offset", "_count")]
    base = f"{request.url_root.rstrip('/')}/fhir"

    def link(offset: int) -> str:
        return f"{base}/{type}?{urlencode([*rest, ('_count', count), ('_offset', offset)])}"

    links = [{"relation": "self", "url": link(at)}]
    if count and at + count < len(found):
        links.append({"relation": "next", "url": link(at + count)})
    entries = [
        {"fullUrl": f"{base}/{type}/{r['id']}", "resource": r, "search": {"mode": "match"}}
        for r in found[at : at + count]
    ]
    now = services().clock().isoformat(timespec="milliseconds")
    made = {"resourceType": "Bundle", "meta": {"lastUpdated": now}, "type": "searchset", "total": len(found)}
    return made | {"link": links} | ({"entry": entries} if entries else {})


def _number(asked: list[tuple[str, str]], name: str, default: int) -> int:
    text = next((value for n, value in asked if n == name), str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise MappingError([Issue(name, "search", "must be a whole number")])
    return int(text)


def _take_all(bundle: Json) -> list[Json]:
    """Every event of the bundle into the ledger, or none; raises `MappingError`."""
    reading = read_fhir(bundle, source=caller().name)
    if reading.errors:
        raise MappingError(reading.errors)
    now = services().clock()
    taken = []
    with services().store.write() as c:
        for event in reading.events:
            taken.append(_take(c, event, now))
    return taken


def _take(c: Any, event: Json, now: Any) -> Json:
    """One event: a record that is known and says something else becomes its next version."""
    known = events.find(c, caller().tenant_id, *identity(event))
    if known and version(event) <= known[-1].version and known[-1].event != event:
        event = load_event({**event, "version": known[-1].version + 1})
    done = admit(
        c,
        caller().tenant_id,
        event,
        received_at=now,
        actor=caller().name,
        endpoints=endpoints.every(c, caller().tenant_id),
    )
    stored = next(s for s in events.find(c, caller().tenant_id, *identity(event)) if s.seq == done.seq)
    (first, *_) = record.shown([stored])
    status = "201 Created" if done.outcome == "accepted" else "200 OK"
    words = Issue("$", done.outcome, f"{event['source']}/{event['id']}: {done.outcome}")
    return {
        "status": status,
        "location": f"{first['resourceType']}/{client_id(*resource_identity(first))}",
        "etag": f'W/"{stored.version}"',
        "outcome": problems.outcome([words], "informational", "information"),
    }


def _take_alone(entry: Json) -> Json:
    try:
        taken = _take_all({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
        return taken[0]
    except MappingError as error:
        return {"status": "422 Unprocessable Entity", "outcome": problems.outcome(error.issues)}


def _response(kind: str, taken: list[Json]) -> Json:
    entries = [{"response": one} for one in taken]
    made = {"resourceType": "Bundle", "type": f"{kind}-response"}
    return made | ({"entry": entries} if entries else {})


def capability(date: str) -> Json:
    """The CapabilityStatement of this server."""
    resources = [
        {
            "type": type,
            "interaction": [{"code": code} for code in ("read", "search-type", *WRITES.get(type, ()))],
            "versioning": "versioned",
            "searchParam": [
                {"name": name, "type": search.KINDS[name]} for name in parameters if ":" not in name
            ],
        }
        for type, parameters in search.PARAMETERS.items()
    ]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "itb-fhir"},
        "implementation": {"description": "Intrathecal baclofen pump records"},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON],
        "instantiates": [f"{ITB}/CapabilityStatement/itb-fhir"],
        "rest": [
            {
                "mode": "server",
                "resource": resources,
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                "operation": [
                    {
                        "name": "validate",
                        "definition": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
                    }
                ],
            }
        ],
    }


ALONE = (
    "Appointment",
    "Condition",
    "MedicationAdministration",
    "MedicationRequest",
    "Observation",
    "Procedure",
    "Task",
)
"""What can tell an event by a single resource; the others come together, in a transaction."""
WRITES = dict.fromkeys(ALONE, ("create", "update"))
