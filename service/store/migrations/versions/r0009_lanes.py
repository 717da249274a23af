"""Lanes: when the head of each is due, and who works on it. A delivery may be paused, skipped, cancelled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_FILL = """
INSERT INTO lanes (tenant_id, endpoint_id, lane, due_at, until, fence)
SELECT d.tenant_id, d.endpoint_id, d.lane,
       (SELECT CASE WHEN h.status = 'pending' THEN h.next_try_at END FROM deliveries h
        WHERE h.endpoint_id = d.endpoint_id AND h.lane = d.lane
          AND h.status IN ('pending', 'failed', 'parked') AND h.conflict_id IS NULL
        ORDER BY h.id LIMIT 1),
       NULL, 0
FROM (SELECT DISTINCT tenant_id, endpoint_id, lane FROM deliveries) d
"""


def upgrade() -> None:
    op.create_table(
        "lanes",
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("due_at", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("until", sa.Text),
        sa.Column("fence", sa.Integer, nullable=False),
    )
    op.create_index("ix_lanes_due", "lanes", ["endpoint_id", "due_at"])
    op.create_index("ix_lanes_until", "lanes", ["until"])
    op.execute(_FILL)
