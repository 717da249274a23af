"""API keys: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from .tables import api_keys
from .times import stamp


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key belongs to."""

    tenant_id: int
    name: str


def add(c: Connection, tenant_id: int, name: str, *, now: datetime) -> str:
    """Make a key; the text returned is the only copy of it."""
    key = f"itb_{secrets.token_urlsafe(24)}"
    made = insert(api_keys).values(tenant_id=tenant_id, name=name, key_hash=_hash(key), created_at=stamp(now))
    c.execute(made)
    return key


def caller(c: Connection, key: str) -> Caller | None:
    """Who sent this key; None when it is unknown or revoked."""
    query = select(api_keys.c.tenant_id, api_keys.c.name).where(
        api_keys.c.key_hash == _hash(key), api_keys.c.revoked_at.is_(None)
    )
    row = c.execute(query).first()
    return Caller(row.tenant_id, row.name) if row is not None else None


def revoke(c: Connection, tenant_id: int, name: str, *, now: datetime) -> int:
    """End every live key of that name; how many."""
    return c.execute(
        update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=stamp(now))
    ).rowcount


def every(c: Connection, tenant_id: int) -> list[Row[Any]]:
    """Name, created_at and revoked_at of each key, oldest first."""
    query = select(api_keys.c.name, api_keys.c.created_at, api_keys.c.revoked_at)
    return list(c.execute(query.where(api_keys.c.tenant_id == tenant_id).order_by(api_keys.c.id)))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
