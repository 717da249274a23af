"""What of us a resource in an EHR holds that others have added to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("links", sa.Column("ours", sa.Text))
