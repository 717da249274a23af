"""A delivery remembers the class of its last failure, and how often in a row it ended so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("failure", sa.Text))
    op.add_column("deliveries", sa.Column("repeats", sa.Integer, nullable=False, server_default="0"))
