"""The secret by which reply tokens are signed, drawn here.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.add_column("saga_installation", sa.Column("token_secret", sa.Text()), schema=schema)
    installation = sa.table("saga_installation", sa.column("token_secret"), schema=schema)
    op.execute(installation.update().values(token_secret=op.inline_literal(secrets.token_hex(32))))


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_column("saga_installation", "token_secret", schema=schema)
