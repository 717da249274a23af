"""Who did what, when: rows only ever added, each sealed after the one before (service/chain.py).

`detail` names nobody; it may hold a converted amount.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from mappings import Issue
from mappings.event import Event

from . import chains
from .tables import audit


def write(
    c: Connection, tenant_id: int, *, at: str, actor: str, action: str, subject: str, detail: str = ""
) -> None:
    """Add one row; `at` is a stamp."""
    values = {"at": at, "actor": actor, "action": action, "subject": subject, "detail": detail}
    write_many(c, tenant_id, [values])


def write_many(c: Connection, tenant_id: int, rows: Sequence[dict[str, str]]) -> None:
    """Add rows of `at`, `actor`, `action`, `subject` and `detail`."""
    chains.append(c, "audit", tenant_id, rows)


def converted(
    c: Connection, tenant_id: int, event: Event, notes: Iterable[Issue], *, at: str, actor: str
) -> None:
    """What was noted when an event was read from FHIR (conversions, broken R4 rules): place, rule, words."""
    write_many(c, tenant_id, [conversion(event, notes, at=at, actor=actor)])


def conversion(event: Event, notes: Iterable[Issue], *, at: str, actor: str) -> dict[str, str]:
    """The row of `converted`."""
    detail = "; ".join(f"{note.path}: {note.rule}: {note.message}" for note in notes)
    subject = f"event/{event['source']}/{event['id']}"
    return {"at": at, "actor": actor, "action": "converted", "subject": subject, "detail": detail}


def of(c: Connection, tenant_id: int, subject: str) -> list[Row[Any]]:
    """The rows about one subject, oldest first."""
    query = select(audit).where(audit.c.tenant_id == tenant_id, audit.c.subject == subject)
    return list(c.execute(query.order_by(audit.c.id)))
