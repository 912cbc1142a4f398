"""Locks: their table anew, which no release has used so far, and a view of who waits for whom.

Revision ID: 0006
Revises: 0005
"""

# ruff: noqa: S608 - only names are pasted in

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.CHAR(36).with_variant(postgresql.UUID(), "postgresql")
INSTANT = sa.DateTime(timezone=True)


def schema() -> str | None:
    return op.get_context().version_table_schema


def prefix() -> str:
    return "" if schema() is None else f'"{schema()}".'


def index(name: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    only = None if where is None else sa.text(where)
    op.create_index(
        name, "saga_lock", list(columns), unique=unique, schema=schema(), postgresql_where=only, sqlite_where=only
    )


def lock_wait_view() -> str:
    return f"""
SELECT
    w.saga_id,
    i.name AS saga,
    i.business_key,
    w.step,
    w.resource,
    w.asked_at AS waiting_since,
    h.saga_id AS held_by,
    h.step AS held_by_step,
    h.held_since
FROM {prefix()}saga_lock w
JOIN {prefix()}saga_instance i ON i.id = w.saga_id
LEFT JOIN {prefix()}saga_lock h ON h.resource = w.resource AND h.held_since IS NOT NULL AND h.root_id <> w.root_id
WHERE w.held_since IS NULL
"""


COMMENTS = {
    "VIEW saga_lock_wait": "Which saga waits for which resource, and who holds it; empty is good",
    "COLUMN saga_lock_wait.held_by": "Null: nobody does; it waits for another resource, or for its turn",
}


def upgrade() -> None:
    op.drop_table("saga_lock", schema=schema())
    op.create_table(
        "saga_lock",
        sa.Column("id", ID, nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("root_id", ID, nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("waits", sa.Boolean(), nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("held_since", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_saga_lock"),
        schema=schema(),
    )
    index("ix_saga_lock_root_id", "root_id")
    index("ix_saga_lock_resource", "resource", "id")
    index("ix_saga_lock_saga", "saga_id", "step")
    index("ix_saga_lock_asked", "resource", where="held_since IS NULL")
    op.execute(f"CREATE VIEW {prefix()}saga_lock_wait AS {lock_wait_view().strip()}")
    if op.get_context().dialect.name == "postgresql":
        for thing, words in COMMENTS.items():
            kind, name = thing.split(" ", 1)
            op.execute(f"COMMENT ON {kind} {prefix()}{name} IS '{words}'")


def downgrade() -> None:
    op.execute(f"DROP VIEW {prefix()}saga_lock_wait")
    op.drop_table("saga_lock", schema=schema())
    op.create_table(
        "saga_lock",
        sa.Column("id", ID, nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("saga_id", ID, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("held_since", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_saga_lock"),
        schema=schema(),
    )
    index("ix_saga_lock_held", "resource", where="held_since IS NOT NULL", unique=True)
    index("ix_saga_lock_resource", "resource", "id")
    index("ix_saga_lock_saga_id", "saga_id")
