"""Which installation a database belongs to: a name, and an id drawn by the first migration."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select

from orchestrator.errors import SchemaMismatch
from orchestrator.reply_tokens import ReplyTokens
from orchestrator.sql.tables import in_schema, saga_installation


@dataclass(frozen=True, slots=True)
class Installation:
    """The name stands in the names of the reply queue; the id tells who may consume it."""

    name: str
    id: UUID
    tokens: ReplyTokens | None = None
    """None where the tables are older than these tokens."""


def installation_of(connection: Connection, *, schema: str | None = None) -> Installation:
    """Read the one row.

    Raises:
        SchemaMismatch: there is none: the tables were made by something else than `saga migrate`.
    """
    table = in_schema(saga_installation, schema)
    row = connection.execute(select(table.c.name, table.c.id, table.c.token_secret)).first()
    if row is None:
        raise SchemaMismatch("the database has no installation of its own. Run: saga migrate")
    return Installation(row.name, row.id, ReplyTokens(row.token_secret) if row.token_secret else None)
