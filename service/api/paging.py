"""How lists are cut into pages: `limit`, and a `cursor` that is the last page's `next_cursor`."""

from __future__ import annotations

from typing import Any, TypeVar

from marshmallow import Schema, fields, validate

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
