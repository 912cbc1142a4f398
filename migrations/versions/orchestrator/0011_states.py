"""States as they were, of sagas that keep them, and the view `saga_state_history`.

Revision ID: 0011
Revises: 0010
"""

# ruff: noqa: S608 - only names and fixed words are pasted in

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ID = sa.CHAR(36).with_variant(postgresql.UUID(), "postgresql")
WORDS = ("step", "direction", "branch", "cause", "state")
COMMENTS = {
    "VIEW saga_state_history": "States as they were, secrets included, of sagas whose definition keeps them",
    "COLUMN saga_state_history.version": "Of the definition whose state it is",
    "COLUMN saga_state_history.revision": "That of the saga once the state was written",
    "COLUMN saga_state_history.position": "Which change of that revision",
    "COLUMN saga_state_history.step": "What changed it; empty at the start and for an upgrade",
    "COLUMN saga_state_history.cause": "The hook that changed it; start; upgrade",
    "COLUMN saga_state_history.state": "All of it, as JSON, once that had changed it",
}


def prefix() -> str:
    schema = op.get_context().version_table_schema
    return "" if schema is None else f'"{schema}".'


def on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def history_view() -> str:
    return f"""
SELECT
    t.saga_id,
    i.name AS saga,
    i.business_key,
    t.version,
    t.revision,
    t.position,
    t.step,
    t.direction,
    t.branch,
    t.cause,
    t.state,
    t.at
FROM {prefix()}saga_state t
JOIN {prefix()}saga_instance i ON i.id = t.saga_id
"""


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    saga_id = "saga_instance.id" if schema is None else f"{schema}.saga_instance.id"
    op.create_table(
        "saga_state",
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in WORDS),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("direction IN ('action', 'compensation')", name="ck_saga_state_direction"),
        sa.ForeignKeyConstraint(["saga_id"], [saga_id], name="fk_saga_state_saga_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("saga_id", "revision", "position", name="pk_saga_state"),
        schema=schema,
    )
    op.execute(f"CREATE VIEW {prefix()}saga_state_history AS {history_view().strip()}")
    if on_postgresql():
        for thing, words in COMMENTS.items():
            kind, name = thing.split(" ", 1)
            op.execute(f"COMMENT ON {kind} {prefix()}{name} IS '{words}'")


def downgrade() -> None:
    op.execute(f"DROP VIEW {prefix()}saga_state_history")
    op.drop_table("saga_state", schema=op.get_context().version_table_schema)
