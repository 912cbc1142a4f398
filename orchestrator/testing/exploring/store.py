"""The store of an exploration: that in memory, with what functions of local steps write, and ids that are counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from messaging import failpoints
from orchestrator.memory import MemoryStore, MemoryTransaction
from orchestrator.rising_ids import RisingIds
from orchestrator.testing.exploring.functions import Running, StandIn
from orchestrator.testing.exploring.world import World

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

WRITTEN: Final = "store.written"
"""A failpoint of our own: all is written, and not committed."""
COMMITTED: Final = "store.committed"
"""Another: a transaction has just committed."""


class ExploredStore(MemoryStore):
    """Counts what was committed, and what the functions of local steps have written."""

    def __init__(self, world: World) -> None:
        super().__init__(_Standing(world.now), world.tables.copied())
        self._new_id = self.ids = CountedIds(world.ids)
        self.commits = 0
        self.written = dict(world.written)
        self.running: Running | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """As in memory, with places where the process may be killed."""
        async with super().transaction() as tx:
            yield tx
            failpoints.reached(WRITTEN)
        self.commits += 1
        failpoints.reached(COMMITTED)

    def _begin(self) -> MemoryTransaction:
        return _Writing(self, self.tables, self._clock, self._new_id)


class _Writing(MemoryTransaction):
    """A transaction that knows what the function of a local step does in it: once more, or once less."""

    def __init__(self, store: ExploredStore, *rest: Any) -> None:
        super().__init__(*rest)
        self._store = store

    @asynccontextmanager
    async def session(self, *, timeout: timedelta) -> AsyncGenerator[AsyncSession]:
        """One that stands in; the time it takes is none."""
        running, written = self._store.running, self._store.written
        assert running is not None
        yield cast("AsyncSession", StandIn(running))
        if running.ends.error is not None:
            raise running.ends.error
        label = running.place.label
        self._put(written, label, written.get(label, 0) + (-1 if running.undo else 1))


class CountedIds(RisingIds):
    """Ids that rise from one process to the next, however fast they follow each other: the same each time."""

    def __init__(self, given_out: int) -> None:
        super().__init__()
        self.given_out = given_out

    def __call__(self) -> UUID:
        """Make the next id."""
        self.given_out += 1
        return UUID(int=self.given_out)


class _Standing:
    """Time stands still while the engine works."""

    def __init__(self, instant: datetime) -> None:
        self._instant = instant

    def now(self) -> datetime:
        return self._instant
