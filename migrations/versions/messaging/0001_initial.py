"""The tables of the bus: outbox, inbox, dead letters.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.CHAR(36).with_variant(postgresql.UUID(), "postgresql")
INSTANT = sa.DateTime(timezone=True)


def schema() -> str | None:
    return op.get_context().version_table_schema


def table(name: str, *parts: sa.schema.SchemaItem, **options: object) -> None:
    op.create_table(name, *parts, schema=schema(), **options)


def index(name: str, of_table: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    only = None if where is None else sa.text(where)
    op.create_index(
        name, of_table, list(columns), unique=unique, schema=schema(), postgresql_where=only, sqlite_where=only
    )


def upgrade() -> None:
    table(
        "message_dead_letter",
        sa.Column("id", ID, nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("dead_at", INSTANT, nullable=False),
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("correlation_id", sa.String(length=255), nullable=False),
        sa.Column("reply_to", sa.String(length=255), nullable=False),
        sa.Column("content_type", sa.String(length=255), nullable=False),
        sa.Column("timestamp", INSTANT, nullable=True),
        sa.Column("app_id", sa.String(length=255), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_message_dead_letter_queue", "message_dead_letter", "queue", "dead_at")
    table(
        "message_inbox",
        sa.Column("service", sa.String(length=128), nullable=False),
        sa.Column("idempotency_key", sa.String(length=512), nullable=False),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("type", sa.String(length=128), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("claimed_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("service", "idempotency_key", name="pk_message_inbox"),
    )
    index("ix_message_inbox_claimed_at", "message_inbox", "claimed_at")
    table(
        "message_outbox",
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("send_after", INSTANT, nullable=False),
        sa.Column("send_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("exchange", sa.String(length=255), nullable=False),
        sa.Column("exchange_kind", sa.String(length=16), nullable=False),
        sa.Column("routing_key", sa.String(length=255), nullable=False),
        sa.Column("mandatory", sa.Boolean(), nullable=False),
        sa.Column("absolute", sa.Boolean(), nullable=False),
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("correlation_id", sa.String(length=255), nullable=False),
        sa.Column("reply_to", sa.String(length=255), nullable=False),
        sa.Column("content_type", sa.String(length=255), nullable=False),
        sa.Column("timestamp", INSTANT, nullable=True),
        sa.Column("app_id", sa.String(length=255), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_message_outbox_send_after", "message_outbox", "send_after")


def downgrade() -> None:
    for name in ("message_outbox", "message_inbox", "message_dead_letter"):
        op.drop_table(name, schema=schema())
