"""The gate of each endpoint, one row that all workers share (`sync.gate` decides)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from .engine import insert_for
from .tables import gates
from .times import moment, stamp

_MOMENTS = ("until", "next_call")
_OF_ENDPOINT = select(gates).where(gates.c.endpoint_id == bindparam("endpoint_id"))
_FIELDS = ("failures", "rounds", "until", "probe", "blame", "most", "next_call")


def find(c: Connection, endpoint_id: int) -> dict[str, Any]:
    """The fields of the endpoint's gate, instants as such; none where nothing was ever amiss."""
    row = c.execute(_OF_ENDPOINT, {"endpoint_id": endpoint_id}).first()
    return _fields(row) if row is not None else {}


def every(c: Connection) -> dict[int, dict[str, Any]]:
    """The fields of every gate, by endpoint."""
    return {row.endpoint_id: _fields(row) for row in c.execute(select(gates))}


def _fields(row: Row[Any]) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in _FIELDS}
    return found | {name: moment(found[name]) if found[name] else None for name in _MOMENTS}


def save(c: Connection, tenant_id: int, endpoint_id: int, fields: dict[str, Any]) -> None:
    """Replace the row."""
    values = {name: _stamped(fields[name]) for name in _FIELDS}
    made = insert_for(c, gates).values(tenant_id=tenant_id, endpoint_id=endpoint_id, **values)
    c.execute(made.on_conflict_do_update(index_elements=["endpoint_id"], set_=values))


def _stamped(value: Any) -> Any:
    return stamp(value) if isinstance(value, datetime) else value
