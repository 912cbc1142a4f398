"""The sagas' database as the rooms here use it: a function on a connection, in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator import nudge

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Database:
    """An engine on it, and the schema of its tables."""

    engine: AsyncEngine
    schema: str | None = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run it, and commit nothing."""
        async with self.engine.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run it and commit; then an engine in this process is told."""
        async with self.engine.begin() as connection:
            result = await connection.run_sync(work)
        nudge.nudge()
        return result
