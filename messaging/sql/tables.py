"""The tables of the bus: outbox, inbox, dead letters. Their own metadata, in a schema on request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from messaging.inbox import MAX_KEY_CHARACTERS
from messaging.outbox import MAX_ORDERING_KEY_CHARACTERS
from messaging.sql.types import Id, Instant


@dataclass(frozen=True, slots=True)
class MessagingTables:
    """The tables of one schema."""

    metadata: MetaData
    outbox: Table
    inbox: Table
    dead_letter: Table


@lru_cache
def tables(schema: str | None = None) -> MessagingTables:
    """Return the tables as they stand in a schema; None is the connection's default one."""
    metadata = MetaData(schema=schema)
    return MessagingTables(metadata, _outbox(metadata), _inbox(metadata), _dead_letter(metadata))


def _outbox(metadata: MetaData) -> Table:
    """Messages that are committed and not yet confirmed; a row goes when its message is confirmed.

    `send_after` is due time, claim and backoff in one: whoever sends writes the end of its lease there. Rows of
    one `ordering_key` leave in the order of their positions, each once the one before is gone.
    """
    keyed = text("ordering_key IS NOT NULL")
    return Table(
        "message_outbox",
        metadata,
        Column("id", Id, primary_key=True),
        Column("created_at", Instant, nullable=False),
        Column("send_after", Instant, nullable=False),
        Column("send_attempts", Integer, nullable=False, default=0, server_default="0"),
        Column("last_error", Text),
        Column("exchange", String(255), nullable=False),
        Column("exchange_kind", String(16), nullable=False),
        Column("routing_key", String(255), nullable=False),
        Column("mandatory", Boolean(create_constraint=False), nullable=False),
        Column("absolute", Boolean(create_constraint=False), nullable=False),
        *_message_columns(),
        Column("ordering_key", String(MAX_ORDERING_KEY_CHARACTERS)),
        Column("ordering_position", BigInteger),
        Index("ix_message_outbox_send_after", "send_after"),
        Index(
            "ix_message_outbox_ordering",
            "ordering_key",
            "ordering_position",
            "id",
            postgresql_where=keyed,
            sqlite_where=keyed,
        ),
    )


def _inbox(metadata: MetaData) -> Table:
    """Orders that were claimed: what was answered, or that they must not happen any more."""
    return Table(
        "message_inbox",
        metadata,
        Column("service", String(128), nullable=False),
        Column("idempotency_key", String(MAX_KEY_CHARACTERS), nullable=False),
        Column("undone", Boolean(create_constraint=False), nullable=False),
        Column("outcome", String(16)),
        Column("error_code", Text),
        Column("type", String(128)),
        Column("body", Text),
        Column("claimed_at", Instant, nullable=False),
        PrimaryKeyConstraint("service", "idempotency_key", name="pk_message_inbox"),
        Index("ix_message_inbox_claimed_at", "claimed_at"),
    )


def _dead_letter(metadata: MetaData) -> Table:
    """Messages nobody could use, with why; only where the broker is memory, every other keeps them itself.

    Bodies are raw: they may be no text at all.
    """
    return Table(
        "message_dead_letter",
        metadata,
        Column("id", Id, primary_key=True),
        Column("queue", String(255), nullable=False),
        Column("reason", Text, nullable=False),
        Column("detail", Text, nullable=False),
        Column("dead_at", Instant, nullable=False),
        *_message_columns(LargeBinary()),
        Index("ix_message_dead_letter_queue", "queue", "dead_at"),
    )


def _message_columns(body_type: Any = None) -> list[Column[Any]]:
    return [
        Column("message_id", String(255), nullable=False),
        Column("type", String(255), nullable=False),
        Column("correlation_id", String(255), nullable=False),
        Column("reply_to", String(255), nullable=False),
        Column("content_type", String(255), nullable=False),
        Column("timestamp", Instant),
        Column("app_id", String(255), nullable=False),
        Column("headers", Text, nullable=False),
        Column("body", body_type or Text(), nullable=False),
    ]


messaging_metadata = tables().metadata
"""For a migration tool: what the tables of the default schema should look like."""


async def create_tables(engine: Engine | Connection | AsyncEngine | AsyncConnection, schema: str | None = None) -> None:
    """Create what is missing, for tests and embedded use; servers are migrated instead."""
    metadata = tables(schema).metadata
    if isinstance(engine, AsyncEngine):
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
    elif isinstance(engine, AsyncConnection):
        await engine.run_sync(metadata.create_all)
    else:
        metadata.create_all(engine)
