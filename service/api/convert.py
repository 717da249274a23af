"""/api/v1/convert: events to FHIR and back for interface engines; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from flask import Response, request
from marshmallow import Schema

from mappings import exact_json, read_fhir
from mappings.event import load_event
from mappings.fields import Line
from mappings.identity import conditional, point_references, urn
from mappings.rows import Issue, MappingError
from mappings.stream import Converter
from mappings.validate import validate
from service.problems import FHIR_JSON, Refused, listed
from service.web import JSON_TYPES, NDJSON, Blueprint, answer, check_content_type, read_body, services

from . import described

Json = Any
blueprint = Blueprint("convert", __name__, url_prefix="/api/v1/convert", description="Stateless conversion")


@blueprint.route("/to-fhir", methods=["POST"])
@blueprint.doc(
    requestBody=described.events_body(),
    responses=described.answers(400, 413, 415, 422, ok="Resource", types=(FHIR_JSON,)),
)
def convert_to_fhir() -> Response:
    """Events in their order (one, an array, or NDJSON) to one FHIR transaction Bundle.

    A dose change closes the one before it; where several events write one resource, the last one counts.
    A single refused event refuses the whole; its issues begin with its place, `[0]` for the first.
    """
    kind = check_content_type("application/json", NDJSON)
    body = read_body(services().settings.max_body_bytes)
    if kind == NDJSON:
        lines = exact_json.lines(body.split(b"\n"))
        sent = [(f"[{n}]", partial(exact_json.loads, line)) for n, (_, line) in enumerate(lines)]
    else:
        raw = exact_json.loads(body)
        items = raw if isinstance(raw, list) else [raw]
        places = [f"[{n}]" for n in range(len(items))] if isinstance(raw, list) else [""]
        sent = [(at, partial(_same, item)) for at, item in zip(places, items, strict=True)]
    if not sent:
        raise Refused(422, "no event was sent", rule="required")
    bundles, issues = _converted(sent)
    made = together(bundles)
    issues = issues or validate(made)
    if issues:
        raise MappingError(issues)
    return answer(made, mimetype=FHIR_JSON)


def _same(value: Json) -> Json:
    return value


def _converted(sent: Iterable[tuple[str, Callable[[], Json]]]) -> tuple[list[Json], list[Issue]]:
    converter = Converter()
    bundles: list[Json] = []
    issues: list[Issue] = []
    for at, read in sent:
        try:
            bundles.append(converter.to_fhir(load_event(read())))
        except MappingError as error:
            issues.extend(Issue(_under(at, i.path), i.rule, i.message) for i in error.issues)
    return bundles, issues


def _under(at: str, path: str) -> str:
    if not at:
        return path
    return at if path == "$" else f"{at}.{path}"


def together(bundles: Iterable[Json]) -> Json:
    """One transaction of several: each identity once, as it was last written, references inside it."""
    entries: dict[str, Json] = {}  # by fullUrl, which follows from the identity
    for bundle in bundles:
        for entry in bundle["entry"]:
            entries[entry["fullUrl"]] = entry

    def lookup(type: str, system: str, value: str) -> str | None:
        if urn(system, value) in entries:
            return urn(system, value)
        return conditional(type, system, value) if type == "Patient" else None

    for entry in entries.values():
        point_references(entry["resource"], lookup)
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries.values())}


class FromFhirQuery(Schema):
    """Who sent the resources."""

    source = Line(
        pattern=r"[a-z0-9-]{1,40}",
        words="must match [a-z0-9-]{1,40}",
        load_default="fhir",
        metadata={"description": "the `source` of events that do not come from an event of ours"},
    )


@blueprint.route("/from-fhir", methods=["POST"])
@blueprint.arguments(FromFhirQuery(), location="query")
@blueprint.doc(
    requestBody=described.body("Resource", FHIR_JSON, described.JSON),
    responses=described.answers(400, 413, 415, 422, ok="Reading", types=(described.JSON, NDJSON)),
)
def convert_from_fhir(query: Json) -> Response:
    """A Bundle or a resource to events; `notes` says what was converted on the way (mg read as ug) and
    which rules of R4 the resources break: reading is lenient where nothing must be guessed.

    With `Accept: application/x-ndjson` the events alone, one a line.
    """
    check_content_type(*JSON_TYPES)
    content = exact_json.loads(read_body(services().settings.max_body_bytes))
    reading = read_fhir(content, source=query["source"])
    if reading.errors:
        raise MappingError(reading.errors)
    if request.accept_mimetypes.best_match(["application/json", NDJSON]) == NDJSON:
        lines = (exact_json.dumps(event) + b"\n" for event in reading.events)
        return Response(b"".join(lines), mimetype=NDJSON)
    notes = [*reading.notes, *validate(content)]
    return answer({"events": reading.events, "notes": listed(notes)})
