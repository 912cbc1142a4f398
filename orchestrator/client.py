"""Start, read and steer sagas from any process that reaches the database: no broker, no engine needed.

`SagaClient` is for asyncio, `BlockingSagaClient` its twin for everything else; both do the same statements.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from messaging.current_trace import current_trace
from messaging.sql.writing import after_commit
from orchestrator import nudge
from orchestrator.definition import Saga
from orchestrator.errors import ActionRefused, SagaError, UnknownSaga
from orchestrator.instance import SagaStatus
from orchestrator.signal_codec import action_word, signal_to_row
from orchestrator.signals import (
    AbandonRequested,
    ActionRequested,
    CancelRequested,
    CompensateRequested,
    PauseRequested,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.sql import client_statements as statements
from orchestrator.sql.starting import start_saga
from orchestrator.start import new_instance
from orchestrator.status import SagaFilter, SagaRow, StatusReader, get_saga, list_sagas

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")

_FIRST_LOOK = 0.01
_SLOWEST_LOOK = 0.25
ANSWERED_WITHIN = timedelta(seconds=10)


class SagaNotEnded(SagaError, TimeoutError):
    """A saga that was waited for has not ended in time; it goes on all the same."""

    def __init__(self, row: SagaRow, timeout: timedelta) -> None:
        self.row = row
        waiting = f", waiting for {row.waiting_for}" if row.waiting_for else ""
        super().__init__(
            f"saga {row.saga_id} is still {row.status.value} after {timeout.total_seconds():g} s{waiting}. "
            f"Follow it with: saga watch {row.saga_id}"
        )


@dataclass(frozen=True, slots=True)
class StartedSaga:
    """What a start brought: `created` is False when a saga with this key was there already."""

    id: UUID
    created: bool


class SagaClient:
    """Sagas from asyncio.

    Args:
        engine: of the orchestrator's database; not closed by the client.
        schema: of its tables, if they have one of their own.
    """

    def __init__(self, engine: AsyncEngine, *, schema: str | None = None) -> None:
        self._engine, self._schema = engine, schema
        self._reader = StatusReader(engine, schema=schema)

    async def start(
        self,
        saga: type[Saga[S]],
        state: S,
        *,
        key: str | None = None,
        session: AsyncSession | AsyncConnection | None = None,
        trace: str = "",
    ) -> StartedSaga:
        """Start a saga, in the caller's transaction if a session on the orchestrator's database is given.

        Rolled back with it, nothing has happened; it begins once that has committed. Another start with
        the same key, now or later, returns the first saga's id and `created=False`.

        Args:
            saga: its class.
            state: what it starts with.
            key: unique among the sagas of this name.
            session: whose transaction it is part of.
            trace: W3C traceparent, and after a space tracestate; OpenTelemetry's current span if empty.

        Raises:
            StateUnusable: the state cannot be stored. Nothing was started.
        """
        trace = trace or current_trace()

        def work(connection: Connection) -> StartedSaga:
            return _start(connection, saga, state, key, trace, self._schema)

        if session is None:
            return await self._write(work)
        after_commit(session, nudge.nudge)
        connection = await session.connection() if isinstance(session, AsyncSession) else session
        return await connection.run_sync(work)

    async def get(self, saga_id: UUID) -> SagaRow:
        """Read one saga.

        Raises:
            UnknownSaga: none has this id.
        """
        row = await self._reader.get(saga_id)
        if row is None:
            raise UnknownSaga(saga_id)
        return row

    async def state(self, saga: type[Saga[S]], saga_id: UUID) -> S:
        """Read a saga's state as its author's model.

        Raises:
            UnknownSaga: none of this definition has this id.
        """
        async with self._engine.connect() as connection:
            text = await connection.run_sync(lambda c: statements.state_of(c, saga_id, saga.name, self._schema))
        return _parsed_state(saga, saga_id, text)

    async def wait(self, saga_id: UUID, *, timeout: timedelta) -> SagaRow:
        """Wait until a saga has ended or is blocked.

        Raises:
            UnknownSaga: none has this id.
            SagaNotEnded: it goes on; the error has its row.
        """
        ends, pause = time.monotonic() + timeout.total_seconds(), _FIRST_LOOK
        while True:
            row = await self.get(saga_id)
            if row.status.terminal or row.status is SagaStatus.BLOCKED:
                return row
            if time.monotonic() >= ends:
                raise SagaNotEnded(row, timeout)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

    def list(
        self, *, saga: type[Saga[Any]] | str | None = None, status: SagaStatus | None = None, key: str | None = None
    ) -> AsyncIterator[SagaRow]:
        """Read sagas, newest first, a page at a time."""
        return self._reader.list(_filter(saga, status, key))

    async def cancel(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga undone, and wait until an engine has begun to.

        Raises:
            UnknownSaga: none has this id.
            ActionRefused: its state does not allow it; the text says why.
            TimeoutError: no engine took the request within this time; it stays and will be taken.
        """
        await self._ask(saga_id, CancelRequested(reason, by), within)

    async def retry(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a blocked saga try again, and wait until an engine has begun to.

        Raises:
            UnknownSaga: none has this id.
            ActionRefused: it is not blocked, or elsewhere; the text says where.
            TimeoutError: no engine took the request within this time; it stays and will be taken.
        """
        await self._ask(saga_id, RetryRequested(reason, step, by), within)

    async def pause(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga stand still until it is resumed: nothing is sent, what arrives is kept, time does not count.

        Raises: as `cancel` does; refused when it is paused already.
        """
        await self._ask(saga_id, PauseRequested(reason, by), within)

    async def resume(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a paused saga go on, with what arrived meanwhile first.

        Raises: as `cancel` does; refused when it is not paused.
        """
        await self._ask(saga_id, ResumeRequested(reason, by), within)

    async def skip(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a blocked saga go on without the step it is blocked at, or without its undo.

        Raises: as `cancel` does; refused when it is not blocked, at another step, or by an error of its code.
        """
        await self._ask(saga_id, SkipRequested(reason, step, by), within)

    async def resolve(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Tell a blocked saga that the step it is blocked at, or its undo, was done by hand.

        Raises: as `cancel` does; refused when it is not blocked, at another step, or by an error of its code.
        """
        await self._ask(saga_id, ResolveRequested(reason, step, by), within)

    async def compensate(
        self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a saga turn back, blocked or not.

        Raises: as `cancel` does; refused when it does so already, or its pivot may have happened.
        """
        await self._ask(saga_id, CompensateRequested(reason, by), within)

    async def abandon(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Give a saga up as it stands: nothing of it is sent, awaited or undone any more.

        Raises: as `cancel` does; refused when it has ended.
        """
        await self._ask(saga_id, AbandonRequested(reason, by), within)

    async def _ask(self, saga_id: UUID, asked: ActionRequested, within: timedelta) -> None:
        signal_id = await self._write(lambda c: _ask(c, saga_id, asked, self._schema))
        ends, pause = time.monotonic() + within.total_seconds(), _FIRST_LOOK
        while True:
            async with self._engine.connect() as connection:
                refused = await connection.run_sync(lambda c: statements.answer_to(c, signal_id, self._schema))
            if _is_answered(saga_id, asked, refused):
                return
            if time.monotonic() >= ends:
                raise _not_taken(saga_id, asked, within)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            result = await connection.run_sync(work)
        nudge.nudge()
        return result


class BlockingSagaClient:
    """Sagas from threads, scripts, Django and Flask; each method as in `SagaClient`."""

    def __init__(self, engine: Engine, *, schema: str | None = None) -> None:
        self._engine, self._schema = engine, schema

    def start(
        self,
        saga: type[Saga[S]],
        state: S,
        *,
        key: str | None = None,
        session: Session | Connection | None = None,
        trace: str = "",
    ) -> StartedSaga:
        """Start a saga, in the caller's transaction if a session is given; see `SagaClient.start`."""
        trace = trace or current_trace()
        if session is None:
            return self._write(lambda c: _start(c, saga, state, key, trace, self._schema))
        after_commit(session, nudge.nudge)
        connection = session.connection() if isinstance(session, Session) else session
        return _start(connection, saga, state, key, trace, self._schema)

    def get(self, saga_id: UUID) -> SagaRow:
        """Read one saga; see `SagaClient.get`."""
        with self._engine.connect() as connection:
            row = get_saga(connection, saga_id, schema=self._schema)
        if row is None:
            raise UnknownSaga(saga_id)
        return row

    def state(self, saga: type[Saga[S]], saga_id: UUID) -> S:
        """Read a saga's state as its author's model; see `SagaClient.state`."""
        with self._engine.connect() as connection:
            return _parsed_state(saga, saga_id, statements.state_of(connection, saga_id, saga.name, self._schema))

    def wait(self, saga_id: UUID, *, timeout: timedelta) -> SagaRow:
        """Wait until a saga has ended or is blocked; see `SagaClient.wait`."""
        ends, pause = time.monotonic() + timeout.total_seconds(), _FIRST_LOOK
        while True:
            row = self.get(saga_id)
            if row.status.terminal or row.status is SagaStatus.BLOCKED:
                return row
            if time.monotonic() >= ends:
                raise SagaNotEnded(row, timeout)
            time.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

    def list(
        self, *, saga: type[Saga[Any]] | str | None = None, status: SagaStatus | None = None, key: str | None = None
    ) -> Iterator[SagaRow]:
        """Read sagas, newest first; see `SagaClient.list`."""
        after: UUID | None = None
        while True:
            with self._engine.connect() as connection:
                page = list_sagas(connection, _filter(saga, status, key), after=after, schema=self._schema)
            if not page:
                return
            yield from page
            after = page[-1].saga_id

    def cancel(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga undone; see `SagaClient.cancel`."""
        self._ask(saga_id, CancelRequested(reason, by), within)

    def retry(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a blocked saga try again; see `SagaClient.retry`."""
        self._ask(saga_id, RetryRequested(reason, step, by), within)

    def pause(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga stand still; see `SagaClient.pause`."""
        self._ask(saga_id, PauseRequested(reason, by), within)

    def resume(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a paused saga go on; see `SagaClient.resume`."""
        self._ask(saga_id, ResumeRequested(reason, by), within)

    def skip(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Go on without the blocked step; see `SagaClient.skip`."""
        self._ask(saga_id, SkipRequested(reason, step, by), within)

    def resolve(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Mark the blocked step as done by hand; see `SagaClient.resolve`."""
        self._ask(saga_id, ResolveRequested(reason, step, by), within)

    def compensate(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga turn back; see `SagaClient.compensate`."""
        self._ask(saga_id, CompensateRequested(reason, by), within)

    def abandon(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Give a saga up as it stands; see `SagaClient.abandon`."""
        self._ask(saga_id, AbandonRequested(reason, by), within)

    def _ask(self, saga_id: UUID, asked: ActionRequested, within: timedelta) -> None:
        signal_id = self._write(lambda c: _ask(c, saga_id, asked, self._schema))
        ends, pause = time.monotonic() + within.total_seconds(), _FIRST_LOOK
        while True:
            with self._engine.connect() as connection:
                refused = statements.answer_to(connection, signal_id, self._schema)
            if _is_answered(saga_id, asked, refused):
                return
            if time.monotonic() >= ends:
                raise _not_taken(saga_id, asked, within)
            time.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            result = work(connection)
        nudge.nudge()
        return result


def _start(
    connection: Connection, saga: type[Saga[S]], state: S, key: str | None, trace: str, schema: str | None
) -> StartedSaga:
    instance = new_instance(saga, state, key, trace, datetime.now(UTC))
    saga_id, created = start_saga(connection, instance, reuse_key_after_end=saga.reuse_key_after_end, schema=schema)
    return StartedSaga(saga_id, created)


def _ask(connection: Connection, saga_id: UUID, asked: ActionRequested, schema: str | None) -> UUID:
    row = signal_to_row(asked)
    assert row is not None
    signal_id = statements.ask(connection, saga_id, *row, schema)
    if signal_id is None:
        raise UnknownSaga(saga_id)
    return signal_id


def _is_answered(saga_id: UUID, asked: ActionRequested, refused: str | None) -> bool:
    if refused:
        raise ActionRefused(saga_id, action_word(asked), refused)
    return refused is not None


def _not_taken(saga_id: UUID, asked: ActionRequested, within: timedelta) -> TimeoutError:
    return TimeoutError(
        f"no engine took the {action_word(asked)} of saga {saga_id} within {within.total_seconds():g} s. It is kept "
        "and will be taken by the next engine that knows the saga; is one running? See: saga doctor"
    )


def _parsed_state(saga: type[Saga[S]], saga_id: UUID, text: str | None) -> S:
    if text is None:
        raise UnknownSaga(saga_id)
    state: Any = saga.state_type.model_validate_json(text)
    return state  # type: ignore[no-any-return]


def _filter(saga: type[Saga[Any]] | str | None, status: SagaStatus | None, key: str | None) -> SagaFilter:
    name = saga if isinstance(saga, str) or saga is None else saga.name
    return SagaFilter(saga=name, status=status, key=key)
