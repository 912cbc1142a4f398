"""Views for people: where every saga is, what happened to it, and which ones need someone.

Revision ID: 0002
Revises: 0001
"""

# ruff: noqa: S608 - only names and fixed words are pasted in

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WAITS = (
    "CASE WHEN s.status = 'waiting' THEN 'event ' || s.wire_name "
    "ELSE 'reply to ' || s.wire_name || ' from ' || s.participant END"
)
OPEN = "s.saga_id = i.id AND s.status IN ('outstanding', 'waiting')"
LIVE = "i.status IN ('running', 'compensating')"


def prefix() -> str:
    schema = op.get_context().version_table_schema
    return "" if schema is None else f'"{schema}".'


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


def instant_words(column: str) -> str:
    return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')" if on_postgresql() else column


def five_minutes_ago() -> str:
    if on_postgresql():
        return "(clock_timestamp() - interval '5 minutes')"
    return "strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 minutes')"


def of_blocked_step(column: str) -> str:
    """A column of the step that blocks, the undoing one rather than the action."""
    return (
        f"(SELECT s.{column} FROM {prefix()}saga_step s WHERE s.saga_id = i.id AND s.step = i.blocked_step "
        "AND s.error_code <> '' ORDER BY s.seq DESC LIMIT 1)"
    )


def status_view() -> str:
    step = f"FROM {prefix()}saga_step s WHERE {OPEN}"
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
        WHEN {LIVE} THEN COALESCE({all_waits()}, 'the engine')
    END AS waiting_for,
    CASE
        WHEN i.status = 'blocked' THEN COALESCE(i.blocked_at, i.updated_at)
        WHEN i.paused_at IS NOT NULL THEN i.paused_at
        WHEN {LIVE} THEN COALESCE((SELECT MIN(s.started_at) {step}), i.updated_at)
    END AS waiting_since,
    (SELECT MAX(s.attempt) {step}) AS attempt,
    i.wake_at AS next_wake_at,
    COALESCE(i.failed_step, NULLIF(i.blocked_step, '')) AS failed_step,
    CASE WHEN i.failed_step IS NULL THEN {of_blocked_step("error_code")} ELSE i.error_code END AS error_code,
    CASE WHEN i.failed_step IS NULL THEN {of_blocked_step("error_text")} ELSE i.error_text END AS error_text,
    i.blocked_reason,
    NULLIF(i.blocked_step, '') AS blocked_step,
    i.paused_at,
    i.started_at,
    i.updated_at,
    i.ended_at
FROM {prefix()}saga_instance i
"""


def timeline_view() -> str:
    return f"""
SELECT
    saga_id,
    seq,
    step,
    direction,
    branch,
    status,
    NULLIF(participant, '') AS participant,
    NULLIF(wire_name, '') AS message,
    round,
    attempt,
    sent_at,
    deadline,
    NULLIF(error_code, '') AS error_code,
    NULLIF(error_text, '') AS error_text,
    NULLIF(send_error, '') AS send_error,
    started_at,
    ended_at
FROM {prefix()}saga_step
"""


def stuck_view() -> str:
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
WHERE i.wake_at < {five_minutes_ago()}
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
    "VIEW saga_status": "Where every saga is: one row a saga",
    "COLUMN saga_status.saga": "Name of the definition",
    "COLUMN saga_status.business_key": "The key it was started with; unique per saga name",
    "COLUMN saga_status.current_step": "Steps something is awaited from",
    "COLUMN saga_status.waiting_for": "In words; null once it has ended",
    "COLUMN saga_status.waiting_since": "Since when it waits for that",
    "COLUMN saga_status.attempt": "Highest attempt of the steps something is awaited from",
    "COLUMN saga_status.next_wake_at": "When an engine looks at it at the latest; null if terminal, paused or blocked",
    "COLUMN saga_status.failed_step": "What made it turn back first; while nothing did, what blocks it",
    "VIEW saga_timeline": "What every saga has done: one row a step and direction, in order of seq",
    "COLUMN saga_timeline.round": "Rises when a refused command is tried again",
    "COLUMN saga_timeline.attempt": "Messages sent for this row, timeouts included",
    "COLUMN saga_timeline.send_error": "Why the broker did not take the command, last time",
    "VIEW saga_stuck": "Sagas that need someone, and why; empty is good",
    "COLUMN saga_stuck.why": "Blocked, overdue by five minutes, or with a command that cannot be sent",
}


def upgrade() -> None:
    views = {"saga_status": status_view(), "saga_timeline": timeline_view(), "saga_stuck": stuck_view()}
    for name, select in views.items():
        op.execute(f"CREATE VIEW {prefix()}{name} AS {select.strip()}")
    if on_postgresql():
        for thing, words in COMMENTS.items():
            kind, name = thing.split(" ", 1)
            op.execute(f"COMMENT ON {kind} {prefix()}{name} IS '{words}'")


def downgrade() -> None:
    for name in ("saga_stuck", "saga_timeline", "saga_status"):
        op.execute(f"DROP VIEW {prefix()}{name}")
