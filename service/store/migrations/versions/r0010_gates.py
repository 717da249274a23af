"""The gate of each endpoint: its circuit breaker and its pace, shared by all workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "gates",
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.Column("until", sa.Text),
        sa.Column("probe", sa.Text),
        sa.Column("blame", sa.Text),
        sa.Column("most", sa.Integer),
        sa.Column("next_call", sa.Text),
    )
