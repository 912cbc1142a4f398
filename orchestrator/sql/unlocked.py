"""Sagas read and written on PostgreSQL without a transaction around it: two statements, each whole by itself."""

# ruff: noqa: S608 - what is pasted into statements are names of this package; values are parameters

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchestrator.instance import SagaInstance
from orchestrator.roster import wanted
from orchestrator.signals import Decision
from orchestrator.sql.arrays import listed
from orchestrator.sql.hot import named
from orchestrator.sql.postgresql import FOUND, REF_COLUMNS
from orchestrator.sql.rows import INSTANCE_COLUMNS, STEP_COLUMNS, RowValues, key_of, sagas_of
from orchestrator.sql.statements import Statement
from orchestrator.sql.writes import Writes
from orchestrator.store import Clock
from orchestrator.store_records import CommandRef, Locked

P = ParamSpec("P")
T = TypeVar("T")


class Unlocked:
    """Reads sagas and writes what was decided on them, each in one statement that commits by itself.

    Its connection is kept between statements, since a pool takes longer than either of them to give one.

    Args:
        trusted: seconds after its last use in which the connection is used again without being asked whether it lives.
    """

    def __init__(self, engine: AsyncEngine, schema: str | None, clock: Clock | None, *, trusted: float) -> None:
        self._engine, self._clock, self._trusted = engine, clock, trusted
        self._read = Statement(named(schema, _READ), engine.dialect)
        self._writes = Writes(engine.dialect, schema)
        self._connection: AsyncConnection | None = None
        self._used_at = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def read(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked] | None:
        """Attempts, and their sagas but those that stand in a `ForEach`: its items are not read with them.

        None: no attempt was found.
        """
        rows = await self._run(self._read.rows, {"ids": list(command_ids)})
        instances = [row for row in rows if row[0] is not None]
        steps = [row[_STEP:] for row in rows if row[0] is None]
        refs = {row[_REF]: _ref(row[1], row[_REF:_STEP]) for row in instances}
        sagas = sagas_of([row[1:_REF] for row in instances], steps)
        found = {saga.id: saga for saga in sagas.values() if not _stands_in_items(saga)}
        if not instances:
            return None
        return refs, Locked(self._clock.now() if self._clock else max(row[0] for row in instances), found)

    async def write(self, decisions: Sequence[Decision], now: datetime) -> bool:
        """See `SagaStore.write`."""
        return await self._run(self._writes.write, decisions, now)

    async def close(self) -> None:
        """Give the connection back. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError, OSError):
                await connection.close()

    async def _run(self, call: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._one_at_a_time:
            connection = await self._at_hand()
            try:
                result = await connection.run_sync(call, *args, **kwargs)
            except BaseException:
                await self._drop()  # whatever it was, the next statement gets another one
                raise
            self._used_at = time.monotonic()
            return result

    async def _at_hand(self) -> AsyncConnection:
        if self._connection is not None and time.monotonic() - self._used_at > self._trusted:
            try:
                await self._connection.run_sync(_ask)
            except self._engine.dialect.loaded_dbapi.Error:
                await self._drop()
        if self._connection is None:
            connection = await self._engine.connect()
            self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        return self._connection

    async def _drop(self) -> None:
        if self._connection is not None:
            with suppress(DBAPIError, OSError):
                await self._connection.invalidate()
        await self.close()


def _ask(connection: Connection) -> None:
    """Whether it lives, by the driver's own question."""
    connection.dialect.do_ping(cast("Any", connection.connection.dbapi_connection))


def _ref(saga_id: UUID, row: RowValues) -> CommandRef:
    _, step, direction, branch, round_, attempt = row
    return CommandRef(saga_id, key_of(step, direction, branch), round_, attempt)


def _stands_in_items(saga: SagaInstance) -> bool:
    return bool(wanted(saga.steps.values()))


def _nothing(columns: Sequence[str]) -> str:
    return ", ".join(["NULL"] * len(columns))


_REF: Final = 1 + len(INSTANCE_COLUMNS)
_STEP: Final = _REF + len(REF_COLUMNS)
# Instances and records in one statement, so that both are of one instant: of two kinds of rows, each has the columns of
# the other as well, which are empty. The instant is taken after the statement has begun, and tells instances.
_READ: Final = (
    f"WITH found AS ({FOUND}) "
    f"SELECT clock_timestamp(), {listed(INSTANCE_COLUMNS, 'i.')}, {listed(REF_COLUMNS, 'f.')}, "
    f"{_nothing(STEP_COLUMNS)} "
    "FROM found f JOIN {saga_instance} i ON i.id = f.saga_id "
    f"UNION ALL SELECT NULL, {_nothing(INSTANCE_COLUMNS)}, {_nothing(REF_COLUMNS)}, {listed(STEP_COLUMNS, 's.')} "
    "FROM {saga_step} s WHERE s.saga_id = ANY(ARRAY(SELECT saga_id FROM found)) AND s.branch = ''"
)
