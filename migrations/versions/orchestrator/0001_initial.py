"""The tables of sagas.

Revision ID: 0001
Revises:
"""

# ruff: noqa: E501 - conditions read best in one line

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

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


def target(column: str) -> str:
    return column if schema() is None else f"{schema()}.{column}"


def upgrade() -> None:
    table(
        "saga_audit",
        sa.Column("id", ID, nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("refused", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("signal_id", ID, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_saga_audit"),
    )
    index("ix_saga_audit_saga", "saga_audit", "saga_id", "id")
    index("ix_saga_audit_signal", "saga_audit", "signal_id", where="signal_id IS NOT NULL")
    table(
        "saga_event",
        sa.Column("id", ID, nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("wire_name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("arrived_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("consumed_at", INSTANT, nullable=True),
        sa.Column("consumed_by", ID, nullable=True),
        sa.CheckConstraint("(consumed_at IS NULL) = (consumed_by IS NULL)", name="ck_saga_event_consumed"),
        sa.PrimaryKeyConstraint("id", name="pk_saga_event"),
        sa.UniqueConstraint("message_id", "key", name="uq_saga_event_message_id_key"),
    )
    index("ix_saga_event_expires_at", "saga_event", "expires_at")
    index("ix_saga_event_kept", "saga_event", "wire_name", "key", where="consumed_at IS NULL")
    table(
        "saga_history",
        sa.Column("id", ID, nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saga_history"),
    )
    index("ix_saga_history_saga", "saga_history", "saga_id", "id")
    table(
        "saga_installation",
        sa.Column("only_row", sa.Integer(), server_default=sa.text("1"), autoincrement=False, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("only_row = 1", name="ck_saga_installation_only_row"),
        sa.PrimaryKeyConstraint("only_row", name="pk_saga_installation"),
    )
    table(
        "saga_instance",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("business_key", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("wake_at", INSTANT, nullable=True),
        sa.Column("seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("current_step", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("deadline", INSTANT, nullable=True),
        sa.Column("blocked_reason", sa.Text(), nullable=True),
        sa.Column("blocked_step", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("blocked_from", sa.Text(), nullable=True),
        sa.Column("blocked_at", INSTANT, nullable=True),
        sa.Column("paused_at", INSTANT, nullable=True),
        sa.Column("failed_step", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column("parent_id", ID, nullable=True),
        sa.Column("root_id", ID, nullable=True),
        sa.Column("parent_step", sa.Text(), nullable=True),
        sa.Column("trace", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.CheckConstraint(
            "(wake_at IS NULL) = (status IN ('blocked', 'completed', 'compensated', 'compensated_with_exceptions', 'abandoned') OR paused_at IS NOT NULL)",
            name="ck_saga_instance_wake_at",
        ),
        sa.CheckConstraint(
            "blocked_reason IN ('retries_exhausted', 'pivot_unknown', 'compensation_failed', 'code_error', 'needs_version', 'child_abandoned')",
            name="ck_saga_instance_blocked_reason",
        ),
        sa.CheckConstraint("status <> 'blocked' OR blocked_reason IS NOT NULL", name="ck_saga_instance_blocked"),
        sa.CheckConstraint(
            "status IN ('running', 'compensating', 'blocked', 'completed', 'compensated', 'compensated_with_exceptions', 'abandoned')",
            name="ck_saga_instance_status",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_saga_instance"),
        postgresql_with={"fillfactor": 80},
    )
    index("ix_saga_instance_due", "saga_instance", "wake_at", where="wake_at IS NOT NULL")
    index("ix_saga_instance_key", "saga_instance", "business_key", where="business_key IS NOT NULL")
    index("ix_saga_instance_name", "saga_instance", "name", "id")
    index("ix_saga_instance_parent", "saga_instance", "parent_id", where="parent_id IS NOT NULL")
    index("ix_saga_instance_status_name", "saga_instance", "status", "name", "id")
    table(
        "saga_key",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("business_key", sa.Text(), nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", "business_key", name="pk_saga_key"),
    )
    table(
        "saga_lock",
        sa.Column("id", ID, nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("held_since", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_saga_lock"),
    )
    index("ix_saga_lock_held", "saga_lock", "resource", where="held_since IS NOT NULL", unique=True)
    index("ix_saga_lock_resource", "saga_lock", "resource", "id")
    index("ix_saga_lock_saga_id", "saga_lock", "saga_id")
    table(
        "saga_signal",
        sa.Column("id", ID, nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("arrived_at", INSTANT, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_saga_signal"),
    )
    index("ix_saga_signal_pending", "saga_signal", "saga_id", "id", where="taken_at IS NULL AND error = ''")
    index("ix_saga_signal_saga_id", "saga_signal", "saga_id")
    table(
        "saga_unmatched",
        sa.Column("id", ID, nullable=False),
        sa.Column("arrived_at", INSTANT, nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("saga_id", ID, nullable=True),
        sa.Column("properties", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saga_unmatched"),
    )
    index("ix_saga_unmatched_saga", "saga_unmatched", "saga_id", where="saga_id IS NOT NULL")
    table(
        "saga_worker",
        sa.Column("id", ID, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("process_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("definitions", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("heartbeat_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saga_worker"),
    )
    index("ix_saga_worker_heartbeat_at", "saga_worker", "heartbeat_at")
    table(
        "saga_attempt",
        sa.Column("command_id", ID, nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["saga_id"], [target("saga_instance.id")], name="fk_saga_attempt_saga_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("command_id", name="pk_saga_attempt"),
    )
    index("ix_saga_attempt_saga_id", "saga_attempt", "saga_id")
    table(
        "saga_search",
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["saga_id"], [target("saga_instance.id")], name="fk_saga_search_saga_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("saga_id", "field", name="pk_saga_search"),
    )
    index("ix_saga_search_field_value", "saga_search", "field", "value")
    table(
        "saga_step",
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("wire_name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("participant", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("unanswered", sa.Integer(), nullable=False),
        sa.Column("command_id", ID, nullable=True),
        sa.Column("compensates", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("send_after", INSTANT, nullable=True),
        sa.Column("sent_at", INSTANT, nullable=True),
        sa.Column("send_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("send_error", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("deadline", INSTANT, nullable=True),
        sa.Column("awaited_key", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("waiting_key", sa.Text(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("error_text", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.CheckConstraint("(status = 'waiting') = (waiting_key IS NOT NULL)", name="ck_saga_step_waiting_key"),
        sa.CheckConstraint("direction IN ('action', 'compensation')", name="ck_saga_step_direction"),
        sa.CheckConstraint(
            "status IN ('outstanding', 'waiting', 'succeeded', 'refused', 'unknown', 'expired', 'cancelled', 'skipped')",
            name="ck_saga_step_status",
        ),
        sa.ForeignKeyConstraint(
            ["saga_id"], [target("saga_instance.id")], name="fk_saga_step_saga_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("saga_id", "step", "direction", "branch", name="pk_saga_step"),
        postgresql_with={"fillfactor": 80},
    )
    index("ix_saga_step_command", "saga_step", "command_id", where="command_id IS NOT NULL", unique=True)
    index("ix_saga_step_unsent", "saga_step", "send_after", where="send_after IS NOT NULL")
    index("ix_saga_step_waiting", "saga_step", "wire_name", "waiting_key", where="waiting_key IS NOT NULL")

    installation = op.get_context().config.attributes.get("installation") or "main"
    rows = sa.table(
        "saga_installation",
        sa.column("id", ID),
        sa.column("name", sa.Text()),
        sa.column("created_at", INSTANT),
        schema=schema(),
    )
    op.bulk_insert(rows, [{"id": str(uuid4()), "name": installation, "created_at": datetime.now(UTC)}])


def downgrade() -> None:
    for name in (
        "saga_step",
        "saga_search",
        "saga_attempt",
        "saga_worker",
        "saga_unmatched",
        "saga_signal",
        "saga_lock",
        "saga_key",
        "saga_instance",
        "saga_installation",
        "saga_history",
        "saga_event",
        "saga_audit",
    ):
        op.drop_table(name, schema=schema())
