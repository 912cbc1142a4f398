"""Start, read and steer sagas from any process that reaches the database: no broker, no engine needed.

`SagaClient` is for asyncio, `BlockingSagaClient` its twin for everything else; both do the same statements.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator import nudge
from orchestrator.asking_holds import HoldsDefinitions, HoldsDefinitionsBlocking
from orchestrator.asking_upgrades import AsksUpgrades, AsksUpgradesBlocking
from orchestrator.bulk import Looks
from orchestrator.definition import Saga
from orchestrator.erasing import ErasesSagas, ErasesSagasBlocking
from orchestrator.errors import SagaErased, SagaError
from orchestrator.instance import SagaStatus
from orchestrator.searchable import SearchValue, asked
from orchestrator.sql import client_statements as statements
from orchestrator.sql.erasing import ERASED
from orchestrator.starting import StartsSagas, StartsSagasBlocking
from orchestrator.status import SagaFilter, SagaRow, StatusReader, get_saga, list_sagas, missing

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")


class SagaNotEnded(SagaError, TimeoutError):
    """A saga that was waited for has not ended in time; it goes on all the same."""

    def __init__(self, row: SagaRow, timeout: timedelta) -> None:
        self.row = row
        waiting = f", waiting for {row.waiting_for}" if row.waiting_for else ""
        super().__init__(
            f"saga {row.saga_id} is still {row.status.value} after {timeout.total_seconds():g} s{waiting}. "
            f"Follow it with: saga watch {row.saga_id}"
        )


class SagaClient(StartsSagas, AsksUpgrades, ErasesSagas, HoldsDefinitions):
    """Sagas from asyncio.

    Args:
        engine: of the orchestrator's database; not closed by the client.
        schema: of its tables, if they have one of their own.
    """

    def __init__(self, engine: AsyncEngine, *, schema: str | None = None) -> None:
        self._engine, self._schema = engine, schema
        self._reader = StatusReader(engine, schema=schema)

    async def get(self, saga_id: UUID) -> SagaRow:
        """Read one saga.

        Raises:
            SagaPurged: it had a key, has ended and was deleted; the error has the status that it ended in.
            UnknownSaga: none has this id.
        """
        row = await self._reader.get(saga_id)
        if row is None:
            raise await self._reader.missing(saga_id)
        return row

    async def state(self, saga: type[Saga[S]], saga_id: UUID) -> S:
        """Read a saga's state as its author's model.

        Raises:
            SagaPurged: as `get` does.
            SagaErased: there is none any more.
            UnknownSaga: none of this definition has this id.
        """
        return await self._read(lambda c: _state(c, saga, saga_id, self._schema))

    async def wait(self, saga_id: UUID, *, timeout: timedelta) -> SagaRow:
        """Wait until a saga has ended or is blocked.

        Raises:
            UnknownSaga: none has this id, see `get`.
            SagaNotEnded: it goes on; the error has its row.
        """
        ends, looks = time.monotonic() + timeout.total_seconds(), Looks()
        while True:
            row = await self.get(saga_id)
            if row.status.terminal or row.status is SagaStatus.BLOCKED:
                return row
            if time.monotonic() >= ends:
                raise SagaNotEnded(row, timeout)
            await asyncio.sleep(looks.pause(came=False))

    def list(
        self,
        *,
        saga: type[Saga[Any]] | str | None = None,
        status: SagaStatus | None = None,
        key: str | None = None,
        where: Mapping[str, SearchValue] | None = None,
    ) -> AsyncIterator[SagaRow]:
        """Read sagas, newest first, a page at a time.

        Args:
            saga: only of this class, or name.
            status: only in this one.
            key: only with this business key.
            where: only with these values in their state, `{"customer": "c-17"}`. Fields marked as `Searchable` are
                found by an index; for others, such as `address.city`, the states of all sagas are read.

        Raises:
            SearchRefused: `where` has what no state can have; raised by the call itself.
        """
        return self._reader.list(_filter(saga, status, key, where))

    async def _read(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            result = await connection.run_sync(work)
        nudge.nudge()
        return result


class BlockingSagaClient(StartsSagasBlocking, AsksUpgradesBlocking, ErasesSagasBlocking, HoldsDefinitionsBlocking):
    """Sagas from threads, scripts, Django and Flask; each method as in `SagaClient`."""

    def __init__(self, engine: Engine, *, schema: str | None = None) -> None:
        self._engine, self._schema = engine, schema

    def get(self, saga_id: UUID) -> SagaRow:
        """Read one saga; see `SagaClient.get`."""
        row = self._read(lambda c: get_saga(c, saga_id, schema=self._schema))
        if row is None:
            raise self._read(lambda c: missing(c, saga_id, schema=self._schema))
        return row

    def state(self, saga: type[Saga[S]], saga_id: UUID) -> S:
        """Read a saga's state as its author's model; see `SagaClient.state`."""
        return self._read(lambda c: _state(c, saga, saga_id, self._schema))

    def wait(self, saga_id: UUID, *, timeout: timedelta) -> SagaRow:
        """Wait until a saga has ended or is blocked; see `SagaClient.wait`."""
        ends, looks = time.monotonic() + timeout.total_seconds(), Looks()
        while True:
            row = self.get(saga_id)
            if row.status.terminal or row.status is SagaStatus.BLOCKED:
                return row
            if time.monotonic() >= ends:
                raise SagaNotEnded(row, timeout)
            time.sleep(looks.pause(came=False))

    def list(
        self,
        *,
        saga: type[Saga[Any]] | str | None = None,
        status: SagaStatus | None = None,
        key: str | None = None,
        where: Mapping[str, SearchValue] | None = None,
    ) -> Iterator[SagaRow]:
        """Read sagas, newest first; see `SagaClient.list`."""
        return self._pages(_filter(saga, status, key, where))

    def _pages(self, which: SagaFilter) -> Iterator[SagaRow]:
        after: UUID | None = None
        while True:
            with self._engine.connect() as connection:
                page = list_sagas(connection, which, after=after, schema=self._schema)
            if not page:
                return
            yield from page
            after = page[-1].saga_id

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            result = work(connection)
        nudge.nudge()
        return result


def _state(connection: Connection, saga: type[Saga[S]], saga_id: UUID, schema: str | None) -> S:
    text = statements.state_of(connection, saga_id, saga.name, schema)
    if text is None:
        raise missing(connection, saga_id, schema=schema)
    if text == ERASED:
        raise SagaErased(saga_id)
    state: Any = saga.state_type.model_validate_json(text)
    return state  # type: ignore[no-any-return]


def _filter(
    saga: type[Saga[Any]] | str | None,
    status: SagaStatus | None,
    key: str | None,
    where: Mapping[str, SearchValue] | None,
) -> SagaFilter:
    name = saga if isinstance(saga, str) or saga is None else saga.name
    return SagaFilter(saga=name, status=status, key=key, where=asked(where or {}))
