"""The outbox keeps an order among messages of one key.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def schema() -> str | None:
    return op.get_context().version_table_schema


def upgrade() -> None:
    op.add_column("message_outbox", sa.Column("ordering_key", sa.String(length=255), nullable=True), schema=schema())
    op.add_column("message_outbox", sa.Column("ordering_position", sa.BigInteger(), nullable=True), schema=schema())
    keyed = sa.text("ordering_key IS NOT NULL")
    op.create_index(
        "ix_message_outbox_ordering",
        "message_outbox",
        ["ordering_key", "ordering_position", "id"],
        schema=schema(),
        postgresql_where=keyed,
        sqlite_where=keyed,
    )


def downgrade() -> None:
    op.drop_index("ix_message_outbox_ordering", "message_outbox", schema=schema())
    op.drop_column("message_outbox", "ordering_position", schema=schema())
    op.drop_column("message_outbox", "ordering_key", schema=schema())
