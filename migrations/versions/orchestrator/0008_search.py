"""Searchable fields: their index gives the sagas of a value in order, so that a page reads no more than it shows.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_index("ix_saga_search_found", "saga_search", ["field", "value", "saga_id"], schema=schema)
    op.drop_index("ix_saga_search_field_value", "saga_search", schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_index("ix_saga_search_field_value", "saga_search", ["field", "value"], schema=schema)
    op.drop_index("ix_saga_search_found", "saga_search", schema=schema)
