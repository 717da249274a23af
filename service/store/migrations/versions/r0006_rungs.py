"""In which form a delivery went, and what did not get there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for name in ("rung", "loss"):
        op.add_column("deliveries", sa.Column(name, sa.Text))
