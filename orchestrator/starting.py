"""Starting sagas, one or many, in a transaction of one's own or the caller's.

The twins below are the part of `SagaClient` and `BlockingSagaClient` that is about this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session, scoped_session

from messaging.current_trace import current_trace
from messaging.sql.sessions import CoroutineSession
from messaging.sql.writing import after_commit
from orchestrator import nudge
from orchestrator.asking import AsksSagas, AsksSagasBlocking
from orchestrator.definition import Saga
from orchestrator.sql.starting_many import start_sagas
from orchestrator.start import new_instance

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class StartedSaga:
    """What a start brought: `created` is False when a saga with this key was there already."""

    id: UUID
    created: bool


class StartsSagas(AsksSagas):
    """Start from asyncio."""

    async def start(
        self,
        saga: type[Saga[S]],
        state: S,
        *,
        key: str | None = None,
        session: CoroutineSession | None = None,
        trace: str = "",
    ) -> StartedSaga:
        """Start a saga, in the caller's transaction if a session on the orchestrator's database is given.

        Rolled back with it, nothing has happened; it begins once that has committed. Another start with
        the same key, now or later, returns the first saga's id and `created=False`, also when that one was purged.

        Args:
            saga: its class.
            state: what it starts with.
            key: unique among the sagas of this name.
            session: whose transaction it is part of.
            trace: W3C traceparent, and after a space tracestate; OpenTelemetry's current span if empty.

        Raises:
            StateUnusable: the state cannot be stored. Nothing was started.
        """
        (started,) = await self.start_many(saga, [(key, state)], session=session, trace=trace)
        return started

    async def start_many(
        self,
        saga: type[Saga[S]],
        starts: Sequence[tuple[str | None, S]],
        *,
        session: CoroutineSession | None = None,
        trace: str = "",
    ) -> list[StartedSaga]:
        """Start sagas of one definition, all of them or, if one cannot be, none; see `start`.

        A few statements start any number of them, in one transaction: some hundreds at a time keep it short, and
        let the first ones begin while others are started.

        Args:
            saga: their class.
            starts: the key (or None) and the state of each; with one key twice, the first of them starts.
            session: whose transaction it is part of.
            trace: of all of them, as for `start`.

        Returns:
            What each start brought, in the same order.

        Raises:
            StateUnusable: one of the states or keys cannot be stored. Nothing was started.
        """
        trace = trace or current_trace()
        if session is None:
            return await self._write(lambda c: _started(c, saga, starts, trace, self._schema))
        after_commit(session, nudge.nudge)
        connection = session if isinstance(session, AsyncConnection) else await session.connection()
        return await connection.run_sync(_started, saga, starts, trace, self._schema)


class StartsSagasBlocking(AsksSagasBlocking):
    """Start from threads; each method as in `StartsSagas`."""

    def start(
        self,
        saga: type[Saga[S]],
        state: S,
        *,
        key: str | None = None,
        session: Session | scoped_session[Any] | Connection | None = None,
        trace: str = "",
    ) -> StartedSaga:
        """Start a saga, in the caller's transaction if a session is given; see `SagaClient.start`."""
        (started,) = self.start_many(saga, [(key, state)], session=session, trace=trace)
        return started

    def start_many(
        self,
        saga: type[Saga[S]],
        starts: Sequence[tuple[str | None, S]],
        *,
        session: Session | scoped_session[Any] | Connection | None = None,
        trace: str = "",
    ) -> list[StartedSaga]:
        """Start sagas of one definition, all or none; see `SagaClient.start_many`."""
        trace = trace or current_trace()
        if session is None:
            return self._write(lambda c: _started(c, saga, starts, trace, self._schema))
        after_commit(session, nudge.nudge)
        connection = session if isinstance(session, Connection) else session.connection()
        return _started(connection, saga, starts, trace, self._schema)


def _started(
    connection: Connection,
    saga: type[Saga[S]],
    starts: Sequence[tuple[str | None, S]],
    trace: str,
    schema: str | None,
) -> list[StartedSaga]:
    now = datetime.now(UTC)
    sagas = [new_instance(saga, state, key, trace, now) for key, state in starts]
    started = start_sagas(connection, sagas, reuse_key_after_end=saga.reuse_key_after_end, schema=schema)
    return [StartedSaga(saga_id, created) for saga_id, created in started]
