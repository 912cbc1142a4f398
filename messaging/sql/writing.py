"""Writing to the outbox, in the transaction of whoever has something to tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, bindparam, event, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import Insert

from messaging.errors import OutboxRefused, UnencodableMessage
from messaging.ids import new_id
from messaging.outbox import MAX_ORDERING_KEY_CHARACTERS
from messaging.sql import cursors
from messaging.sql.sessions import AnySession, BlockingSession, meant
from messaging.sql.tables import tables
from messaging.transport import Outgoing

_ASSIGNED: Final = ("last_error", "ordering_position")
_CALLS: Final = "messaging.after_commit"


def write_outgoing(session: BlockingSession, messages: Sequence[Outgoing], *, schema: str | None = None) -> None:
    """Write messages into the outbox in this transaction; they leave when it has committed.

    Raises:
        UnencodableMessage: a body is no text.
        OutboxRefused: an ordering key is no key, a cursor is in no transaction, or the session is none.
    """
    now = datetime.now(UTC)
    rows = [_values(message, now) for message in messages]
    # Without an order there is nothing to look up: what most rows are is one plain statement.
    for in_order in (False, True):
        if some := [row for row in rows if (row["ordering_key"] is not None) is in_order]:
            _execute(session, _insert(schema, in_order), some)


async def write_outgoing_async(session: AnySession, messages: Sequence[Outgoing], *, schema: str | None = None) -> None:
    """Write as `write_outgoing` does, from a coroutine and through a session of any kind."""
    current = meant(session)
    if isinstance(current, (AsyncSession, AsyncConnection)):
        await current.run_sync(lambda sync: write_outgoing(sync, messages, schema=schema))
    else:
        write_outgoing(current, messages, schema=schema)


def after_commit(session: AnySession, call: Callable[[], None]) -> None:
    """Call once the transaction of this session has committed.

    With a bare SQLAlchemy connection it is called as the commit begins, with a plain driver's cursor not at all.
    """
    current = meant(session)
    if isinstance(current, AsyncSession):
        current = current.sync_session
    elif isinstance(current, AsyncConnection):
        current = current.sync_connection or current
    if isinstance(current, Session):
        current.info.setdefault(_CALLS, set()).add(call)
        if not event.contains(current, "after_commit", _committed):
            event.listen(current, "after_commit", _committed)
    elif isinstance(current, (Connection, AsyncConnection)):
        event.listen(current, "commit", _ignoring(call), once=True)
    else:
        cursors.on_commit(current, call)


def _committed(session: Session) -> None:
    """A savepoint that is released tells the same, and is no commit."""
    if not session.in_nested_transaction():
        for call in session.info.pop(_CALLS, ()):
            call()


def _ignoring(call: Callable[[], None]) -> Callable[[object], None]:
    return lambda _: call()


def _execute(session: BlockingSession, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    current = meant(session)
    if isinstance(current, Session):
        current.connection().execute(statement, rows)
    elif isinstance(current, Connection):
        current.execute(statement, rows)
    elif not isinstance(current, (AsyncSession, AsyncConnection)) and cursors.is_one(current):
        cursors.execute(current, statement, rows)
    else:
        raise OutboxRefused(
            f"session= is of {type(session).__module__}.{type(session).__qualname__}. Give a session or connection of "
            "SQLAlchemy (a BlockingBus: one that blocks), or a cursor of Django, psycopg 3 or sqlite3"
        )


@lru_cache
def _insert(schema: str | None, in_order: bool) -> Insert:
    """One row; with an order, behind those of its key that are still there.

    The database is asked for the last position, since the writers' clocks disagree. Transactions that overlap
    may get the same one: there is no order between them.
    """
    outbox = tables(schema).outbox
    values: dict[str, Any] = {
        column.name: bindparam(column.name, type_=column.type) for column in outbox.c if column.name not in _ASSIGNED
    }
    if in_order:
        of_key = outbox.alias("of_key")
        key: BindParameter[str] = bindparam("ordering_key", type_=outbox.c.ordering_key.type)
        last = select(func.coalesce(func.max(of_key.c.ordering_position), 0)).where(of_key.c.ordering_key == key)
        values["ordering_position"] = last.scalar_subquery() + 1
    return insert(outbox).values(values)


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
        "ordering_key": _checked(message.ordering_key),
    }


def _checked(ordering_key: str) -> str | None:
    if len(ordering_key) > MAX_ORDERING_KEY_CHARACTERS or "\0" in ordering_key:
        raise OutboxRefused(
            f"an ordering key has at most {MAX_ORDERING_KEY_CHARACTERS} characters and no NUL; "
            f"this one has {len(ordering_key)}: {ordering_key[:40]!r}"
        )
    return ordering_key or None
