"""Chains: each row of `events` and `audit` sealed after the one before it; heads that triggers keep."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

# How a row was sealed may never change, so this is no other picture than the code's.
from service.chain import COLUMNS, START, seal

revision = "0004"
down_revision = "0003"

_BATCH = 1000

_SQLITE = (
    "DROP TRIGGER {table}_no_UPDATE",
    "{fill}",
    """CREATE TRIGGER {table}_no_UPDATE BEFORE UPDATE ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END""",
    """CREATE TRIGGER {table}_follows BEFORE INSERT ON {table}
    WHEN length(NEW.row_hash) <> 64 OR NOT EXISTS (
      SELECT 1 FROM chains WHERE tenant_id = NEW.tenant_id AND name = '{table}'
      AND last_hash = NEW.previous_hash AND last_id < NEW.{number})
    BEGIN SELECT RAISE(ABORT, '{table}: the row does not follow the chain'); END""",
    """CREATE TRIGGER {table}_head AFTER INSERT ON {table}
    BEGIN UPDATE chains SET length = length + 1, last_id = NEW.{number}, last_hash = NEW.row_hash
      WHERE tenant_id = NEW.tenant_id AND name = '{table}'; END""",
)
_SQLITE_TENANT = f"""
CREATE TRIGGER tenants_chains AFTER INSERT ON tenants BEGIN
  INSERT INTO chains (tenant_id, name, length, last_id, last_hash) VALUES
    (NEW.id, 'events', 0, 0, '{START}'), (NEW.id, 'audit', 0, 0, '{START}'); END
"""
_POSTGRESQL = (
    "DROP TRIGGER {table}_no_UPDATE ON {table}",
    "{fill}",
    """CREATE TRIGGER {table}_no_UPDATE BEFORE UPDATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION itb_append_only()""",
    """CREATE FUNCTION itb_follow_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      UPDATE chains SET length = length + 1, last_id = NEW.{number}, last_hash = NEW.row_hash
        WHERE tenant_id = NEW.tenant_id AND name = '{table}'
        AND last_hash = NEW.previous_hash AND last_id < NEW.{number} AND length(NEW.row_hash) = 64;
      IF NOT FOUND THEN RAISE EXCEPTION '{table}: the row does not follow the chain'; END IF;
      RETURN NEW; END $$""",
    """CREATE TRIGGER {table}_follows BEFORE INSERT ON {table}
    FOR EACH ROW EXECUTE FUNCTION itb_follow_{table}()""",
)
_POSTGRESQL_TENANT = (
    f"""CREATE FUNCTION itb_begin_chains() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO chains (tenant_id, name, length, last_id, last_hash) VALUES
        (NEW.id, 'events', 0, 0, '{START}'), (NEW.id, 'audit', 0, 0, '{START}');
      RETURN NULL; END $$""",
    """CREATE TRIGGER tenants_chains AFTER INSERT ON tenants
    FOR EACH ROW EXECUTE FUNCTION itb_begin_chains()""",
)


def upgrade() -> None:
    c = op.get_bind()
    on_postgresql = c.dialect.name == "postgresql"
    op.create_table(
        "chains",
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("last_id", sa.BigInteger, nullable=False),
        sa.Column("last_hash", sa.Text, nullable=False),
    )
    for table, columns in COLUMNS.items():
        for name in ("previous_hash", "row_hash"):
            op.add_column(table, sa.Column(name, sa.Text, nullable=False, server_default=""))
        for statement in _POSTGRESQL if on_postgresql else _SQLITE:
            if statement == "{fill}":
                _seal_all(c, table, columns)
            else:
                op.execute(statement.format(table=table, number=columns[0]))
    for statement in _POSTGRESQL_TENANT if on_postgresql else (_SQLITE_TENANT,):
        op.execute(statement)


def _seal_all(c: sa.Connection, table: str, columns: tuple[str, ...]) -> None:
    """Seal the rows that there are, in the order of their numbers, and set each tenant's head."""
    number = columns[0]
    tenants = c.execute(sa.text("SELECT id FROM tenants")).scalars()
    ends: dict[int, dict[str, Any]] = {id: {"length": 0, "last_id": 0, "last_hash": START} for id in tenants}
    page = sa.text(f"SELECT * FROM {table} WHERE {number} > :after ORDER BY {number} LIMIT {_BATCH}")
    update = sa.text(
        f"UPDATE {table} SET previous_hash = :previous, row_hash = :hash WHERE {number} = :number"
    )
    after = 0
    while rows := c.execute(page, {"after": after}).mappings().all():
        sealed = []
        for row in rows:
            end = ends[row["tenant_id"]]
            hashed = seal(columns, row, end["last_hash"])
            sealed.append({"previous": end["last_hash"], "hash": hashed, "number": row[number]})
            end |= {"length": end["length"] + 1, "last_id": row[number], "last_hash": hashed}
        c.execute(update, sealed)
        after = rows[-1][number]
    head = sa.text(
        "INSERT INTO chains (tenant_id, name, length, last_id, last_hash) "
        "VALUES (:tenant_id, :name, :length, :last_id, :last_hash)"
    )
    c.execute(head, [{"tenant_id": id, "name": table, **end} for id, end in ends.items()])
