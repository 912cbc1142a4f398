"""Definitions that are held, with a view; the view of sagas tells of them, and that of what is stuck reads less.

Revision ID: 0012
Revises: 0011
"""

# ruff: noqa: S608 - only names and fixed words are pasted in

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ID = sa.CHAR(36).with_variant(postgresql.UUID(), "postgresql")
INSTANT = sa.DateTime(timezone=True)
WAITS = (
    "CASE WHEN s.status = 'waiting' THEN 'event ' || s.wire_name "
    "ELSE 'reply to ' || s.wire_name || ' from ' || s.participant END"
)
OPEN = "s.saga_id = i.id AND s.status IN ('outstanding', 'waiting')"
LIVE = "i.status IN ('running', 'compensating')"
HELD = "released_at IS NULL"


def schema() -> str | None:
    return op.get_context().version_table_schema


def prefix() -> str:
    return "" if schema() is None else f'"{schema()}".'


def on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def all_waits() -> str:
    """What the open steps wait for, in order."""
    if on_postgresql():
        return f"(SELECT string_agg({WAITS}, ', ' ORDER BY s.seq) FROM {prefix()}saga_step s WHERE {OPEN})"
    return (
        "(SELECT group_concat(w.waits, ', ') FROM "
        f"(SELECT {WAITS} AS waits FROM saga_step s WHERE {OPEN} ORDER BY s.seq) w)"
    )


def of_blocked_step_alone(column: str) -> str:
    """As it was: a step of an item is not found."""
    return (
        f"(SELECT s.{column} FROM {prefix()}saga_step s WHERE s.saga_id = i.id AND s.step = i.blocked_step "
        "AND s.error_code <> '' ORDER BY s.seq DESC LIMIT 1)"
    )


def of_blocked_step(column: str) -> str:
    """A column of the step that blocks, the undoing one rather than the action; of an item's, `Step/item`.

    All of the key is given, so that of however many items one row or two are read.
    """
    slash = "strpos(i.blocked_step, '/')" if on_postgresql() else "instr(i.blocked_step, '/')"
    step = f"CASE {slash} WHEN 0 THEN i.blocked_step ELSE substr(i.blocked_step, 1, {slash} - 1) END"
    branch = f"CASE {slash} WHEN 0 THEN '' ELSE substr(i.blocked_step, {slash} + 1) END"
    return (
        f"(SELECT s.{column} FROM {prefix()}saga_step s WHERE s.saga_id = i.id AND s.step = {step} "
        f"AND s.direction IN ('action', 'compensation') AND s.branch = {branch} "
        "AND s.error_code <> '' ORDER BY s.seq DESC LIMIT 1)"
    )


def is_held() -> str:
    return (
        "i.status = 'running' AND i.seq = 0 AND i.parent_id IS NULL AND EXISTS ("
        f"SELECT 1 FROM {prefix()}saga_hold h WHERE h.released_at IS NULL AND h.name = i.name "
        "AND (h.version IS NULL OR h.version = i.version))"
    )


def status_view(*, with_holds: bool) -> str:
    step = f"FROM {prefix()}saga_step s WHERE {OPEN}"
    held = f"WHEN {is_held()} THEN 'an operator to release its definition'\n        " if with_holds else ""
    blocked = of_blocked_step if with_holds else of_blocked_step_alone
    return f"""
SELECT
    i.id AS saga_id,
    i.name AS saga,
    i.version,
    i.business_key,
    i.status,
    NULLIF(i.current_step, '') AS current_step,
    CASE
        WHEN i.status = 'blocked' THEN 'an operator'
        WHEN i.paused_at IS NOT NULL THEN 'an operator to resume it'
        {held}WHEN {LIVE} THEN COALESCE({all_waits()}, 'the engine')
    END AS waiting_for,
    CASE
        WHEN i.status = 'blocked' THEN COALESCE(i.blocked_at, i.updated_at)
        WHEN i.paused_at IS NOT NULL THEN i.paused_at
        WHEN {LIVE} THEN COALESCE((SELECT MIN(s.started_at) {step}), i.updated_at)
    END AS waiting_since,
    (SELECT MAX(s.attempt) {step}) AS attempt,
    i.wake_at AS next_wake_at,
    COALESCE(i.failed_step, NULLIF(i.blocked_step, '')) AS failed_step,
    CASE WHEN i.failed_step IS NULL THEN {blocked("error_code")} ELSE i.error_code END AS error_code,
    CASE WHEN i.failed_step IS NULL THEN {blocked("error_text")} ELSE i.error_text END AS error_text,
    i.blocked_reason,
    NULLIF(i.blocked_step, '') AS blocked_step,
    i.paused_at,
    i.started_at,
    i.updated_at,
    i.ended_at
FROM {prefix()}saga_instance i
"""


def held_view() -> str:
    return f"""
SELECT
    name AS saga,
    version,
    held_at,
    "by",
    reason
FROM {prefix()}saga_hold
WHERE {HELD}
"""


def instant_words(column: str) -> str:
    return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')" if on_postgresql() else column


def five_minutes_ago(*, once: bool) -> str:
    """In a query of its own it is read once, so that an index can be searched for it."""
    if on_postgresql():
        return f"({'SELECT ' if once else ''}clock_timestamp() - interval '5 minutes')"
    return "strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 minutes')"


def stuck_view(*, once: bool) -> str:
    saga = "i.id AS saga_id, i.name AS saga, i.business_key, i.status"
    return f"""
SELECT
    {saga},
    NULLIF(i.blocked_step, '') AS step,
    'blocked: ' || i.blocked_reason
        || CASE WHEN i.blocked_step = '' THEN '' ELSE ' at ' || i.blocked_step END AS why,
    COALESCE(i.blocked_at, i.updated_at) AS since
FROM {prefix()}saga_instance i
WHERE i.status = 'blocked'
UNION ALL
SELECT
    {saga},
    NULLIF(i.current_step, '') AS step,
    'overdue: no engine has looked at it since ' || {instant_words("i.wake_at")} AS why,
    i.wake_at AS since
FROM {prefix()}saga_instance i
WHERE i.wake_at < {five_minutes_ago(once=once)}
UNION ALL
SELECT
    {saga},
    s.step,
    'cannot be sent: ' || s.wire_name || ' to ' || s.participant || ': ' || s.send_error AS why,
    s.started_at AS since
FROM {prefix()}saga_step s
JOIN {prefix()}saga_instance i ON i.id = s.saga_id
WHERE s.send_after IS NOT NULL AND s.send_attempts > 0 AND s.send_error <> ''
"""


COMMENTS = {
    "VIEW saga_held": "Definitions whose sagas do not begin until they are released; empty is good",
    "COLUMN saga_held.version": "Null: all versions",
}


def replace_view(name: str, select: str) -> None:
    """Other views stand on it: PostgreSQL replaces it under them, SQLite looks views up by name."""
    if not on_postgresql():
        op.execute(f"DROP VIEW {name}")
    create = "CREATE OR REPLACE VIEW" if on_postgresql() else "CREATE VIEW"
    op.execute(f"{create} {prefix()}{name} AS {select.strip()}")


def upgrade() -> None:
    op.create_table(
        "saga_hold",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("held_at", INSTANT, nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("released_at", INSTANT, nullable=True),
        sa.Column("released_by", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("release_reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saga_hold"),
        schema=schema(),
    )
    only = sa.text(HELD)
    op.create_index(
        "ix_saga_hold_held", "saga_hold", ["name"], schema=schema(), postgresql_where=only, sqlite_where=only
    )
    op.execute(f"CREATE VIEW {prefix()}saga_held AS {held_view().strip()}")
    replace_view("saga_status", status_view(with_holds=True))
    replace_view("saga_stuck", stuck_view(once=True))
    if on_postgresql():
        for thing, words in COMMENTS.items():
            kind, name = thing.split(" ", 1)
            op.execute(f"COMMENT ON {kind} {prefix()}{name} IS '{words}'")


def downgrade() -> None:
    replace_view("saga_stuck", stuck_view(once=False))
    replace_view("saga_status", status_view(with_holds=False))
    op.execute(f"DROP VIEW {prefix()}saga_held")
    op.drop_table("saga_hold", schema=schema())
