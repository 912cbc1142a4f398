"""More views for people: what is under way, what failed, how long things took, dead letters kept here.

Revision ID: 0010
Revises: 0009
"""

# ruff: noqa: S608 - only names and fixed words are pasted in

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def prefix() -> str:
    schema = op.get_context().version_table_schema
    return "" if schema is None else f'"{schema}".'


def on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def seconds_between(begin: str, end: str) -> str:
    if on_postgresql():
        return f"EXTRACT(EPOCH FROM ({end} - {begin}))::double precision"
    return f"(julianday({end}) - julianday({begin})) * 86400.0"


def active_view() -> str:
    return f"SELECT * FROM {prefix()}saga_status WHERE status IN ('running', 'compensating', 'blocked')"


def failed_view() -> str:
    return f"""
SELECT
    saga_id,
    saga,
    version,
    business_key,
    status,
    failed_step,
    error_code,
    error_text,
    blocked_reason,
    blocked_step,
    COALESCE(ended_at, waiting_since, updated_at) AS since,
    started_at,
    ended_at
FROM {prefix()}saga_status
WHERE status IN ('compensating', 'blocked', 'compensated', 'compensated_with_exceptions', 'abandoned')
"""


def latency_view() -> str:
    return f"""
SELECT
    i.id AS saga_id,
    i.name AS saga,
    i.version,
    '' AS step,
    '' AS direction,
    i.status,
    i.started_at,
    i.ended_at,
    {seconds_between("i.started_at", "i.ended_at")} AS seconds
FROM {prefix()}saga_instance i
WHERE i.ended_at IS NOT NULL
UNION ALL
SELECT
    i.id,
    i.name,
    i.version,
    s.step,
    s.direction,
    s.status,
    s.started_at,
    s.ended_at,
    {seconds_between("s.started_at", "s.ended_at")}
FROM {prefix()}saga_step s
JOIN {prefix()}saga_instance i ON i.id = s.saga_id
WHERE s.ended_at IS NOT NULL
"""


def dead_letter_view() -> str:
    return f"""
SELECT
    id AS dead_letter_id,
    queue,
    dead_at,
    reason,
    detail,
    type AS message,
    message_id,
    correlation_id
FROM {prefix()}message_dead_letter
"""


COMMENTS = {
    "VIEW saga_active": "The rows of saga_status that have not ended",
    "VIEW saga_failed": "Sagas that turned back, are blocked or were given up, with what went wrong first",
    "COLUMN saga_failed.since": "When it ended; else since when it is as it is",
    "VIEW saga_latency": "How long ended sagas and steps took",
    "COLUMN saga_latency.step": "Empty for the saga as a whole",
    "COLUMN saga_latency.direction": "action or compensation; empty for the saga as a whole",
    "COLUMN saga_latency.seconds": "From its beginning to its end, pauses and waits included",
    "VIEW saga_dead_letter": "Dead letters where the broker is memory; others keep their own: saga dlq list",
    "COLUMN saga_dead_letter.message": "Its name on the wire",
}


def upgrade() -> None:
    views = {
        "saga_active": active_view(),
        "saga_failed": failed_view(),
        "saga_latency": latency_view(),
        "saga_dead_letter": dead_letter_view(),
    }
    for name, select in views.items():
        op.execute(f"CREATE VIEW {prefix()}{name} AS {select.strip()}")
    if on_postgresql():
        for thing, words in COMMENTS.items():
            kind, name = thing.split(" ", 1)
            op.execute(f"COMMENT ON {kind} {prefix()}{name} IS '{words}'")


def downgrade() -> None:
    for name in ("saga_dead_letter", "saga_latency", "saga_failed", "saga_active"):
        op.execute(f"DROP VIEW {prefix()}{name}")
