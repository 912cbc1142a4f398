"""The one writer of a SQLite file: one transaction after the other, its statements run in the loop's own thread.

A transaction that is the only writer waits for nobody, so a statement takes microseconds; handing it to a
thread and back, which the driver does four times a statement, takes far longer. What may wait is left to
the driver's thread: for another process' transaction to end, and for the disk to have what is committed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiosqlite
from sqlalchemy import Connection, StaticPool, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inside:
    """A connection of the driver's, used in this thread while the driver's own has nothing to do."""

    raw: sqlite3.Connection
    connection: Connection
    busy_milliseconds: int
    """How long the driver's thread waits for others' transactions."""

    def begun(self) -> bool:
        """Begin as the only writer, if nobody else is one."""
        self.raw.execute("PRAGMA busy_timeout = 0")
        try:
            self.raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        finally:
            self.raw.execute(f"PRAGMA busy_timeout = {self.busy_milliseconds}")
        return True


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that a transaction has for itself."""

    connection: AsyncConnection
    """For statements that may take long: they run in the driver's thread."""
    driver: aiosqlite.Connection
    inside: Inside | None
    """None where the driver's connection can be used in its own thread alone."""


class Writer:
    """Runs the transactions of one process, in order, where they would poll the file's lock otherwise.

    Args:
        engine: opens connections.
        keep: whether one connection is kept for all transactions; else each gets its own from the pool.
    """

    def __init__(self, engine: AsyncEngine, *, keep: bool) -> None:
        self._engine, self._keep = engine, keep
        self._kept: Connected | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connected]:
        """Begin as the only writer; commit when the block ends, roll back when it raises."""
        async with self._turn:
            using, self._kept = self._kept or await self._connected(), None
            try:
                # A deferred transaction that reads and then writes fails when another wrote in between.
                if using.inside is None or not using.inside.begun():
                    await using.driver.execute("BEGIN IMMEDIATE")
                yield using
                await using.driver.commit()
            except BaseException:
                await asyncio.shield(_rolled_back(using))
                raise
            await self._put_back(using)

    async def read(self, call: Callable[[Connection], T]) -> T:
        """Read outside of a transaction, between two of them."""
        async with self._turn:
            using, self._kept = self._kept or await self._connected(), None
            try:
                if using.inside is not None:
                    return call(using.inside.connection)
                return await using.connection.run_sync(call)
            finally:
                await self._put_back(using)

    async def close(self) -> None:
        """Let go of the connection that is kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.connection.close()

    async def _put_back(self, using: Connected) -> None:
        if self._keep:
            self._kept = using
        else:
            await using.connection.close()

    async def _connected(self) -> Connected:
        connection = await self._engine.connect()
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            # Sessions that join it must know that they are in a transaction, and commit no more than a savepoint.
            await connection.begin()
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, aiosqlite.Connection)
            return Connected(connection, driver, _inside(driver) if self._keep else None)
        except BaseException:
            await connection.close()
            raise


def _inside(driver: aiosqlite.Connection) -> Inside | None:
    raw: object = getattr(driver, "_conn", None)  # the driver has no public word for it
    if not isinstance(raw, sqlite3.Connection):
        return None
    try:
        (busy,) = raw.execute("PRAGMA busy_timeout").fetchone()
    except sqlite3.ProgrammingError:
        return None  # made for one thread alone, as those in memory are
    engine = create_engine(
        "sqlite://",
        creator=lambda: raw,
        poolclass=StaticPool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",  # transactions are begun and ended by the driver
        hide_parameters=True,
    )
    return Inside(raw, engine.connect(), int(busy))


async def _rolled_back(using: Connected) -> None:
    """Roll back in the driver, harmless when the database has done so already, and give the connection back."""
    try:
        await using.driver.rollback()
    finally:
        await using.connection.close()
