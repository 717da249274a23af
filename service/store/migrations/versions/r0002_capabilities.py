"""What each EHR's server says it can do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "capabilities",
        sa.Column(
            "endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), primary_key=True, autoincrement=False
        ),
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("matrix", sa.Text, nullable=False),
        sa.Column("read_at", sa.Text, nullable=False),
    )
