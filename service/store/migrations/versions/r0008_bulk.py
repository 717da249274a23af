"""Bulk exports that were asked for: what, as of which number of the ledger, how far, and their files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "bulk_jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("up_to", sa.BigInteger, nullable=False),
        sa.Column("transaction_time", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("files", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("beat_at", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text, nullable=False),
    )
    op.create_index("ix_bulk_jobs_caller", "bulk_jobs", ["tenant_id", "caller", "status"])
