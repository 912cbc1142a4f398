"""Which version of its class a command's body was written by, so that its receiver can lift an older one.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    column = sa.Column("schema_version", sa.Integer(), nullable=False, server_default=sa.text("1"))
    op.add_column("saga_step", column, schema=schema)


def downgrade() -> None:
    op.drop_column("saga_step", "schema_version", schema=op.get_context().version_table_schema)
