"""Every version of a resource that an EHR showed us, raw, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from mappings import MappingError
from mappings.exact_json import loads
from mappings.identity import content_hash

from .tables import remote_versions
from .times import stamp


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """One version as it was read; `outcome` is what the pull did with it (echo, accepted, merged, …).

    `raw` is left empty for what is none of ours: it is another patient's business.
    """

    tenant_id: int
    endpoint_id: int
    resource_type: str
    remote_id: str
    version_id: str
    last_updated: str | None
    raw: str
    content_hash: str
    outcome: str
    event_seq: int | None = None


_FIELDS = tuple(RemoteVersion.__dataclass_fields__)


def seen(
    c: Connection, endpoint_id: int, resource_type: str, remote_ids: Sequence[str]
) -> dict[tuple[str, str, str], str]:
    """(id, version, content hash) of the versions of these resources that were seen, and their outcomes."""
    query = select(
        remote_versions.c.remote_id,
        remote_versions.c.version_id,
        remote_versions.c.content_hash,
        remote_versions.c.outcome,
    ).where(
        remote_versions.c.endpoint_id == endpoint_id,
        remote_versions.c.resource_type == resource_type,
        remote_versions.c.remote_id.in_(remote_ids),
    )
    return {(row.remote_id, row.version_id, row.content_hash): row.outcome for row in c.execute(query)}


def raw_of(
    c: Connection, endpoint_id: int, resource_type: str, remote_id: str, version_id: str
) -> str | None:
    """The resource as it was at this version, the last one seen where an EHR has used the number twice."""
    query = select(remote_versions.c.raw).where(
        remote_versions.c.endpoint_id == endpoint_id,
        remote_versions.c.resource_type == resource_type,
        remote_versions.c.remote_id == remote_id,
        remote_versions.c.version_id == version_id,
    )
    return c.execute(query.order_by(remote_versions.c.id.desc()).limit(1)).scalar() or None


def is_as_read(row: Mapping[Any, Any]) -> bool:
    """Whether what was kept of a version still says what it said when it was read."""
    if not row["raw"]:
        return True
    try:
        found = loads(row["raw"])
    except MappingError:
        return False
    return (
        isinstance(found, dict)
        and (found.get("resourceType"), found.get("id")) == (row["resource_type"], row["remote_id"])
        and content_hash(found) == row["content_hash"]
    )


def add(c: Connection, versions: Sequence[RemoteVersion], *, now: datetime) -> None:
    """Keep versions that were not seen before."""
    if versions:
        at = stamp(now)
        rows = [{name: getattr(one, name) for name in _FIELDS} | {"seen_at": at} for one in versions]
        c.execute(insert(remote_versions), rows)
