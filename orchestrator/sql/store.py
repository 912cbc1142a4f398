"""Sagas in PostgreSQL or SQLite."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator.errors import ConcurrentUpdate
from orchestrator.memory import SystemClock
from orchestrator.signals import Decision
from orchestrator.sql.cold import Cold
from orchestrator.sql.connecting import ConnectionSettings, EngineLock, connect
from orchestrator.sql.faults import is_transient
from orchestrator.sql.hot import Hot
from orchestrator.sql.postgresql import PostgresHot
from orchestrator.sql.revisions import check_revisions
from orchestrator.sql.sqlite import SqliteHot
from orchestrator.sql.transaction import SqlTransaction
from orchestrator.sql.unlocked import Unlocked
from orchestrator.sql.writer import Writer
from orchestrator.store import Clock
from orchestrator.store_records import CommandRef, DueWork, Locked

_SET_TIMEOUTS: Final = ", ".join(f"set_config('{name}', :{name}, true)" for name in ConnectionSettings().timeouts())


class SqlStore:
    """Keeps sagas in a database. See `SagaStore` for the promises.

    Args:
        where: a URL, or an engine of one's own, which `close` leaves alone and whose connections
            (timeouts, SQLite's pragmas) are its owner's business.
        schema: the PostgreSQL schema of our tables, if not the connection's default one.
        clock: read instead of the database's clock (PostgreSQL) or this process' (SQLite).
        runs_engine: whether this process runs the engine; on SQLite one may. Processes that only start
            sagas, give signals or read say False.
    """

    def __init__(
        self,
        where: str | URL | AsyncEngine,
        *,
        schema: str | None = None,
        clock: Clock | None = None,
        settings: ConnectionSettings | None = None,
        runs_engine: bool = True,
    ) -> None:
        self.schema = schema
        self._settings = settings or ConnectionSettings()
        self._owned, self._runs_engine = not isinstance(where, AsyncEngine), runs_engine
        self.engine: AsyncEngine = (
            where if isinstance(where, AsyncEngine) else connect(where, self._settings, row_by_row=runs_engine)
        )
        self._sqlite = self.engine.dialect.name == "sqlite"
        if self._sqlite and schema is not None:
            raise ValueError(f"SQLite has no schemas; leave out schema={schema!r}")
        dialect = self.engine.dialect
        self._hot: Hot = SqliteHot(clock or SystemClock()) if self._sqlite else PostgresHot(dialect, schema, clock)
        self._cold = Cold(schema)
        self._lock = EngineLock(self._file()) if self._sqlite and runs_engine and self._file() else None
        self._writer = Writer(self.engine, keep=self._owned) if self._sqlite else None
        # SQLite has one writer: a transaction costs it nothing. Behind a pooler timeouts need a transaction. A pool of
        # one has no connection to keep.
        unlocked = not self._sqlite and not self._settings.external_pooler and self._settings.pool_size > 1
        trusted = self._settings.trusted_for.total_seconds()
        self._unlocked = Unlocked(self.engine, schema, clock, trusted=trusted) if unlocked else None

    def _file(self) -> str:
        database = self.engine.url.database or ""
        return "" if database == ":memory:" or "mode=memory" in database else database.removeprefix("file:")

    async def open(self) -> None:
        """Take the file's lock (SQLite), connect, and check the schema.

        Raises:
            SchemaMismatch: tables are missing or too old; the text says what to run.
            EngineAlreadyRunning: a SQLite file that another engine uses.
        """
        if self._lock is not None:
            self._lock.take()
        try:
            async with self.engine.connect() as connection:
                await connection.run_sync(check_revisions, schema=self.schema)
        except BaseException:
            await self.close()
            raise

    def transaction(self) -> AbstractAsyncContextManager[SqlTransaction]:
        """Begin a transaction; commits when the block ends, rolls back when it raises.

        On SQLite it is the only writer from its first moment on, so one must not begin inside another.
        """
        return self._postgres_transaction() if self._writer is None else self._sqlite_transaction(self._writer)

    @asynccontextmanager
    async def _postgres_transaction(self) -> AsyncGenerator[SqlTransaction]:
        async with self.engine.begin() as connection:
            if self._settings.external_pooler:
                await connection.execute(text(f"SELECT {_SET_TIMEOUTS}"), dict(self._settings.timeouts()))
            row_by_row = self._owned and self._runs_engine and not self._settings.external_pooler
            yield SqlTransaction(connection, self._hot, self._cold, self.schema, row_by_row=row_by_row)

    @asynccontextmanager
    async def _sqlite_transaction(self, writer: Writer) -> AsyncGenerator[SqlTransaction]:
        async with writer.transaction() as using:
            here = None if using.inside is None else using.inside.connection
            yield SqlTransaction(using.connection, self._hot, self._cold, self.schema, here=here)

    async def read_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked] | None:
        """One statement on PostgreSQL; None on SQLite, and behind a pooler."""
        return None if self._unlocked is None else await self._unlocked.read(command_ids)

    async def write(self, decisions: Sequence[Decision], now: datetime) -> bool:
        """One statement where `read_commands` reads; else a transaction that begins by writing."""
        if self._unlocked is not None:
            return await self._unlocked.write(decisions, now)
        try:
            async with self.transaction() as tx:
                await tx.write(decisions, now)
        except ConcurrentUpdate:
            return False
        return True

    async def due(self) -> DueWork:
        """One statement, which locks nothing."""
        if self._writer is not None:
            return await self._writer.read(self._hot.due)
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            return await connection.run_sync(self._hot.due)

    def is_transient(self, error: BaseException) -> bool:
        """By SQLSTATE and errno; a lost race is transient too."""
        return is_transient(error)

    async def close(self) -> None:
        """Let go of connections and of the file's lock. Idempotent."""
        if self._writer is not None:
            await self._writer.close()
        if self._unlocked is not None:
            await self._unlocked.close()
        if self._owned:
            await self.engine.dispose()
        if self._lock is not None:
            self._lock.release()
