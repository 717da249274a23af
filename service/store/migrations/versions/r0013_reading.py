"""The device records of a pump by an index of their own; first loads that are under way; what became of
subscriptions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    is_device = sa.text("type = 'device'")
    op.create_index(
        "ix_events_device",
        "events",
        ["tenant_id", "pump"],
        sqlite_where=is_device,
        postgresql_where=is_device,
    )
    op.create_table(
        "loads",
        sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), primary_key=True),
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("status_url", sa.Text, nullable=False),
        sa.Column("done", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text, nullable=False),
    )
    for name in ("status", "asked_at"):
        op.add_column("subscriptions", sa.Column(name, sa.Text))
