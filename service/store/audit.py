"""Who did what, when: rows that are only ever added. No patient data goes into `detail`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from .tables import audit


def write(
    c: Connection, tenant_id: int, *, at: str, actor: str, action: str, subject: str, detail: str = ""
) -> None:
    """Add one row; `at` is a stamp."""
    c.execute(
        insert(audit).values(
            tenant_id=tenant_id, at=at, actor=actor, action=action, subject=subject, detail=detail
        )
    )


def of(c: Connection, tenant_id: int, subject: str) -> list[Row[Any]]:
    """The rows about one subject, oldest first."""
    query = select(audit).where(audit.c.tenant_id == tenant_id, audit.c.subject == subject)
    return list(c.execute(query.order_by(audit.c.id)))
