"""Server-sent events: one saga, or the first page of a list, as it changes.

The database is looked at about twice a second for each stream; streams are bounded in number and in time, and a
client that is cut off comes back by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from fastapi.encoders import jsonable_encoder
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import UnknownSaga
from orchestrator.instance import SagaStatus
from orchestrator.sql.tables import in_schema, saga_instance, saga_step
from orchestrator.status import SagaFilter, SagaRow, get_saga, list_sagas
from orchestrator.web.problems import Problem

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from orchestrator.web.database import Database

LOOK_EVERY_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 600.0
MOST_STREAMS: Final = 100
_SIGN_OF_LIFE_SECONDS: Final = 15.0
_SIGN_OF_LIFE: Final = ": still here\n\n"
MEDIA_TYPE: Final = "text/event-stream"

Look: TypeAlias = Callable[[], Awaitable["Seen"]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stream saw at one look: the event it is told as, and whether it is the last."""

    event: str
    mark: str
    """Another one after each change; the event's id, by which a client that comes back says what it has seen."""
    data: Any
    last: bool = False


class Streams:
    """Counts the open ones."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most, self._open, self._closed = most, 0, asyncio.Event()

    @contextmanager
    def one(self) -> Generator[None]:
        """Hold a place for a stream."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def close(self) -> None:
        """Have all of them end, so that whoever serves them can."""
        self._closed.set()

    async def pause(self, seconds: float) -> bool:
        """Wait so long, or until they are to end; whether they are."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return self._closed.is_set()

    def refuse_more(self) -> None:
        """See to it that there is room.

        Raises:
            Problem: too many are open.
        """
        if self._open >= self._most:
            text = f"{self._most} streams are open here, which is all there may be. Try again, or ask now and then"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-streams", text, {"retry-after": "10"})


async def streamed(streams: Streams, look: Look, known: str = "") -> StreamingResponse:
    """Answer with a stream; what is wrong at the first look is still an error of HTTP.

    Args:
        streams: counts it.
        look: at what.
        known: the mark of what the client has seen; only what differs from that is told.

    Raises:
        Problem: too many streams are open.
    """
    streams.refuse_more()
    first = await look()
    return StreamingResponse(_events(streams, look, first, known), media_type=MEDIA_TYPE)


async def _events(streams: Streams, look: Look, seen: Seen, known: str) -> AsyncGenerator[str]:
    with streams.one():
        ends = told = time.monotonic()
        ends += LONGEST_SECONDS
        yield _event(seen) if seen.mark != known else _SIGN_OF_LIFE
        while not seen.last and time.monotonic() < ends:
            if await streams.pause(LOOK_EVERY_SECONDS):
                return
            try:
                now = await look()
            except (SQLAlchemyError, OSError, UnknownSaga):
                return  # the client comes back, and is told what is wrong
            if now.mark != seen.mark:
                yield _event(now)
                told = time.monotonic()
            elif time.monotonic() - told > _SIGN_OF_LIFE_SECONDS:
                yield _SIGN_OF_LIFE
                told = time.monotonic()
            seen = now
        if seen.last:
            yield "event: end\ndata: {}\n\n"


def _event(seen: Seen) -> str:
    return f"event: {seen.event}\nid: {seen.mark}\ndata: {json.dumps(jsonable_encoder(seen.data))}\n\n"


def look_at_saga(database: Database, saga_id: UUID) -> Look:
    """Looks at one saga, and is done when it has ended."""

    def read(connection: Connection) -> Seen:
        # The mark tells whether it has ended, not the row: what is read after it may be newer, and is told again then.
        mark, ended = mark_of_saga(connection, saga_id, database.schema)
        row = get_saga(connection, saga_id, schema=database.schema)
        if row is None:
            raise UnknownSaga(saga_id)
        return Seen("saga", mark, row, ended)

    return lambda: database.read(read)


def mark_of_saga(connection: Connection, saga_id: UUID, schema: str | None) -> tuple[str, bool]:
    """Another text after each change of a saga, and whether it had ended by then."""
    saga, step = in_schema(saga_instance, schema).c, in_schema(saga_step, schema).c
    found = connection.execute(select(saga.revision, saga.status).where(saga.id == saga_id)).one_or_none()
    of_steps = select(func.max(step.updated_at), func.count(step.sent_at)).where(step.saga_id == saga_id)
    mark = _mark([found and found.revision, *connection.execute(of_steps).one()])
    return mark, found is not None and SagaStatus(found.status).terminal


def look_at_list(database: Database, which: SagaFilter, limit: int) -> Look:
    """Looks at the first page of a list."""

    def read(connection: Connection) -> Seen:
        rows: list[SagaRow] = list_sagas(connection, which, limit=limit, schema=database.schema)
        return Seen("sagas", mark_of_list(rows), rows)

    return lambda: database.read(read)


def mark_of_list(rows: Sequence[SagaRow]) -> str:
    """Another text after each change of a list."""
    return _mark([(row.saga_id, row.updated_at, row.status) for row in rows])


def _mark(state: object) -> str:
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
