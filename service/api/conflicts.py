"""/api/v1/conflicts: what an EHR and the ledger say differently about a record, and deciding it."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields

from mappings.envelope import Strictly
from mappings.event import Event
from mappings.fields import Code, Strict, refuse
from service.problems import Refused
from service.store import conflicts, endpoints, events
from service.store.conflicts import STATUSES, Conflict
from service.sync.merge import OURS, THEIRS
from service.sync.resolve import NotNow, decide
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import Page, cut, named_endpoints, page

Json = Any
blueprint = Blueprint(
    "conflicts", __name__, url_prefix="/api/v1/conflicts", description="What a person must decide"
)


def listed(conflict: Conflict, endpoint: str) -> Json:
    """A conflict as JSON without what both sides say."""
    return {
        "id": conflict.id,
        "endpoint": endpoint,
        "kind": conflict.kind,
        "source": conflict.source,
        "event_id": conflict.event_id,
        "resource": f"{conflict.resource_type}/{conflict.remote_id}",
        "version_id": conflict.version_id,
        "fields": [{"path": field["path"], "owner": field["owner"]} for field in conflict.fields],
        "two_persons": conflict.two_persons,
        "status": conflict.status,
        "proposal": conflict.proposal,
        "proposed_by": conflict.proposed_by,
        "resolved_by": conflict.resolved_by,
        "opened_at": conflict.opened_at,
        "updated_at": conflict.updated_at,
    }


def shown(conflict: Conflict, endpoint: str, ours: Event) -> Json:
    """A conflict as JSON with both sides, what they last agreed on, and the resource as it was read."""
    return listed(conflict, endpoint) | {
        "fields": conflict.fields,
        "base": conflict.base,
        "ours": ours,
        "theirs": conflict.theirs,
        "raw": conflict.raw,
    }


class ConflictQuery(Page):
    """Filters of the list."""

    status = Code(*STATUSES)
    endpoint = fields.String()


class Choices(Strict):
    """`ours` or `theirs` for each path in conflict."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(side, str) for side in value.values()):
            raise refuse("type", "must be an object of paths, each with ours or theirs")
        return value


class _Decision(Strictly):
    """What a person decides: one side for all fields, or one for each."""

    def whole(self, data: Any) -> None:
        if ("take" in data) == ("fields" in data):
            raise refuse("required", "needs either take or fields")


Decision = _Decision.from_dict({"take": Code(OURS, THEIRS), "fields": Choices()}, name="Decision")
"""Made from a dict: a schema has an attribute `fields` of its own."""


@blueprint.route("", methods=["GET"])
@blueprint.arguments(ConflictQuery(), location="query")
@blueprint.doc(responses=described.answers(404, 422, ok="ConflictPage"))
def list_conflicts(query: Json) -> Response:
    """The conflicts, oldest first."""
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        names, wanted = named_endpoints(c, tenant_id, query.get("endpoint"))
        found = conflicts.search(
            c,
            tenant_id,
            limit=query["limit"] + 1,
            after_id=query["cursor"],
            status=query.get("status"),
            endpoint_id=wanted,
        )
    few, last = cut(found, query["limit"])
    return answer(page("conflicts", [listed(one, names[one.endpoint_id]) for one in few], last and last.id))


@blueprint.route("/<int:conflict_id>", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="Conflict"))
def get_conflict(conflict_id: int) -> Response:
    """One conflict: base, ours and theirs."""
    return answer(_shown(conflict_id))


@blueprint.route("/<int:conflict_id>/resolve", methods=["POST"])
@blueprint.arguments(Decision())
@blueprint.doc(responses=described.answers(400, 404, 409, 413, 415, 422, ok="Conflict"))
def resolve_conflict(decision: Json, conflict_id: int) -> Response:
    """Decide: `take` one side, or `fields` one by one.

    Where a dose depends on it (`two_persons`) the first decision is a proposal, and the conflict stays open
    until another key has decided the same; another decision is a new proposal.
    """
    made, who = services(), caller()
    with made.store.read() as c:
        found = conflicts.find(c, who.tenant_id, conflict_id)
    if found is None:
        raise Refused(404, "no conflict has this number")
    paths = [field["path"] for field in found.fields]
    choices = decision.get("fields") or dict.fromkeys(paths, decision.get("take"))
    try:
        decide(made.store, who.tenant_id, conflict_id, choices, who.name, made.clock())
    except NotNow as error:
        raise Refused(409, str(error), rule="conflict", path="status") from None
    return answer(_shown(conflict_id))


def _shown(conflict_id: int) -> Json:
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        found = conflicts.find(c, tenant_id, conflict_id)
        if found is None:
            raise Refused(404, "no conflict has this number")
        endpoint = endpoints.by_id(c, found.endpoint_id)
        ours = events.find(c, tenant_id, found.source, found.event_id)[-1]
    assert endpoint is not None
    return shown(found, endpoint.name, ours.event)
