"""/api/v1/deliveries: what is on its way to the EHRs, what waits and why, and sending it again."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields

from mappings.fields import Code
from service.problems import Refused
from service.store import audit, deliveries, endpoints, events
from service.store.deliveries import STATUSES, Delivery
from service.store.events import StoredEvent
from service.store.times import stamp
from service.web import Blueprint, answer, caller, services

from . import described
from .paging import Page, cut, page

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
        names = {endpoint.id: endpoint.name for endpoint in endpoints.every(c, tenant_id)}
        ids = {name: id for id, name in names.items()}
        wanted = query.get("endpoint")
        if wanted is not None and wanted not in ids:
            raise Refused(404, "no endpoint has this name")
        found = deliveries.search(
            c,
            tenant_id,
            limit=query["limit"] + 1,
            after_id=query["cursor"],
            status=query.get("status"),
            endpoint_id=ids[wanted] if wanted is not None else None,
        )
        listed, last = cut(found, query["limit"])
        about = {d.event_seq: events.by_seq(c, tenant_id, d.event_seq) for d in listed}
    items = [shown(d, names[d.endpoint_id], about[d.event_seq]) for d in listed]
    return answer(page("deliveries", items, last and last.id))


@blueprint.route("/<int:delivery_id>/retry", methods=["POST"])
@blueprint.doc(responses=described.answers(404, 409, ok="Delivery"))
def retry_delivery(delivery_id: int) -> Response:
    """Try a failed, parked or waiting delivery again now, with its tries counted anew."""
    made, who = services(), caller()
    now = made.clock()
    with made.store.write() as c:
        if deliveries.find(c, who.tenant_id, delivery_id) is None:
            raise Refused(404, "no delivery has this number")
        if not deliveries.retry(c, who.tenant_id, delivery_id, now=now):
            raise Refused(409, "it was sent already", rule="sent", path="status")
        subject = f"delivery/{delivery_id}"
        audit.write(c, who.tenant_id, at=stamp(now), actor=who.name, action="retry", subject=subject)
        found = deliveries.find(c, who.tenant_id, delivery_id)
        assert found is not None
        endpoint = endpoints.by_id(c, found.endpoint_id)
        event = events.by_seq(c, who.tenant_id, found.event_seq)
    assert endpoint is not None
    return answer(shown(found, endpoint.name, event))
