"""Requests over HTTP: idempotency keys, and actions on many sagas.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.CHAR(36).with_variant(postgresql.UUID(), "postgresql")
INSTANT = sa.DateTime(timezone=True)
OPEN = sa.text("next_at IS NOT NULL")
UNASKED = sa.text("signal_id IS NULL AND error = ''")


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    prefix = "" if schema is None else f"{schema}."
    op.create_table(
        "saga_request",
        text("key"),
        text("fingerprint"),
        sa.Column("result_id", ID, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_saga_request"),
        schema=schema,
    )
    op.create_index("ix_saga_request_created_at", "saga_request", ["created_at"], schema=schema)
    op.create_table(
        "saga_bulk",
        sa.Column("id", ID, nullable=False),
        *(text(name) for name in ("action", "reason", "by")),
        sa.Column("per_second", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("next_at", INSTANT),
        sa.Column("stopped_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_saga_bulk"),
        schema=schema,
    )
    op.create_index(
        "ix_saga_bulk_open", "saga_bulk", ["next_at"], schema=schema, postgresql_where=OPEN, sqlite_where=OPEN
    )
    op.create_table(
        "saga_bulk_item",
        sa.Column("bulk_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("signal_id", ID),
        sa.Column("error", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.ForeignKeyConstraint(
            ["bulk_id"], [f"{prefix}saga_bulk.id"], name="fk_saga_bulk_item_bulk_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("bulk_id", "position", name="pk_saga_bulk_item"),
        schema=schema,
    )
    op.create_index(
        "ix_saga_bulk_item_unasked",
        "saga_bulk_item",
        ["bulk_id", "position"],
        schema=schema,
        postgresql_where=UNASKED,
        sqlite_where=UNASKED,
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for table in ("saga_bulk_item", "saga_bulk", "saga_request"):
        op.drop_table(table, schema=schema)
