"""/api/v1/deliveries: what is on its way to the EHRs, what waits and why, and what a person does about it."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields
from sqlalchemy import Connection

from mappings.envelope import Strictly
from mappings.exact_json import loads
from mappings.fields import Code, Line
from service.problems import Refused
from service.steering import CannotChange, change_delivery
from service.store import deliveries, endpoints, events
from service.store.deliveries import STATUSES, Delivery
from service.store.events import StoredEvent
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import Page, cut, named_endpoints, page

Json = Any
blueprint = Blueprint(
    "deliveries", __name__, url_prefix="/api/v1/deliveries", description="On the way to the EHRs"
)


def shown(delivery: Delivery, endpoint: str, event: StoredEvent | None) -> Json:
    """A delivery as JSON; its lane is left out: it may hold a patient's identifier."""
    made = {
        "id": delivery.id,
        "endpoint": endpoint,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "failure": delivery.failure,
        "next_try_at": delivery.next_try_at,
        "last_status": delivery.last_status,
        "reason": delivery.reason,
        "conflict": delivery.conflict_id,
        "created_at": delivery.created_at,
        "updated_at": delivery.updated_at,
        "rung": delivery.rung,
        "loss": loads(delivery.loss) if delivery.loss else None,
    }
    if event is not None:
        about = event.event
        made["event"] = {
            "source": about["source"],
            "id": about["id"],
            "version": event.version,
            "type": about["type"],
        }
    return made


class DeliveryQuery(Page):
    """Filters of the list."""

    status = Code(*STATUSES)
    endpoint = fields.String()


@blueprint.route("", methods=["GET"])
@blueprint.arguments(DeliveryQuery(), location="query")
@blueprint.doc(responses=described.answers(404, 422, ok="DeliveryPage"))
def list_deliveries(query: Json) -> Response:
    """The deliveries, oldest first."""
    tenant_id = caller().tenant_id
    with services().store.read() as c:
        names, wanted = named_endpoints(c, tenant_id, query.get("endpoint"))
        found = deliveries.search(
            c,
            tenant_id,
            limit=query["limit"] + 1,
            after_id=query["cursor"],
            status=query.get("status"),
            endpoint_id=wanted,
        )
        listed, last = cut(found, query["limit"])
        about = {d.event_seq: events.by_seq(c, tenant_id, d.event_seq) for d in listed}
    items = [shown(d, names[d.endpoint_id], about[d.event_seq]) for d in listed]
    return answer(page("deliveries", items, last and last.id))


class Reason(Strictly):
    """Why a delivery is left out."""

    reason = Line(required=True, most=500)


@blueprint.route("/<int:delivery_id>", methods=["GET"])
@blueprint.doc(responses=described.answers(404, ok="Delivery"))
def get_delivery(delivery_id: int) -> Response:
    """One delivery."""
    with services().store.read() as c:
        found = deliveries.find(c, caller().tenant_id, delivery_id)
        if found is None:
            raise Refused(404, "no delivery has this number")
        return answer(_shown(c, found))


@blueprint.route("/<int:delivery_id>/retry", methods=["POST"])
@blueprint.doc(responses=described.answers(404, 409, ok="Delivery"))
def retry_delivery(delivery_id: int) -> Response:
    """Try a delivery that was not sent again now, with its tries counted anew."""
    return _change(delivery_id, "retry")


@blueprint.route("/<int:delivery_id>/pause", methods=["POST"])
@blueprint.doc(responses=described.answers(404, 409, ok="Delivery"))
def pause_delivery(delivery_id: int) -> Response:
    """Hold a pending delivery, and with it what comes after it for the same pump."""
    return _change(delivery_id, "pause")


@blueprint.route("/<int:delivery_id>/resume", methods=["POST"])
@blueprint.doc(responses=described.answers(404, 409, ok="Delivery"))
def resume_delivery(delivery_id: int) -> Response:
    """Let a paused delivery go on."""
    return _change(delivery_id, "resume")


@blueprint.route("/<int:delivery_id>/cancel", methods=["POST"])
@blueprint.arguments(Reason())
@blueprint.doc(responses=described.answers(400, 404, 409, 413, 415, 422, ok="Delivery"))
def cancel_delivery(body: Json, delivery_id: int) -> Response:
    """Leave out what is not meant for this EHR; what comes after it goes on."""
    return _change(delivery_id, "cancel", body["reason"])


@blueprint.route("/<int:delivery_id>/skip", methods=["POST"])
@blueprint.arguments(Reason())
@blueprint.doc(responses=described.answers(400, 404, 409, 413, 415, 422, ok="Delivery"))
def skip_delivery(body: Json, delivery_id: int) -> Response:
    """Go on without one that cannot be sent: the EHR lacks it, and why is kept."""
    return _change(delivery_id, "skip", body["reason"])


def _change(id: int, action: str, reason: str | None = None) -> Response:
    made = services()
    with made.store.write() as c:
        try:
            found = change_delivery(c, caller(), id, action, reason, now=made.clock())
        except CannotChange as error:
            raise Refused(409, str(error), rule=error.rule, path="status") from None
        if found is None:
            raise Refused(404, "no delivery has this number")
        return answer(_shown(c, found))


def _shown(c: Connection, found: Delivery) -> Json:
    endpoint = endpoints.by_id(c, found.endpoint_id)
    assert endpoint is not None
    return shown(found, endpoint.name, events.by_seq(c, found.tenant_id, found.event_seq))
