"""Sagas in a SQL database, through SQLAlchemy: PostgreSQL and SQLite."""

from orchestrator.sql.connecting import ConnectionSettings
from orchestrator.sql.revisions import include_object
from orchestrator.sql.starting import start_saga, start_saga_async
from orchestrator.sql.store import SqlStore
from orchestrator.sql.tables import metadata

__all__ = [
    "ConnectionSettings",
    "SqlStore",
    "include_object",
    "metadata",
    "start_saga",
    "start_saga_async",
]
