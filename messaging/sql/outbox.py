"""The outbox as a table, written in the caller's transaction and read by relays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, event, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from messaging.envelope import Destination, Envelope
from messaging.errors import UnencodableMessage
from messaging.ids import new_id
from messaging.outbox import OutboxRow, PutOff
from messaging.sql.sessions import Sessions, in_transaction
from messaging.sql.tables import tables
from messaging.transport import Outgoing

_MAX_ERROR_CHARACTERS = 1000


def write_outgoing(session: Session | Connection, messages: Sequence[Outgoing], *, schema: str | None = None) -> None:
    """Write messages into the outbox in this transaction; they leave when it has committed.

    Raises:
        UnencodableMessage: a body is no text.
    """
    if not messages:
        return
    connection = session.connection() if isinstance(session, Session) else session
    now = datetime.now(UTC)
    connection.execute(insert(tables(schema).outbox), [_values(message, now) for message in messages])


async def write_outgoing_async(
    session: Session | Connection | AsyncSession | AsyncConnection,
    messages: Sequence[Outgoing],
    *,
    schema: str | None = None,
) -> None:
    """Write as `write_outgoing` does, from a coroutine and through a session of any kind."""
    if isinstance(session, (AsyncSession, AsyncConnection)):
        await session.run_sync(lambda sync: write_outgoing(sync, messages, schema=schema))
    else:
        write_outgoing(session, messages, schema=schema)


def after_commit(session: object, call: Callable[[], None]) -> None:
    """Call once when the transaction of this session or connection has committed."""
    if isinstance(session, AsyncSession):
        session = session.sync_session
    elif isinstance(session, AsyncConnection):
        session = session.sync_connection
    name = "after_commit" if isinstance(session, Session) else "commit"

    def committed(_: Any) -> None:
        call()

    event.listen(session, name, committed, once=True)


class SqlOutbox:
    """The outbox table behind a sessionmaker, as a relay uses it."""

    def __init__(self, sessions: Sessions, *, schema: str | None = None) -> None:
        self._sessions, self._schema = sessions, schema

    async def claim(self, *, now: datetime, lease_until: datetime, limit: int) -> list[OutboxRow]:
        """Write the lease into what is due and return it, skipping what another relay is claiming."""

        def work(session: Session) -> list[OutboxRow]:
            statement = self._claim_statement(now, limit).values(send_after=lease_until)
            rows = session.connection().execute(statement).mappings().all()
            return sorted((_row(row) for row in rows), key=lambda row: row.id)

        return await in_transaction(self._sessions, work)

    def _claim_statement(self, now: datetime, limit: int) -> Any:
        outbox = tables(self._schema).outbox
        # SQLite has neither row locks nor the clause: it renders without, and has one writer anyway.
        due = (
            select(outbox.c.id)
            .where(outbox.c.send_after <= now)
            .order_by(outbox.c.send_after, outbox.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return update(outbox).where(outbox.c.id.in_(due.cte("due").select())).returning(*outbox.c)

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete what was confirmed."""
        outbox = tables(self._schema).outbox
        await in_transaction(
            self._sessions, lambda session: session.connection().execute(delete(outbox).where(outbox.c.id.in_(ids)))
        )

    async def put_off(self, rows: Sequence[PutOff]) -> None:
        """Write the next due time and the error of each."""
        outbox = tables(self._schema).outbox
        statement = (
            update(outbox)
            .where(outbox.c.id == bindparam("of_id"))
            .values(
                send_after=bindparam("due"),
                last_error=bindparam("error"),
                send_attempts=outbox.c.send_attempts + 1,
            )
        )
        values = [{"of_id": row.id, "due": row.send_after, "error": row.error[:_MAX_ERROR_CHARACTERS]} for row in rows]
        await in_transaction(self._sessions, lambda session: session.connection().execute(statement, values))

    async def release(self, *, now: datetime) -> None:
        """End every lease: what claimed them is gone."""
        outbox = tables(self._schema).outbox
        statement = update(outbox).where(outbox.c.send_after > now).values(send_after=now)
        await in_transaction(self._sessions, lambda session: session.connection().execute(statement))


def _values(message: Outgoing, now: datetime) -> dict[str, Any]:
    envelope, destination = message.envelope, message.destination
    try:
        body = envelope.body.decode()
    except UnicodeDecodeError as error:
        raise UnencodableMessage(envelope.type, f"its body is not UTF-8: {error.reason}") from error
    return {
        "id": new_id(),
        "created_at": now,
        "send_after": now,
        "send_attempts": 0,
        "exchange": destination.exchange,
        "exchange_kind": destination.kind,
        "routing_key": destination.routing_key,
        "mandatory": destination.mandatory,
        "absolute": destination.absolute,
        "message_id": envelope.message_id,
        "type": envelope.type,
        "correlation_id": envelope.correlation_id,
        "reply_to": envelope.reply_to,
        "content_type": envelope.content_type,
        "timestamp": envelope.timestamp,
        "app_id": envelope.app_id,
        "headers": json.dumps(dict(envelope.headers), ensure_ascii=False),
        "body": body,
    }


def _row(row: RowMapping) -> OutboxRow:
    envelope = Envelope(
        row["message_id"],
        row["body"].encode(),
        row["type"],
        correlation_id=row["correlation_id"],
        reply_to=row["reply_to"],
        content_type=row["content_type"],
        timestamp=row["timestamp"],
        app_id=row["app_id"],
        headers=json.loads(row["headers"]),
    )
    destination = Destination(
        row["routing_key"],
        row["exchange"],
        mandatory=row["mandatory"],
        absolute=row["absolute"],
        kind=row["exchange_kind"],
    )
    return OutboxRow(row["id"], Outgoing(envelope, destination), row["send_attempts"])
