"""HL7 v2 messages as they came, how each was answered, and which events it became."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _tenant() -> sa.Column[int]:
    return sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False)


def upgrade() -> None:
    texts = ("key", "sender", "application", "facility", "control_id", "type", "status", "content_hash")
    op.create_table(
        "messages",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("issues", sa.Text, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.UniqueConstraint("tenant_id", "key", name="uq_messages_key"),
    )
    op.create_index("ix_messages_status", "messages", ["tenant_id", "status", "id"])
    op.create_table(
        "message_events",
        sa.Column("message_id", sa.BigInteger, sa.ForeignKey("messages.id"), primary_key=True),
        sa.Column("event_seq", sa.BigInteger, sa.ForeignKey("events.seq"), primary_key=True),
        _tenant(),
        sa.Column("content_hash", sa.Text, nullable=False),
    )
    op.create_index("ix_message_events_seq", "message_events", ["event_seq"])
    op.create_index("ix_message_events_hash", "message_events", ["tenant_id", "content_hash"])
