"""In which form a delivery went; comparisons of an EHR with the ledger; cases for a person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _columns(*text: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in text]


def _tenant() -> sa.Column[int]:
    return sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False)


def _endpoint() -> sa.Column[int]:
    return sa.Column("endpoint_id", sa.Integer, sa.ForeignKey("endpoints.id"), nullable=False)


def upgrade() -> None:
    for name in ("rung", "loss"):
        op.add_column("deliveries", sa.Column(name, sa.Text))
    op.create_table(
        "reconciliations",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        *_columns("begun_by", "started_at"),
        sa.Column("finished_at", sa.Text),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("compared", sa.Integer, nullable=False),
        *_columns("counts"),
    )
    op.create_index("ix_reconciliations_endpoint", "reconciliations", ["endpoint_id", "id"])
    op.create_table(
        "findings",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        sa.Column("run_id", sa.BigInteger, sa.ForeignKey("reconciliations.id"), nullable=False),
        *_columns("kind", "resource_type", "system", "value", "remote_ids", "reason"),
        sa.Column("repaired", sa.Text),
    )
    op.create_index("ix_findings_run", "findings", ["run_id", "value"])
    op.create_table(
        "cases",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        _tenant(),
        _endpoint(),
        *_columns("kind", "resource_type", "system", "value", "remote_ids", "status"),
        sa.Column("reason", sa.Text),
        *_columns("opened_at", "updated_at"),
    )
    op.create_index("ix_cases_identity", "cases", ["endpoint_id", "status", "value"])
