"""Items of `ForEach` steps, and what the core keeps with such a step's row.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.CHAR(36).with_variant(postgresql.UUID(), "postgresql")


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    prefix = "" if schema is None else f"{schema}."
    op.add_column(
        "saga_step", sa.Column("memo", sa.Text(), nullable=False, server_default=sa.text("''")), schema=schema
    )
    op.create_table(
        "saga_item",
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["saga_id"], [f"{prefix}saga_instance.id"], name="fk_saga_item_saga_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("saga_id", "step", "position", name="pk_saga_item"),
        sa.UniqueConstraint("saga_id", "step", "key", name="uq_saga_item_saga_id_step_key"),
        schema=schema,
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_table("saga_item", schema=schema)
    op.drop_column("saga_step", "memo", schema=schema)
