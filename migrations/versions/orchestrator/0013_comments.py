"""What each column of the documented views says, kept in PostgreSQL as comments.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SAGA = {
    "saga_id": "The saga's id",
    "saga": "Name of the definition",
    "version": "Version of the definition that it runs",
    "business_key": "The key it was started with, unique per saga name; null if it has none",
}
STATUS = {
    **SAGA,
    "status": "running, compensating, blocked; ended: completed, compensated, compensated_with_exceptions, abandoned",
    "current_step": "Steps something is awaited from",
    "waiting_for": "In words; null once it has ended",
    "waiting_since": "Since when it waits for that",
    "attempt": "Highest attempt of the steps something is awaited from",
    "next_wake_at": "When an engine looks at it at the latest; null if terminal, paused or blocked",
    "failed_step": "What made it turn back first; while nothing did, what blocks it",
    "error_code": "Of failed_step: the code of its failure",
    "error_text": "Of failed_step: what the participant or the engine said",
    "blocked_reason": "Why it needs an operator; null unless it is blocked",
    "blocked_step": "Where it is blocked; null if it is so as a whole, or not",
    "paused_at": "Since when it is paused; null if it is not",
    "started_at": "When it was started",
    "updated_at": "When it last changed",
    "ended_at": "When it ended; null until then",
}
VIEWS = {
    "saga_status": STATUS,
    "saga_active": STATUS,
    "saga_timeline": {
        "saga_id": SAGA["saga_id"],
        "seq": "Order in which steps began, undos included",
        "step": "Name of the step",
        "direction": "action, or compensation: its undo",
        "branch": "Key of the item it is about, in a ForEach; else empty",
        "status": "outstanding, waiting; ended: succeeded, refused, unknown, expired, cancelled, skipped",
        "participant": "Whose queue the command goes to; null for steps without a command",
        "message": "Name on the wire of its command or event; timer, local, items or saga for other steps",
        "round": "Rises when a refused command is tried again",
        "attempt": "Messages sent for this row, timeouts included",
        "sent_at": "When the broker took the command; null until then",
        "deadline": "Until when it is awaited; null if it is not",
        "error_code": "The code of its failure, the last one",
        "error_text": "What the participant or the engine said, the last time",
        "send_error": "Why the broker did not take the command, last time",
        "started_at": "When it began",
        "ended_at": "When it ended; null until then",
    },
    "saga_stuck": {
        **{name: SAGA[name] for name in ("saga_id", "saga", "business_key")},
        "status": STATUS["status"],
        "step": "Where it is stuck; null if it is so as a whole",
        "why": "Blocked, overdue by five minutes, or with a command that cannot be sent",
        "since": "Since when",
    },
    "saga_failed": {
        **SAGA,
        "status": "blocked, compensating, compensated, compensated_with_exceptions, abandoned",
        "failed_step": STATUS["failed_step"],
        "error_code": STATUS["error_code"],
        "error_text": STATUS["error_text"],
        "blocked_reason": STATUS["blocked_reason"],
        "blocked_step": STATUS["blocked_step"],
        "since": "When it ended; else since when it is as it is",
        "started_at": STATUS["started_at"],
        "ended_at": STATUS["ended_at"],
    },
    "saga_latency": {
        **{name: SAGA[name] for name in ("saga_id", "saga", "version")},
        "step": "Empty for the saga as a whole",
        "direction": "action or compensation; empty for the saga as a whole",
        "status": "How it ended",
        "started_at": "When it began",
        "ended_at": "When it ended",
        "seconds": "From its beginning to its end, pauses and waits included",
    },
    "saga_lock_wait": {
        **{name: SAGA[name] for name in ("saga_id", "saga", "business_key")},
        "step": "The step that waits",
        "resource": "What it waits for",
        "waiting_since": "Since when it waits",
        "held_by": "The saga that holds it; null if it is another one's turn",
        "held_by_step": "The step that holds it",
        "held_since": "Since when it is held",
    },
    "saga_dead_letter": {
        "dead_letter_id": "Id of the row",
        "queue": "Where it died",
        "dead_at": "When",
        "reason": "Why, in a line",
        "detail": "More about it, such as a traceback",
        "message": "Its name on the wire",
        "message_id": "Its id",
        "correlation_id": "Of a reply: the id of the command it answers",
    },
    "saga_held": {
        "saga": SAGA["saga"],
        "version": "Null: all versions",
        "held_at": "Since when",
        "by": "Who held it",
        "reason": "Why",
    },
    "saga_state_history": {
        **{name: SAGA[name] for name in ("saga_id", "saga", "business_key")},
        "version": "Version of the definition whose shape the state has",
        "revision": "Revision of the saga that wrote it; with position, its place in order",
        "position": "Which change of that revision it is",
        "step": "The step that led to it; empty for what it began with",
        "direction": "action, or compensation: its undo",
        "branch": "Key of the item it is about, in a ForEach; else empty",
        "cause": "The hook that led to it, or start, or upgrade",
        "state": "The whole state as JSON, secrets included",
        "at": "When it was so",
    },
}
TABLES = {
    "saga_unmatched": {
        "id": "Id of the row, which rises",
        "arrived_at": "When it came",
        "message_id": "Id of the message",
        "reason": "Why it fits no saga",
        "saga_id": "The saga that it named, or was found to be about; null if there is none",
        "properties": "Type, headers and other properties, as JSON",
        "body": "The body as it came, secrets included",
    },
    "saga_history": {
        "id": "Id of the row, which rises",
        "saga_id": SAGA["saga_id"],
        "at": "When it happened",
        "kind": "What happened, in a word: retry, timeout, turned_back, blocked and the like",
        "step": "The step it is about; empty if none",
        "text": "What happened, in words",
    },
    "saga_audit": {
        "id": "Id of the row, which rises",
        "saga_id": SAGA["saga_id"],
        "at": "When an engine took the request",
        "action": "What was asked: retry, cancel, skip and the like",
        "by": "Who asked",
        "reason": "Why, as they said",
        "before": "Status before",
        "after": "Status after",
        "refused": "Why nothing was done; empty if it was done",
        "signal_id": "Id of the request",
    },
}


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    schema = op.get_context().version_table_schema
    prefix = "" if schema is None else f'"{schema}".'
    for table, columns in (VIEWS | TABLES).items():
        for column, words in columns.items():
            text = words.replace("'", "''")
            op.execute(f"COMMENT ON COLUMN {prefix}{table}.\"{column}\" IS '{text}'")


def downgrade() -> None:
    """Leave them: they are as true of the revision before."""
