"""Server-sent events: one saga, or the first page of a list, as it changes.

The database is looked at about twice a second for each stream; streams are bounded in number and in time, and a
client that is cut off comes back by itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from fastapi.encoders import jsonable_encoder
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import UnknownSaga
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
MEDIA_TYPE: Final = "text/event-stream"

Look: TypeAlias = Callable[[], Awaitable["Seen"]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stream saw at one look: the event it is told as, and whether it is the last."""

    event: str
    state: Any
    """Compared with the last look."""
    data: Any
    last: bool = False


class Streams:
    """Counts the open ones."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most, self._open = most, 0

    @contextmanager
    def one(self) -> Generator[None]:
        """Hold a place for a stream."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def refuse_more(self) -> None:
        """See to it that there is room.

        Raises:
            Problem: too many are open.
        """
        if self._open >= self._most:
            text = f"{self._most} streams are open here, which is all there may be. Try again, or ask now and then"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-streams", text, {"retry-after": "10"})


async def streamed(streams: Streams, look: Look) -> StreamingResponse:
    """Answer with a stream; what is wrong at the first look is still an error of HTTP.

    Raises:
        Problem: too many streams are open.
    """
    streams.refuse_more()
    first = await look()
    return StreamingResponse(_events(streams, look, first), media_type=MEDIA_TYPE)


async def _events(streams: Streams, look: Look, seen: Seen) -> AsyncGenerator[str]:
    with streams.one():
        ends = told = time.monotonic()
        ends += LONGEST_SECONDS
        yield _event(seen.event, seen.data)
        while not seen.last and time.monotonic() < ends:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            try:
                now = await look()
            except (SQLAlchemyError, OSError, UnknownSaga):
                return  # the client comes back, and is told what is wrong
            if now.state != seen.state:
                yield _event(now.event, now.data)
                told = time.monotonic()
            elif time.monotonic() - told > _SIGN_OF_LIFE_SECONDS:
                yield ": still here\n\n"
                told = time.monotonic()
            seen = now
        if seen.last:
            yield _event("end", {})


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(jsonable_encoder(data))}\n\n"


def look_at_saga(database: Database, saga_id: UUID) -> Look:
    """Looks at one saga, and is done when it has ended."""

    def read(connection: Connection) -> Seen:
        row = get_saga(connection, saga_id, schema=database.schema)
        if row is None:
            raise UnknownSaga(saga_id)
        return Seen("saga", _marks(connection, saga_id, database.schema), row, row.status.terminal)

    return lambda: database.read(read)


def _marks(connection: Connection, saga_id: UUID, schema: str | None) -> Sequence[Any]:
    """What rises whenever something of a saga changes."""
    saga, step = in_schema(saga_instance, schema).c, in_schema(saga_step, schema).c
    revision = connection.scalar(select(saga.revision).where(saga.id == saga_id))
    of_steps = select(func.max(step.updated_at), func.count(step.sent_at)).where(step.saga_id == saga_id)
    return [revision, *connection.execute(of_steps).one()]


def look_at_list(database: Database, which: SagaFilter, limit: int) -> Look:
    """Looks at the first page of a list."""

    def read(connection: Connection) -> Seen:
        rows: list[SagaRow] = list_sagas(connection, which, limit=limit, schema=database.schema)
        return Seen("sagas", [(row.saga_id, row.updated_at, row.status) for row in rows], rows)

    return lambda: database.read(read)
