"""/api/v1/endpoints/{name}/drift: what the last comparison of an EHR with the ledger found."""

from __future__ import annotations

from typing import Any

from flask import Response

from service.problems import Refused
from service.store import drift, endpoints
from service.store.drift import Found, Run
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import Page, cut

Json = Any
blueprint = Blueprint("drift", __name__, url_prefix="/api/v1/endpoints", description="Drift of the EHRs")


def summary(run: Run) -> Json:
    """A finished comparison in short."""
    return {
        "finished_at": run.finished_at,
        "begun_by": run.begun_by,
        "compared": run.compared,
        "counts": run.counts,
    }


def shown(found: Found) -> Json:
    """A finding as JSON."""
    return {
        "kind": found.kind,
        "resource_type": found.resource_type,
        "identifier": {"system": found.system, "value": found.value},
        "remote_ids": found.remote_ids,
        "reason": found.reason,
        "repaired": found.repaired,
    }


@blueprint.route("/<name>/drift", methods=["GET"])
@blueprint.arguments(Page(), location="query")
@blueprint.doc(responses=described.answers(404, 422, ok="Drift"))
def get_drift(query: Json, name: str) -> Response:
    """The newest finished comparison and what it found; null before the first."""
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        endpoint = endpoints.find(c, tenant_id, name)
        if endpoint is None:
            raise Refused(404, "no endpoint has this name")
        run = drift.latest(c, endpoint.id, finished=True)
        after, most = query["cursor"], query["limit"] + 1
        found = drift.of_run(c, tenant_id, run.id, limit=most, after_id=after) if run is not None else []
    listed, last = cut(found, query["limit"])
    cursor = None if last is None else str(last.id)
    return answer(
        {
            "comparison": run and summary(run),
            "findings": [shown(one) for one in listed],
            "next_cursor": cursor,
        }
    )
