"""The first tables: tenants, keys, EHR endpoints, the event ledger, deliveries, links, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_APPEND_ONLY = ("events", "audit")

_SQLITE = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
_POSTGRESQL_FUNCTION = """
CREATE FUNCTION itb_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$
"""
_POSTGRESQL = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION itb_append_only()
"""


def upgrade() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )
    op.bulk_insert(tenants, [{"id": 1, "name": "default"}])
    _callers()
    _ledger()
    _sync()
    _append_only(op.get_bind().dialect.name)


def _tenant() -> sa.Column[int]:
    return sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False)


def _endpoint() -> sa.Column[int]:
    return sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), nullable=False)


def _callers() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer, primary_key=True),
        _tenant(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key_hash", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.Text),
    )
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Integer, primary_key=True),
        _tenant(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text),
        sa.UniqueConstraint("tenant_id", "name", name="uq_endpoints_name"),
    )
    op.create_table(
        "audit",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )


def _ledger() -> None:
    op.create_table(
        "events",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("patient_system", sa.Text, nullable=False),
        sa.Column("patient_value", sa.Text, nullable=False),
        sa.Column("pump", sa.Text),
        sa.Column("occurred_at", sa.Text, nullable=False),
        sa.Column("occurred_utc", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
        sa.Column("origin", sa.Text),
        sa.UniqueConstraint("tenant_id", "source", "event_id", "version", name="uq_events_identity"),
    )
    op.create_index("ix_events_pump", "events", ["tenant_id", "pump", "occurred_utc"])
    op.create_index("ix_events_patient", "events", ["tenant_id", "patient_system", "patient_value"])
    op.create_table(
        "deliveries",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        sa.Column("event_seq", sa.BigInteger, sa.ForeignKey("events.seq"), nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_try_at", sa.Text, nullable=False),
        sa.Column("last_status", sa.Integer),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.UniqueConstraint("endpoint_id", "event_seq", name="uq_deliveries_event"),
    )
    op.create_index("ix_deliveries_lane", "deliveries", ["endpoint_id", "status", "lane", "id"])
    op.create_index("ix_deliveries_event", "deliveries", ["event_seq"])


def _sync() -> None:
    op.create_table(
        "links",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("resource_type", sa.Text, nullable=False),
        sa.Column("remote_id", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text),
        sa.Column("content_hash", sa.Text),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.UniqueConstraint("endpoint_id", "system", "value", name="uq_links_identity"),
    )
    op.create_index("ix_links_remote", "links", ["endpoint_id", "resource_type", "remote_id"])
    op.create_table(
        "remote_versions",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        sa.Column("resource_type", sa.Text, nullable=False),
        sa.Column("remote_id", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("last_updated", sa.Text),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("event_seq", sa.BigInteger, sa.ForeignKey("events.seq")),
        sa.Column("seen_at", sa.Text, nullable=False),
        sa.UniqueConstraint(
            "endpoint_id", "resource_type", "remote_id", "version_id", name="uq_remote_versions"
        ),
    )
    op.create_table(
        "leases",
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("until", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
    )


def _append_only(dialect: str) -> None:
    """A correction is a new version: nothing may be changed or removed."""
    if dialect == "postgresql":
        op.execute(_POSTGRESQL_FUNCTION)
    shape = _POSTGRESQL if dialect == "postgresql" else _SQLITE
    for table in _APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(shape.format(table=table, verb=verb))
