"""How lists are cut into pages: `limit`, and a `cursor` that is the last page's `next_cursor`."""

from __future__ import annotations

from typing import Any, TypeVar

from marshmallow import Schema, fields, validate
from sqlalchemy import Connection

from service.problems import Refused
from service.store import endpoints

T = TypeVar("T")
LARGEST = 2**63 - 1


class Page(Schema):
    """Query parameters of a list ordered by number."""

    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.Integer(load_default=0, validate=validate.Range(0, LARGEST))


def cut(found: list[T], limit: int) -> tuple[list[T], T | None]:
    """The page, and its last item when there is more: `found` was asked for with `limit + 1`."""
    page = found[:limit]
    return page, page[-1] if len(found) > limit else None


def page(name: str, items: list[Any], cursor: Any) -> dict[str, Any]:
    """The body of a page."""
    return {name: items, "next_cursor": None if cursor is None else str(cursor)}


def named_endpoints(c: Connection, tenant_id: int, wanted: str | None) -> tuple[dict[int, str], int | None]:
    """The tenant's endpoints by number, and the number of the one that a list is asked about, if any.

    Raises `Refused` (404) where none has that name.
    """
    names = {endpoint.id: endpoint.name for endpoint in endpoints.every(c, tenant_id)}
    ids = {name: id for id, name in names.items()}
    if wanted is not None and wanted not in ids:
        raise Refused(404, "no endpoint has this name")
    return names, ids[wanted] if wanted is not None else None
