"""The EHRs of a tenant: where they are, how to treat them, how far they were read.

Most are FHIR servers; one with an `mllp://` URL is a receiver of HL7 v2 messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from .tables import endpoints, events
from .times import stamp

DEFAULT_OPTIONS: dict[str, Any] = {
    "create_missing_patients": False,
    "claim_profiles": True,
    "poll_seconds": 5,
    "overlap_seconds": 300,
    "batch_size": 50,
    "parallel": 2,
    "requests_per_second": 0,
    "headers": {},
}
HL7V2_SCHEMES = ("mllp://", "mllps://")
"""URLs of receivers of HL7 v2; the others are base URLs of FHIR servers."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One EHR: `cursor` is the `_lastUpdated` up to which it was read, `since_seq` the last event that the
    ledger held when it was added."""

    id: int
    tenant_id: int
    name: str
    url: str
    enabled: bool
    created_at: str
    cursor: str | None
    since_seq: int
    options: dict[str, Any] = field(default_factory=dict, repr=False)  # headers may hold a secret

    @property
    def is_hl7v2(self) -> bool:
        """Whether it is told by HL7 v2 messages: nothing can be asked of it or read from it."""
        return self.url.startswith(HL7V2_SCHEMES)

    def is_as(self, other: Endpoint) -> bool:
        """Whether it is where the other is, and is treated as that."""
        return (self.id, self.url, self.options) == (other.id, other.url, other.options)


def add(
    c: Connection, tenant_id: int, name: str, url: str, options: dict[str, Any], *, now: datetime
) -> Endpoint:
    """Add an enabled endpoint; `options` override the defaults. The name must be free."""
    made = insert(endpoints).values(
        tenant_id=tenant_id,
        name=name,
        url=url.rstrip("/"),
        options=json.dumps(DEFAULT_OPTIONS | options, sort_keys=True),
        enabled=True,
        created_at=stamp(now),
        # A number and no time: a clock that is set back must not make a later event an earlier one.
        since_seq=func.coalesce(select(func.max(events.c.seq)).scalar_subquery(), 0),
    )
    c.execute(made)
    found = find(c, tenant_id, name)
    assert found is not None
    return found


def find(c: Connection, tenant_id: int, name: str) -> Endpoint | None:
    """The endpoint of that name."""
    query = select(endpoints).where(endpoints.c.tenant_id == tenant_id, endpoints.c.name == name)
    row = c.execute(query).first()
    return _endpoint(row) if row is not None else None


def by_id(c: Connection, endpoint_id: int) -> Endpoint | None:
    """The endpoint with that number."""
    row = c.execute(select(endpoints).where(endpoints.c.id == endpoint_id)).first()
    return _endpoint(row) if row is not None else None


def every(c: Connection, tenant_id: int | None = None) -> list[Endpoint]:
    """A tenant's endpoints by name, paused ones too; without a tenant (the worker), all of them."""
    query = select(endpoints).order_by(endpoints.c.tenant_id, endpoints.c.name)
    if tenant_id is not None:
        query = query.where(endpoints.c.tenant_id == tenant_id)
    return [_endpoint(row) for row in c.execute(query)]


def of_sender(known: Iterable[Endpoint], sender: str) -> Endpoint | None:
    """The endpoint at which this sender of HL7 v2 is told of records: its own are not sent back there."""
    return next((one for one in known if sender and one.options.get("sender") == sender), None)


def set_enabled(c: Connection, endpoint_id: int, enabled: bool) -> None:
    """Pause or resume."""
    c.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(enabled=enabled))


def set_url(c: Connection, endpoint_id: int, url: str) -> None:
    """Where it is from now on."""
    c.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(url=url.rstrip("/")))


def set_options(c: Connection, endpoint_id: int, options: dict[str, Any]) -> None:
    """Treat it so from now on."""
    text = json.dumps(options, sort_keys=True)
    c.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(options=text))


def without_cursor(endpoint: Endpoint) -> Endpoint:
    """The endpoint as if it had never been read."""
    return replace(endpoint, cursor=None)


def set_cursor(c: Connection, endpoint_id: int, cursor: str | None) -> None:
    """Remember how far the endpoint was read; None: from the start again."""
    c.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(cursor=cursor))


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        url=row.url,
        enabled=row.enabled,
        created_at=row.created_at,
        cursor=row.cursor,
        since_seq=row.since_seq,
        options=DEFAULT_OPTIONS | json.loads(row.options),
    )
