"""/fhir: the interaction table. A handler parses, calls one function, and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from mappings import Issue, MappingError, read_fhir
from mappings.bundle import is_telling
from mappings.codes import ITB
from mappings.event import identity, load_event, version
from mappings.identity import client_id, resource_identity, split_value
from mappings.validate import validate
from service import problems
from service.intake import admit
from service.problems import FHIR_JSON, Refused
from service.store import audit, endpoints, events
from service.store.events import content_hash
from service.store.times import stamp
from service.web import answer, caller, check_content_type, read_json, services

from . import record, search

Json = Any
blueprint = Blueprint("fhir", __name__, url_prefix="/fhir")
PAGE, LARGEST_PAGE = 100, 1000


@blueprint.before_request
def only_json() -> None:
    """406 before anything is done; no Accept is any, parameters such as fhirVersion do not matter."""
    asked = request.accept_mimetypes
    if asked and not any(weight and range.partition(";")[0] in search.JSON_RANGES for range, weight in asked):
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
    if isinstance(resource, dict) and resource.get("resourceType") == "Parameters":
        # R4 $validate: the resource as it is, or as the parameter `resource`
        named = [p for p in resource.get("parameter", []) if isinstance(p, dict)]
        resource = next((p.get("resource") for p in named if p.get("name") == "resource"), resource)
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
    if kind == "transaction":
        _strict(bundle)
        return _fhir(_response(kind, _take_all(bundle.get("entry", []))))
    _strict(_frame(bundle))
    answers = [_take_alone(at, entry) for at, entry in enumerate(bundle.get("entry", []))]
    return _fhir(_response(kind, answers))


def write(type: str, id: str | None = None) -> Response:
    """POST or PUT of a single resource that tells an event by itself."""
    _known(type)
    resource = _body()
    if not isinstance(resource, dict) or resource.get("resourceType") != type:
        raise Refused(422, f"the resource must be a {type}", path="resourceType")
    if id is not None and resource.get("id") != id:
        raise Refused(400, "must be the id of the address", path=f"{type}.id")
    _strict(resource)
    held = {"ifMatch": request.headers["If-Match"]} if "If-Match" in request.headers else {}
    (done,) = _take_all([{"resource": resource, "request": held}])
    made = _fhir(done["outcome"], int(done["status"][:3]))
    made.headers["Location"] = f"/fhir/{done['location']}"
    made.headers["ETag"] = done["etag"]
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


def _take_all(entries: list[Json]) -> list[Json]:
    """Every event of the entries into the ledger, or none; an answer for each entry (R4 transaction).

    Raises `MappingError`, or `Refused` where an entry's `ifMatch` no longer holds.
    """
    reading = read_fhir({"resourceType": "Bundle", "entry": entries}, source=caller().name)
    if reading.errors:
        raise MappingError(reading.errors)
    now = services().clock()
    telling = [at for at, entry in enumerate(entries) if is_telling(entry["resource"])]
    answers: dict[int, Json] = {}
    with services().store.write() as c:
        beside: dict[tuple[str, str], Json] = {}
        for at, event in zip(telling, reading.events, strict=True):
            done, made = _take(c, event, entries[at].get("request", {}).get("ifMatch"), now)
            notes = [note for note in reading.notes if _of_entry(note, at)]
            done = _noted(c, event, notes, done, now)
            told = next(resource for resource in made if is_telling(resource))
            answers[at] = done | {"location": _location(told)}
            beside |= {resource_identity(r): done | {"location": _location(r)} for r in made}
        for at, entry in enumerate(entries):
            if at not in answers:
                answers[at] = _beside(c, entry["resource"], beside)
    return [answers[at] for at in range(len(entries))]


def _take(c: Any, event: Json, if_match: str | None, now: Any) -> tuple[Json, list[Json]]:
    """One event: a record that is known and says something else becomes its next version.

    The answer, and the resources that the record is shown as.
    """
    known = events.find(c, caller().tenant_id, *identity(event))
    if if_match is not None and if_match != (f'W/"{known[-1].version}"' if known else None):
        why = f"version {known[-1].version} is here" if known else "there is no version of it here"
        raise Refused(412, f"{why}; read it again and repeat your change", path="ifMatch")
    said_before = content_hash(event) in {stored.content_hash for stored in known}
    if known and version(event) <= known[-1].version and not said_before:
        event = load_event({**event, "version": known[-1].version + 1})
    done = admit(
        c,
        caller().tenant_id,
        event,
        received_at=now,
        actor=caller().name,
        endpoints=endpoints.every(c, caller().tenant_id),
    )
    newest = events.find(c, caller().tenant_id, *identity(event))[-1]
    words = Issue("$", done.outcome, f"{event['source']}/{event['id']}: {done.outcome}")
    answer = {
        "status": "201 Created" if done.outcome == "accepted" else "200 OK",
        "etag": f'W/"{newest.version}"',
        "outcome": problems.outcome([words], "informational", "information"),
    }
    return answer, list(record.shown([newest]))


def _of_entry(note: Issue, at: int) -> bool:
    return note.path.startswith(f"Bundle.entry[{at}].")


def _noted(c: Any, event: Json, notes: list[Issue], done: Json, now: Any) -> Json:
    """What was converted on the way in goes into the audit, with the original, and into the answer."""
    if not notes:
        return done
    audit.converted(c, caller().tenant_id, event, notes, at=stamp(now), actor=caller().name)
    said = problems.outcome(notes, "informational", "information")["issue"]
    outcome = {**done["outcome"], "issue": [*done["outcome"]["issue"], *said]}
    return done | {"outcome": outcome}


def _location(resource: Json) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _beside(c: Any, resource: Json, made: dict[tuple[str, str], Json]) -> Json:
    """The answer for an entry that tells no event by itself: part of one, or what is not kept here."""
    try:
        key = resource_identity(resource)
    except (KeyError, ValueError):  # a Provenance of others has no id that we gave
        key = "", ""
    if key in made:
        return made[key]
    record_of = split_value(key[1])
    if record_of is not None and events.find(c, caller().tenant_id, *record_of):
        return {"status": "200 OK", "location": f"{resource['resourceType']}/{client_id(*key)}"}
    words = Issue("$", "not-ours", f"a {resource['resourceType']} that tells no event is not kept here")
    return {"status": "200 OK", "outcome": problems.outcome([words], "informational", "warning")}


def _take_alone(at: int, entry: Json) -> Json:
    try:
        _strict({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
        return _take_all([entry])[0]
    except MappingError as error:
        issues = [replace(i, path=i.path.replace("entry[0]", f"entry[{at}]", 1)) for i in error.issues]
        return {"status": "422 Unprocessable Entity", "outcome": problems.outcome(issues)}
    except Refused as error:
        return {"status": f"{error.status} Refused", "outcome": problems.refusal_outcome(error)}


def _strict(resource: Json) -> None:
    issues = validate(resource)
    if issues:
        raise MappingError(issues)


def _frame(bundle: Json) -> Json:
    """The Bundle without the resources, which in a batch are refused one by one."""
    entries = bundle.get("entry")
    if not isinstance(entries, list):
        return bundle
    bare = [{k: v for k, v in e.items() if k != "resource"} if isinstance(e, dict) else e for e in entries]
    return bundle | {"entry": bare}


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
    resources += [{"type": level, "operation": [_export(f"{level.lower()}-export")]} for level in EXPORTED]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "itb-fhir"},
        "implementation": {"description": "Intrathecal baclofen pump records"},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON],
        "instantiates": [f"{ITB}/CapabilityStatement/itb-fhir", f"{BULK}/CapabilityStatement/bulk-data"],
        "rest": [
            {
                "mode": "server",
                "resource": resources,
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                "operation": [
                    {
                        "name": "validate",
                        "definition": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
                    },
                    _export("export"),
                ],
            }
        ],
    }


BULK = "http://hl7.org/fhir/uv/bulkdata"
EXPORTED = ("Patient", "Group")
"""Types that this server has only as levels of a bulk export."""


def _export(operation: str) -> Json:
    return {"name": "export", "definition": f"{BULK}/OperationDefinition/{operation}"}


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
