"""A store inside the process, transactional as a database is: for tests, tutorials and simulations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

from messaging.transport import Outgoing
from orchestrator.errors import ConcurrentUpdate
from orchestrator.instance import SagaInstance
from orchestrator.memory.backlog import BacklogRows
from orchestrator.memory.events import EventRows
from orchestrator.memory.holds import HoldRows
from orchestrator.memory.locks import LockRows
from orchestrator.memory.purging import PurgeRows
from orchestrator.memory.sagas import SagaRows
from orchestrator.memory.sending import SendingRows
from orchestrator.memory.signals import SignalRows
from orchestrator.memory.tables import MemoryTables
from orchestrator.rising_ids import RisingIds
from orchestrator.signals import Decision
from orchestrator.store import Clock
from orchestrator.store_records import AuditEntry, CommandRef, DueWork, Locked, UnmatchedMessage

T = TypeVar("T")

_UNMATCHED_KEPT: Final = 10_000


class SystemClock:
    """This process' clock."""

    def now(self) -> datetime:
        """The current instant."""
        return datetime.now(UTC)


class MemoryTransaction(SagaRows, SendingRows, SignalRows, EventRows, LockRows, HoldRows, PurgeRows, BacklogRows):
    """One transaction: writes go to the tables at once, and are undone when it rolls back."""

    async def add_unmatched(self, messages: Sequence[UnmatchedMessage]) -> None:
        """Keep messages that fit no saga; bounded, the oldest go."""
        unmatched = self._tables.unmatched
        for message in messages:
            await self._put_arrived(unmatched, message)
        for oldest in sorted(unmatched)[: max(0, len(unmatched) - _UNMATCHED_KEPT)] if messages else ():
            self._remove(unmatched, oldest)
            self._remove(self._tables.arrived, oldest)

    async def add_outgoing(self, messages: Sequence[Outgoing]) -> None:
        """Keep messages for whoever relays them."""
        for message in messages:
            await self._put_arrived(self._tables.outgoing, message)

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Keep who asked for what, and what became of it."""
        for entry in entries:
            self._put(self._tables.audit, self._new_id(), entry)

    async def _put_arrived(self, table: dict[UUID, T], row: T) -> None:
        new = self._new_id()
        self._put(table, new, row)
        self._put(self._tables.arrived, new, await self.now())


class MemoryStore:
    """Keeps sagas in dictionaries. One transaction runs at a time, so nothing is ever locked by others.

    Closing keeps everything, so that `open` after `close` is a restart of everything but the process.

    Args:
        clock: what time it is.
        tables: what it keeps already.
    """

    def __init__(self, clock: Clock | None = None, tables: MemoryTables | None = None) -> None:
        self.tables: Final = MemoryTables() if tables is None else tables
        self._clock: Clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._new_id = RisingIds()

    async def open(self) -> None:
        """There is nothing to connect to."""

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """Begin a transaction; commits when the block ends, rolls back when it raises."""
        async with self._lock:
            transaction = self._begin()
            try:
                yield transaction
            except BaseException:
                transaction.roll_back()
                raise

    def _begin(self) -> MemoryTransaction:
        return MemoryTransaction(self.tables, self._clock, self._new_id)

    async def read_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        """Find attempts, and their sagas as they are now."""
        async with self._lock:
            return await self._begin().lock_commands(command_ids)

    async def write(self, decisions: Sequence[Decision], now: datetime) -> bool:
        """Write what was decided, unless one of the sagas was changed since it was read."""
        sagas = [decision.instance for decision in decisions]
        async with self.transaction() as tx:
            found = (await tx.lock([saga.id for saga in sagas])).sagas
            if any(_differs(found.get(decision.instance.id), decision) for decision in decisions):
                return False
            await tx.save(decisions)
        return True

    async def due(self) -> DueWork:
        """What the scans may find."""
        now, tables = self._clock.now(), self.tables
        unsent = (tables.sagas[saga_id].steps[key].send_after for saga_id, key in tables.unsent)
        return DueWork(
            any(wake_at <= now for wake_at in tables.wakes.values()),
            any(kept.pending for kept in tables.signals.values()),
            any(send_after is not None and send_after <= now for send_after in unsent),
        )

    def is_transient(self, error: BaseException) -> bool:
        """Nothing here gets better by itself but a lost race."""
        return isinstance(error, ConcurrentUpdate)

    async def close(self) -> None:
        """Keep everything."""

    def saga(self, saga_id: UUID) -> SagaInstance:
        """Return a saga as committed, with the bodies and replies of its records.

        Raises:
            KeyError: there is none.
        """
        tables = self.tables
        saga = tables.sagas[saga_id]
        return replace(
            saga,
            steps={
                key: replace(record, body=tables.bodies.get((saga_id, key)), reply=tables.replies.get((saga_id, key)))
                for key, record in saga.steps.items()
            },
        )


def _differs(stored: SagaInstance | None, decision: Decision) -> bool:
    """Whether a saga is not what a decision was made on."""
    if stored is None or stored.revision != decision.instance.revision:
        return True
    return decision.made_on is not None and decision.made_on != stored.updated_at
