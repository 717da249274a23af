"""Which tables the service keeps; the migrations build exactly these (a test compares them).

Every row belongs to a tenant. Instants are text, UTC, microseconds, `Z` (`times.stamp`), so that they
sort as text and mean the same on SQLite and PostgreSQL. `events` and `audit` are append-only and chained
(service/chain.py): triggers refuse UPDATE and DELETE, and a row that does not follow the one before.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

BigKey = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts only an INTEGER primary key up


def _tenant() -> Column[int]:
    return Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False)


def _endpoint() -> Column[int]:
    return Column("endpoint_id", Integer, ForeignKey("endpoints.id"), nullable=False)


_IS_DEVICE = text("type = 'device'")
"""A pump has one device record or a few among thousands of events, and each event is checked against it."""


def _chained() -> tuple[Column[str], Column[str]]:
    return (
        Column("previous_hash", Text, nullable=False, server_default=""),
        Column("row_hash", Text, nullable=False, server_default=""),
    )


tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("key_hash", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),
    Column("revoked_at", Text),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Integer, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("cursor", Text),
    Column("since_seq", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("tenant_id", "name", name="uq_endpoints_name"),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_system", Text, nullable=False),
    Column("patient_value", Text, nullable=False),
    Column("pump", Text),
    Column("occurred_at", Text, nullable=False),
    Column("occurred_utc", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("origin", Text),
    *_chained(),
    UniqueConstraint("tenant_id", "source", "event_id", "version", name="uq_events_identity"),
    Index("ix_events_pump", "tenant_id", "pump", "occurred_utc"),
    Index("ix_events_patient", "tenant_id", "patient_system", "patient_value"),
    Index("ix_events_device", "tenant_id", "pump", sqlite_where=_IS_DEVICE, postgresql_where=_IS_DEVICE),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("event_seq", BigInteger, ForeignKey("events.seq"), nullable=False),
    Column("lane", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at", Text, nullable=False),
    Column("last_status", Integer),
    Column("reason", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("failure", Text),
    Column("rung", Text),
    Column("loss", Text),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("conflict_id", BigInteger),
    UniqueConstraint("endpoint_id", "event_seq", name="uq_deliveries_event"),
    Index("ix_deliveries_lane", "endpoint_id", "status", "lane", "id", "conflict_id"),
    Index("ix_deliveries_event", "event_seq"),
)

lanes = Table(
    "lanes",
    metadata,
    _tenant(),
    Column("endpoint_id", Integer, ForeignKey("endpoints.id"), primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("due_at", Text),
    Column("owner", Text),
    Column("until", Text),
    Column("fence", Integer, nullable=False),
    Index("ix_lanes_due", "endpoint_id", "due_at"),
    Index("ix_lanes_until", "until"),
)

gates = Table(
    "gates",
    metadata,
    _tenant(),
    Column("endpoint_id", Integer, ForeignKey("endpoints.id"), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("rounds", Integer, nullable=False),
    Column("until", Text),
    Column("probe", Text),
    Column("blame", Text),
    Column("most", Integer),
    Column("next_call", Text),
)

links = Table(
    "links",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("system", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("remote_id", Text, nullable=False),
    Column("version_id", Text),
    Column("content_hash", Text),
    Column("updated_at", Text, nullable=False),
    Column("event_seq", BigInteger),
    Column("told", Text),
    Column("ours", Text),
    Column("deleted_at", Text),
    UniqueConstraint("endpoint_id", "system", "value", name="uq_links_identity"),
    Index("ix_links_remote", "endpoint_id", "resource_type", "remote_id"),
)

remote_versions = Table(
    "remote_versions",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("resource_type", Text, nullable=False),
    Column("remote_id", Text, nullable=False),
    Column("version_id", Text, nullable=False),
    Column("last_updated", Text),
    Column("raw", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("event_seq", BigInteger, ForeignKey("events.seq")),
    Column("seen_at", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    UniqueConstraint(
        "endpoint_id",
        "resource_type",
        "remote_id",
        "version_id",
        "content_hash",  # an EHR that was set up anew counts its versions from 1 again
        name="uq_remote_versions",
    ),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("base", Text),
    Column("ours_seq", BigInteger, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("remote_id", Text, nullable=False),
    Column("version_id", Text),
    Column("theirs", Text),
    Column("raw", Text),
    Column("fields", Text, nullable=False),
    Column("two_persons", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("proposal", Text),
    Column("proposed_by", Text),
    Column("resolved_by", Text),
    Column("opened_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Index("ix_conflicts_record", "tenant_id", "source", "event_id", "status"),
    Index("ix_conflicts_lane", "tenant_id", "lane", "status"),
)

read_positions = Table(
    "read_positions",
    metadata,
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("endpoint_id", Integer, ForeignKey("endpoints.id"), primary_key=True),
    Column("what", Text, primary_key=True),
    Column("position", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)

hints = Table(
    "hints",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("resource_type", Text),
    Column("remote_id", Text),
    Column("received_at", Text, nullable=False),
    Index("ix_hints_endpoint", "endpoint_id", "id"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Integer, primary_key=True),
    _tenant(),
    _endpoint(),
    Column("remote_id", Text, nullable=False),
    Column("criteria", Text, nullable=False),
    Column("last_event", BigInteger),
    Column("heard_at", Text),
    Column("created_at", Text, nullable=False),
    Column("status", Text),
    Column("asked_at", Text),
    UniqueConstraint("endpoint_id", "remote_id", name="uq_subscriptions"),
)

loads = Table(
    "loads",
    metadata,
    Column("endpoint_id", Integer, ForeignKey("endpoints.id"), primary_key=True, autoincrement=False),
    _tenant(),
    Column("status_url", Text, nullable=False),
    Column("done", Text, nullable=False),
    Column("started_at", Text, nullable=False),
)

capabilities = Table(
    "capabilities",
    metadata,
    Column("endpoint_id", Integer, ForeignKey("endpoints.id"), primary_key=True, autoincrement=False),
    _tenant(),
    Column("matrix", Text, nullable=False),
    Column("read_at", Text, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    Column("key", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("application", Text, nullable=False),
    Column("facility", Text, nullable=False),
    Column("control_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("issues", Text, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    UniqueConstraint("tenant_id", "key", name="uq_messages_key"),
    Index("ix_messages_status", "tenant_id", "status", "id"),
)

message_events = Table(
    "message_events",
    metadata,
    Column("message_id", BigInteger, ForeignKey("messages.id"), primary_key=True, autoincrement=False),
    Column("event_seq", BigInteger, ForeignKey("events.seq"), primary_key=True, autoincrement=False),
    _tenant(),
    Column("content_hash", Text, nullable=False),
    Index("ix_message_events_seq", "event_seq"),
    Index("ix_message_events_hash", "tenant_id", "content_hash"),
)

reconciliations = Table(
    "reconciliations",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("begun_by", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("finished_at", Text),
    Column("cursor", BigInteger, nullable=False),
    Column("compared", Integer, nullable=False),
    Column("counts", Text, nullable=False),
    Index("ix_reconciliations_endpoint", "endpoint_id", "id"),
)

findings = Table(
    "findings",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    Column("run_id", BigInteger, ForeignKey("reconciliations.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("remote_ids", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("repaired", Text),
    Index("ix_findings_run", "run_id", "value"),
)

cases = Table(
    "cases",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    _endpoint(),
    Column("kind", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("remote_ids", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("opened_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Index("ix_cases_identity", "endpoint_id", "status", "value"),
)

leases = Table(
    "leases",
    metadata,
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("until", Text, nullable=False),
    Column("fence", Integer, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    _tenant(),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    *_chained(),
)

chains = Table(
    "chains",
    metadata,
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("length", BigInteger, nullable=False),
    Column("last_id", BigInteger, nullable=False),
    Column("last_hash", Text, nullable=False),
)

bulk_jobs = Table(
    "bulk_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("caller", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("asked", Text, nullable=False),
    Column("up_to", BigInteger, nullable=False),
    Column("transaction_time", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("progress", Text),
    Column("files", Text),
    Column("worker", Text),
    Column("beat_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Index("ix_bulk_jobs_caller", "tenant_id", "caller", "status"),
)

DEFAULT_TENANT = 1
"""The tenant made by the first migration."""
