"""The list that an API gives of an endpoint's rows: deliveries, conflicts, cases."""

from __future__ import annotations

from typing import Any, Required, TypedDict, Unpack

from sqlalchemy import Select, Table, select


class Wanted(TypedDict, total=False):
    """Which rows of a tenant: the first `limit` whose id is above `after_id`; of a status, of an endpoint."""

    limit: Required[int]
    after_id: int
    status: str | None
    endpoint_id: int | None


def listed(table: Table, tenant_id: int, **wanted: Unpack[Wanted]) -> Select[Any]:
    """The rows of `table` in order of their ids."""
    query = select(table).where(table.c.tenant_id == tenant_id, table.c.id > wanted.get("after_id", 0))
    for name in ("status", "endpoint_id"):
        if (value := wanted.get(name)) is not None:
            query = query.where(table.c[name] == value)
    return query.order_by(table.c.id).limit(wanted["limit"])
