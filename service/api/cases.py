"""/api/v1/cases: what a person must sort out in an EHR, such as one identity that it holds twice."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields

from mappings.envelope import Strictly
from mappings.fields import Code, Line
from service.problems import Refused
from service.store import audit, drift, endpoints
from service.store.drift import Case
from service.store.times import stamp
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import Page, cut, named_endpoints, page

Json = Any
blueprint = Blueprint("cases", __name__, url_prefix="/api/v1/cases", description="To be sorted out in an EHR")


class CaseQuery(Page):
    """Filters of the list."""

    status = Code("open", "closed")
    endpoint = fields.String()


class Closing(Strictly):
    """Why a case needs nobody any more."""

    reason = Line(required=True)


def shown(case: Case, endpoint: str) -> Json:
    """A case as JSON."""
    return {
        "id": case.id,
        "endpoint": endpoint,
        "kind": case.kind,
        "resource_type": case.resource_type,
        "identifier": {"system": case.system, "value": case.value},
        "remote_ids": case.remote_ids,
        "status": case.status,
        "reason": case.reason,
        "opened_at": case.opened_at,
        "updated_at": case.updated_at,
    }


@blueprint.route("", methods=["GET"])
@blueprint.arguments(CaseQuery(), location="query")
@blueprint.doc(responses=described.answers(404, 422, ok="CasePage"))
def list_cases(query: Json) -> Response:
    """The cases, oldest first."""
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        names, wanted = named_endpoints(c, tenant_id, query.get("endpoint"))
        found = drift.search_cases(
            c,
            tenant_id,
            limit=query["limit"] + 1,
            after_id=query["cursor"],
            status=query.get("status"),
            endpoint_id=wanted,
        )
    listed, last = cut(found, query["limit"])
    return answer(page("cases", [shown(one, names[one.endpoint_id]) for one in listed], last and last.id))


@blueprint.route("/<int:case_id>/close", methods=["POST"])
@blueprint.arguments(Closing())
@blueprint.doc(responses=described.answers(400, 404, 409, 413, 415, 422, ok="Case"))
def close_case(closing: Json, case_id: int) -> Response:
    """It was sorted out, or needs nothing; a later comparison opens it again where that is not so."""
    made, who = services(), caller()
    now = made.clock()
    with made.store.write() as c:
        if drift.find_case(c, who.tenant_id, case_id) is None:
            raise Refused(404, "no case has this number")
        if not drift.close_case(c, who.tenant_id, case_id, closing["reason"], now=now):
            raise Refused(409, "it is closed already", rule="closed", path="status")
        subject = f"case/{case_id}"
        audit.write(c, who.tenant_id, at=stamp(now), actor=who.name, action="close", subject=subject)
        found = drift.find_case(c, who.tenant_id, case_id)
        assert found is not None
        endpoint = endpoints.by_id(c, found.endpoint_id)
    assert endpoint is not None
    return answer(shown(found, endpoint.name))
