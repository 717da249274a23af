"""/api/v1/pumps: what each pump holds and runs, folded from its events, now or at any moment."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Response
from marshmallow import Schema, fields, validate
from sqlalchemy import Connection

from mappings.fields import Moment, instant
from service.problems import Refused
from service.pump.ledger import BESIDE, pump_state, to_json
from service.pump.state import CRITICAL, WARNING, OpenIssue
from service.store import conflicts, endpoints, events
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import cut, page

Json = Any
blueprint = Blueprint("pumps", __name__, url_prefix="/api/v1/pumps", description="Pumps as they are")


class At(Schema):
    """The moment that is asked for."""

    at = Moment(metadata={"description": "the state at that time, with offset; now when left out"})


class PumpQuery(At):
    """A page of pumps."""

    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(load_default="", metadata={"description": "the serial to continue after"})


def _moment(query: Json) -> datetime:
    return instant(query["at"]) if "at" in query else services().clock()


def _state(c: Connection, serial: str, at: datetime) -> Json:
    tenant = caller().tenant_id
    found = [stored.event for stored in events.timeline(c, tenant, serial)]
    if not found:
        return None
    patient = (found[-1]["patient"]["system"], found[-1]["patient"]["value"])
    near = events.beside(c, tenant, pump=serial, patient=patient, types=BESIDE)
    state = to_json(pump_state([*found, *(stored.event for stored in near)], at, pump=serial))
    state["open_issues"] += _conflict_issues(c, tenant, serial)
    return state


def _conflict_issues(c: Connection, tenant: int, serial: str) -> list[OpenIssue]:
    """What the EHRs say otherwise about this pump's records, until a person has decided."""
    names = {endpoint.id: endpoint.name for endpoint in endpoints.every(c, tenant)}
    made = []
    for one in conflicts.open_in_lane(c, tenant, f"pump:{serial}"):
        what = "is deleted there" if one.kind == "deleted" else "says otherwise there"
        words = f"{one.source}/{one.event_id} {what}: conflict {one.id} with {names[one.endpoint_id]}"
        paths = ", ".join(field["path"] for field in one.fields)
        made.append(OpenIssue("S1", CRITICAL if one.two_persons else WARNING, words, paths))
    return made


@blueprint.route("", methods=["GET"])
@blueprint.arguments(PumpQuery(), location="query")
@blueprint.doc(responses=described.answers(422, ok="PumpPage"))
def list_pumps(query: Json) -> Response:
    """The pumps that the ledger names, by serial number."""
    at = _moment(query)
    with services().store.read() as c:
        found = events.pumps(c, caller().tenant_id, limit=query["limit"] + 1, after=query["cursor"])
        serials, last = cut(found, query["limit"])
        states = [_state(c, serial, at) for serial in serials]
    return answer(page("pumps", states, last))


@blueprint.route("/<path:serial>", methods=["GET"])
@blueprint.arguments(At(), location="query")
@blueprint.doc(responses=described.answers(404, 422, ok="Pump"))
def get_pump(query: Json, serial: str) -> Response:
    """One pump."""
    at = _moment(query)
    with services().store.read() as c:
        state = _state(c, serial, at)
    if state is None:
        raise Refused(404, "no event names a pump with this serial number")
    return answer(state)
