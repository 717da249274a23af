"""An endpoint remembers the last event before it by number: a clock may be set back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("since_seq", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE endpoints SET since_seq = coalesce((SELECT max(seq) FROM events "
        "WHERE events.tenant_id = endpoints.tenant_id AND received_at < endpoints.created_at), 0)"
    )
