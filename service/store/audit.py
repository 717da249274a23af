"""Who did what, when: rows only ever added. `detail` names nobody; it may hold a converted amount."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from mappings import Issue
from mappings.event import Event

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


def write_many(c: Connection, tenant_id: int, rows: Sequence[dict[str, str]]) -> None:
    """Add rows of `at`, `actor`, `action`, `subject` and `detail`."""
    if rows:
        c.execute(insert(audit), [{"tenant_id": tenant_id, **row} for row in rows])


def converted(
    c: Connection, tenant_id: int, event: Event, notes: Iterable[Issue], *, at: str, actor: str
) -> None:
    """What was converted while an event was read from FHIR: place, rule, the original and the result."""
    detail = "; ".join(f"{note.path}: {note.rule}: {note.message}" for note in notes)
    subject = f"event/{event['source']}/{event['id']}"
    write(c, tenant_id, at=at, actor=actor, action="converted", subject=subject, detail=detail)


def of(c: Connection, tenant_id: int, subject: str) -> list[Row[Any]]:
    """The rows about one subject, oldest first."""
    query = select(audit).where(audit.c.tenant_id == tenant_id, audit.c.subject == subject)
    return list(c.execute(query.order_by(audit.c.id)))
