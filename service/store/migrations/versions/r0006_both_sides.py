"""Both sides edited: what was last agreed, conflicts, how far each type was read, notifications."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _tenant() -> sa.Column[int]:
    return sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False)


def _endpoint() -> sa.Column[int]:
    return sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), nullable=False)


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("conflict_id", sa.BigInteger))
    op.drop_index("ix_deliveries_lane", "deliveries")
    op.create_index(
        "ix_deliveries_lane", "deliveries", ["endpoint_id", "status", "lane", "id", "conflict_id"]
    )
    op.add_column("links", sa.Column("event_seq", sa.BigInteger))
    op.add_column("links", sa.Column("told", sa.Text))
    op.add_column("links", sa.Column("deleted_at", sa.Text))
    _remote_versions()
    _conflicts()
    _reading()


def _remote_versions() -> None:
    op.add_column("remote_versions", sa.Column("content_hash", sa.Text, nullable=False, server_default=""))
    with op.batch_alter_table("remote_versions") as table:
        table.alter_column("content_hash", server_default=None)
        table.drop_constraint("uq_remote_versions", type_="unique")
        table.create_unique_constraint(
            "uq_remote_versions",
            ["endpoint_id", "resource_type", "remote_id", "version_id", "content_hash"],
        )


def _conflicts() -> None:
    op.create_table(
        "conflicts",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("base", sa.Text),
        sa.Column("ours_seq", sa.BigInteger, nullable=False),
        sa.Column("resource_type", sa.Text, nullable=False),
        sa.Column("remote_id", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text),
        sa.Column("theirs", sa.Text),
        sa.Column("raw", sa.Text),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("two_persons", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("proposal", sa.Text),
        sa.Column("proposed_by", sa.Text),
        sa.Column("resolved_by", sa.Text),
        sa.Column("opened_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    )
    op.create_index("ix_conflicts_record", "conflicts", ["tenant_id", "source", "event_id", "status"])
    op.create_index("ix_conflicts_lane", "conflicts", ["tenant_id", "lane", "status"])


def _reading() -> None:
    op.create_table(
        "read_positions",
        _tenant(),
        sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), primary_key=True),
        sa.Column("what", sa.Text, primary_key=True),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    )
    op.create_table(
        "hints",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        sa.Column("resource_type", sa.Text),
        sa.Column("remote_id", sa.Text),
        sa.Column("received_at", sa.Text, nullable=False),
    )
    op.create_index("ix_hints_endpoint", "hints", ["endpoint_id", "id"])
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Integer, primary_key=True),
        _tenant(),
        _endpoint(),
        sa.Column("remote_id", sa.Text, nullable=False),
        sa.Column("criteria", sa.Text, nullable=False),
        sa.Column("last_event", sa.BigInteger),
        sa.Column("heard_at", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.UniqueConstraint("endpoint_id", "remote_id", name="uq_subscriptions"),
    )
