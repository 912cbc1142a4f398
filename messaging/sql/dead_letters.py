"""Dead letters as rows, where the broker is memory and would forget them with the process.

A replay moves the row into the outbox of the same database, in one transaction: the process that runs
there sends it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import RowMapping, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from messaging.dead_letter_notes import DeadLetter, dead_letter
from messaging.envelope import Envelope, to_queue
from messaging.errors import NotConfirmed, PublishError, TransportError, UnencodableMessage
from messaging.ids import new_id
from messaging.sql.sessions import Sessions, in_transaction
from messaging.sql.tables import tables
from messaging.sql.writing import write_outgoing
from messaging.transport import DEAD_LETTER_DETAIL, DEAD_LETTER_REASON, Outgoing

_AT_ONCE: Final = 100
_MAX_CHARACTERS: Final = 255
_TEXTS: Final = ("message_id", "type", "correlation_id", "reply_to", "content_type", "app_id")


class SqlDeadLetters:
    """The table `message_dead_letter` behind a sessionmaker."""

    def __init__(self, sessions: Sessions, *, schema: str | None = None) -> None:
        self._sessions, self._schema = sessions, schema

    async def keep(self, queue: str, envelope: Envelope) -> None:
        """Write a dead letter, with the notes among its headers, in a transaction of its own.

        Raises:
            NotConfirmed: the database is away.
        """
        statement = insert(tables(self._schema).dead_letter).values(_values(queue, envelope))
        try:
            await in_transaction(self._sessions, lambda session: session.connection().execute(statement))
        except (SQLAlchemyError, OSError) as problem:
            why = f"its dead letter cannot be written: {problem}"
            raise NotConfirmed(envelope.message_id, f"queue {queue!r}", why) from problem

    @asynccontextmanager
    async def dead_letters(self, queue: str) -> AsyncGenerator[SqlLook]:
        """Look at the dead letters of a queue. One that never had any looks empty."""
        yield SqlLook(self._sessions, self._schema, queue)

    async def dead_letter_count(self, queue: str) -> int | None:
        """How many there are."""
        return (await self.queues()).get(queue, 0)

    async def queues(self) -> dict[str, int]:
        """How many there are, by queue."""
        rows = tables(self._schema).dead_letter
        statement = select(rows.c.queue, func.count().label("many")).group_by(rows.c.queue).order_by(rows.c.queue)
        return {row["queue"]: row["many"] for row in await _read(self._sessions, statement)}


class SqlLook:
    """The dead letters of one queue. What dies meanwhile comes last."""

    def __init__(self, sessions: Sessions, schema: str | None, queue: str) -> None:
        self._sessions, self._schema, self._queue = sessions, schema, queue
        self._rows = tables(schema).dead_letter
        self._began = datetime.now(UTC)
        self._after = ""
        self._read: deque[RowMapping] = deque()

    async def next(self) -> DeadLetter | None:
        """The next one, oldest first."""
        if not self._read:
            self._read.extend(await _read(self._sessions, self._page()))
        if not self._read:
            return None
        row = self._read.popleft()
        self._after = row["id"]
        return dead_letter(_envelope(row), self._queue, place=row["id"])

    async def replay(self, letter: DeadLetter) -> None:
        """Move the message into the outbox, unless somebody has taken the letter."""
        outgoing = Outgoing(letter.envelope, to_queue(self._queue))

        def work(session: Session) -> None:
            if self._take_out(session, letter):
                write_outgoing(session, [outgoing], schema=self._schema)

        try:
            await in_transaction(self._sessions, work)
        except UnencodableMessage as problem:
            raise PublishError(letter.id, str(outgoing.destination), str(problem)) from problem
        except (SQLAlchemyError, OSError) as problem:
            raise NotConfirmed(letter.id, str(outgoing.destination), str(problem)) from problem

    async def remove(self, letter: DeadLetter) -> None:
        """Delete the row."""
        try:
            await in_transaction(self._sessions, lambda session: self._take_out(session, letter))
        except (SQLAlchemyError, OSError) as problem:
            raise _away(problem) from problem

    def _take_out(self, session: Session, letter: DeadLetter) -> bool:
        gone = session.connection().execute(delete(self._rows).where(self._rows.c.id == letter.place))
        return gone.rowcount > 0

    def _page(self) -> Any:
        rows = self._rows
        meant = select(*rows.c).where(rows.c.queue == self._queue, rows.c.dead_at <= self._began)
        later = meant.where(rows.c.id > self._after) if self._after else meant
        return later.order_by(rows.c.id).limit(_AT_ONCE)


async def _read(sessions: Sessions, statement: Any) -> Sequence[RowMapping]:
    try:
        return await in_transaction(sessions, lambda session: session.connection().execute(statement).mappings().all())
    except (SQLAlchemyError, OSError) as problem:
        raise _away(problem) from problem


def _away(problem: Exception) -> TransportError:
    return TransportError(f"the dead letters in the database cannot be reached: {problem}.")


def _values(queue: str, envelope: Envelope) -> dict[str, Any]:
    headers = dict(envelope.headers)
    timestamp = envelope.timestamp
    return {
        "id": new_id(),
        "queue": queue,
        "reason": str(headers.pop(DEAD_LETTER_REASON, "")),
        "detail": str(headers.pop(DEAD_LETTER_DETAIL, "")),
        "dead_at": datetime.now(UTC),
        **{name: _storable(getattr(envelope, name)) for name in _TEXTS},
        "timestamp": timestamp if timestamp is not None and timestamp.tzinfo is not None else None,
        "headers": json.dumps(headers),  # in ASCII, so that whatever they hold can be stored
        "body": envelope.body,
    }


def _storable(text: str) -> str:
    """What every database takes, of a property that may be anything."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")[:_MAX_CHARACTERS]


def _envelope(row: RowMapping) -> Envelope:
    notes = {DEAD_LETTER_REASON: row["reason"], DEAD_LETTER_DETAIL: row["detail"]}
    envelope = Envelope(row["message_id"], bytes(row["body"]), timestamp=row["timestamp"])
    texts = {name: row[name] for name in _TEXTS}
    return replace(envelope, headers={**json.loads(row["headers"]), **notes}, **texts)
