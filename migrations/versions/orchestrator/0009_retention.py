"""Retention: how a purged saga's key remembers its end, whose turn it is, and the indexes that find what goes.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
INDEXES = (
    (
        "ix_saga_instance_ended",
        "saga_instance",
        ["status", "ended_at", "id"],
        "ended_at IS NOT NULL AND parent_id IS NULL",
    ),
    ("ix_saga_instance_root", "saga_instance", ["root_id"], "root_id IS NOT NULL"),
    ("ix_saga_event_consumed_by", "saga_event", ["consumed_by"], "consumed_by IS NOT NULL"),
    ("ix_saga_key_purged", "saga_key", ["saga_id"], "purged_at IS NOT NULL"),
    ("ix_saga_audit_at", "saga_audit", ["at"], None),
)


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.add_column("saga_key", sa.Column("purged_at", INSTANT), schema=schema)
    op.add_column("saga_key", sa.Column("ended_as", sa.Text()), schema=schema)
    op.add_column("saga_installation", sa.Column("purge_at", INSTANT), schema=schema)
    for name, table, columns, where in INDEXES:
        condition = None if where is None else sa.text(where)
        op.create_index(name, table, columns, schema=schema, postgresql_where=condition, sqlite_where=condition)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table, schema=schema)
    op.drop_column("saga_installation", "purge_at", schema=schema)
    op.drop_column("saga_key", "ended_as", schema=schema)
    op.drop_column("saga_key", "purged_at", schema=schema)
