"""One transaction of a `SqlStore`: the store's contract on the statements of `hot.py` and `cold.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from messaging.sql.writing import write_outgoing
from messaging.transport import Outgoing
from orchestrator.backlog import Backlog, OldSagas, Outcomes, UnsentCommands
from orchestrator.errors import ConcurrentUpdate
from orchestrator.granting import LockRow
from orchestrator.holds import Hold
from orchestrator.instance import Pin, SagaInstance, SagaStatus
from orchestrator.retention import EndedTree, EndedTrees, Place, Rest
from orchestrator.signals import Decision, LockChange
from orchestrator.sql import backlog, holds, purging, versions
from orchestrator.sql.cold import Cold
from orchestrator.sql.hot import Hot
from orchestrator.sql.items import write_items
from orchestrator.sql.locks import change_locks, contended_locks, held_locks, settle_locks
from orchestrator.sql.planning import ROW_BY_ROW
from orchestrator.sql.search import write_search
from orchestrator.sql.starting import start_saga
from orchestrator.sql.states import write_states
from orchestrator.store_records import (
    AuditEntry,
    CommandRef,
    EventMatch,
    HeldLock,
    Locked,
    NewSignal,
    ReceivedEvent,
    SagaCommand,
    StartingEvent,
    StoredSignal,
    UnmatchedMessage,
    UnreadEvent,
)
from orchestrator.workers import Worker

P = ParamSpec("P")
T = TypeVar("T")


class SqlTransaction:
    """See `StoreTransaction`, where the promises are.

    Args:
        here: the same connection for use in this thread, where its statements wait for nobody.
        row_by_row: whether the connection was made with `ROW_BY_ROW`.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        hot: Hot,
        cold: Cold,
        schema: str | None,
        *,
        here: Connection | None = None,
        row_by_row: bool = False,
    ) -> None:
        self.connection = connection
        """For statements of one's own in this transaction."""
        self._here, self._row_by_row = here, row_by_row
        self._hot, self._cold, self._schema = hot, cold, schema
        self._now: datetime | None = None
        self._revisions: dict[UUID, int] = {}

    async def _run(self, call: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._here is not None:
            return call(self._here, *args, **kwargs)
        return await self.connection.run_sync(call, *args, **kwargs)

    async def now(self) -> datetime:
        """Read once; again when something was locked."""
        if self._now is None:
            self._now = await self._run(self._hot.now)
        return self._now

    async def lock_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        """Two statements on PostgreSQL, three on SQLite; two more when one of the sagas stands in a `ForEach`."""
        if not command_ids:
            return {}, Locked(await self.now())
        refs, found = await self._run(self._hot.lock_commands, command_ids)
        return refs, self._locked(found)

    async def lock(self, saga_ids: Sequence[UUID]) -> Locked:
        """Two statements; two more when one of the sagas stands in a `ForEach`."""
        if not saga_ids:
            return Locked(await self.now())
        return self._locked(await self._run(self._hot.lock, saga_ids))

    async def lock_due(self, known: Sequence[Pin], *, limit: int, only_new: bool = False) -> Locked:
        """As `lock`; one statement on PostgreSQL where all of them are new."""
        if not known or limit < 1:
            return Locked(await self.now())
        return self._locked(await self._run(self._hot.lock_due, known, limit, only_new=only_new))

    async def lock_signalled(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """As `lock`."""
        if not known or limit < 1:
            return Locked(await self.now())
        return self._locked(await self._run(self._hot.lock_signalled, known, limit))

    async def lock_overdue(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """As `lock`, and one more for the instant before."""
        return await self._lock_where(versions.overdue(known, await self.now() - by), limit)

    async def lock_ordered_back(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """As `lock_overdue`."""
        return await self._lock_where(versions.ordered_back(known, await self.now() - by), limit)

    async def lock_needing_version(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """As `lock`."""
        return await self._lock_where(versions.needing_version(known) if known else None, limit)

    async def lock_upgrading(self, targets: Sequence[Pin], *, limit: int) -> Locked:
        """As `lock`."""
        return await self._lock_where(versions.upgrading(targets) if targets else None, limit)

    async def _lock_where(self, found: versions.Condition | None, limit: int) -> Locked:
        if found is None:
            return Locked(await self.now())
        return self._locked(await self._run(self._hot.lock_where, *found, limit))

    async def set_pins(self, pins: Mapping[UUID, Pin]) -> None:
        """One statement, run for each."""
        if pins:
            await self._run(versions.set_pins, pins, self._schema)

    async def holds(self) -> list[Hold]:
        """One statement."""
        return await self._run(holds.held, self._schema)

    async def hold(self, saga: str, version: int | None, *, reason: str, by: str) -> Hold | None:
        """Two statements."""
        asked = holds.Asked(saga, version, reason, by)
        return await self._run(holds.hold, asked, await self.now(), self._schema)

    async def release(self, saga: str, version: int | None, *, reason: str, by: str) -> list[Hold]:
        """Two statements."""
        asked = holds.Asked(saga, version, reason, by)
        return await self._run(holds.release, asked, await self.now(), self._schema)

    async def released_since(self, saga: str, version: int, since: datetime) -> bool:
        """One statement."""
        return await self._run(holds.released_since, saga, version, since, self._schema)

    async def wake_new(
        self, saga: str, version: int | None, *, after: UUID | None = None, limit: int = 1000
    ) -> UUID | None:
        """Two statements."""
        return await self._run(holds.wake_new, (saga, version), await self.now(), after, limit, self._schema)

    async def put_off(self, until: Mapping[UUID, datetime]) -> None:
        """One statement for each instant."""
        await self._run(holds.put_off, until, self._schema)

    async def announce(self, worker: Worker, *, dead_after: timedelta) -> list[Worker]:
        """Three statements, four the first time."""
        return await self._run(versions.announce, worker, await self.now(), dead_after, self._schema)

    async def workers(self, *, dead_after: timedelta) -> list[Worker]:
        """One statement."""
        now = await self.now()
        return await self._run(versions.live_workers, now, dead_after, schema=self._schema)

    async def unread_events(self, wire_names: Sequence[str], *, limit: int) -> list[UnreadEvent]:
        """One statement."""
        return await self._run(versions.unread_events, wire_names, limit, self._schema) if wire_names else []

    async def drop_events(self, event_ids: Sequence[UUID]) -> None:
        """One statement."""
        if event_ids:
            await self._run(versions.drop_events, event_ids, self._schema)

    async def start(self, saga: SagaInstance, *, reuse_key_after_end: bool = False) -> tuple[UUID, bool]:
        """See `start_saga`."""
        return await self._run(start_saga, saga, reuse_key_after_end=reuse_key_after_end, schema=self._schema)

    async def save(self, decisions: Sequence[Decision]) -> None:
        """One statement on PostgreSQL, five at most on SQLite; one more each for items, searchable fields, kept states.

        They check the revisions once more.

        Raises:
            ConcurrentUpdate: a saga's stored revision is not the loaded one.
            RuntimeError: a saga is not locked in this transaction.
        """
        for decision in decisions:
            self._check(decision.instance)
        if decisions:
            await self._run(self._hot.save, decisions, await self.now())
        if any(decision.items for decision in decisions):
            await self._run(write_items, decisions, self._schema)
        found_by = {decision.instance.id: decision.search for decision in decisions if decision.search}
        if found_by:
            await self._run(write_search, found_by, self._schema)
        if any(decision.states for decision in decisions):
            await self._run(write_states, decisions, await self.now(), self._schema)

    async def write(self, decisions: Sequence[Decision], now: datetime) -> None:
        """Write plain decisions on sagas that are not locked here, as of this instant.

        Raises:
            ConcurrentUpdate: a saga is not what its decision was made on. Roll back: others may be written already.
        """
        await self._run(self._hot.save, decisions, now)

    @asynccontextmanager
    async def session(self, *, timeout: timedelta) -> AsyncGenerator[AsyncSession]:
        """One statement, and a savepoint."""
        if self.connection.dialect.name == "postgresql":
            milliseconds = str(max(1, round(timeout.total_seconds() * 1000)))
            # The author's statements are planned as on any connection.
            freely = dict.fromkeys(ROW_BY_ROW, "on") if self._row_by_row else {}
            values = {"statement_timeout": milliseconds, **freely}
            await self.connection.execute(select(*(func.set_config(*value, True) for value in values.items())))
        async with AsyncSession(
            self.connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            async with asyncio.timeout(timeout.total_seconds()):
                yield session
            await session.commit()

    async def mark_sent(self, command_ids: Sequence[UUID]) -> None:
        """One statement."""
        if command_ids:
            await self._run(self._hot.mark_sent, command_ids, await self.now())

    async def claim_unsent(self, *, limit: int, grace: timedelta) -> list[SagaCommand]:
        """One statement, two on SQLite."""
        return await self._run(self._hot.claim_unsent, await self.now(), limit, grace) if limit > 0 else []

    async def put_off_sends(self, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """One statement."""
        if problems:
            await self._run(self._hot.put_off_sends, problems)

    async def set_traces(self, traces: Mapping[UUID, str]) -> None:
        """One statement, run for each."""
        if traces:
            await self._run(self._cold.set_traces, traces)

    async def make_unanswered_due(self, *, timeout: timedelta) -> int:
        """One statement."""
        return await self._run(self._cold.make_unanswered_due, await self.now(), timeout)

    async def add_signals(self, signals: Sequence[NewSignal]) -> None:
        """One statement."""
        if signals:
            await self._run(self._cold.add_signals, signals, await self.now())

    async def pending_signals(self, saga_ids: Sequence[UUID]) -> list[StoredSignal]:
        """One statement."""
        return await self._run(self._cold.pending_signals, saga_ids) if saga_ids else []

    async def take_signals(self, signal_ids: Sequence[UUID]) -> None:
        """One statement."""
        if signal_ids:
            await self._run(self._cold.take_signals, signal_ids, await self.now())

    async def fail_signals(self, errors: Mapping[UUID, str]) -> None:
        """One statement, run for each."""
        if errors:
            await self._run(self._cold.fail_signals, errors)

    async def revive_signals(self, saga_ids: Sequence[UUID]) -> None:
        """One statement."""
        if saga_ids:
            await self._run(self._cold.revive_signals, saga_ids)

    async def add_events(self, events: Sequence[ReceivedEvent]) -> list[UUID]:
        """One statement."""
        return await self._run(self._cold.add_events, events, await self.now()) if events else []

    async def event_matches(
        self,
        *,
        event_ids: Sequence[UUID] | None = None,
        saga_ids: Sequence[UUID] | None = None,
        limit: int = 200,
    ) -> list[EventMatch]:
        """One statement."""
        nothing_asked = (event_ids is not None and not event_ids) or (saga_ids is not None and not saga_ids)
        if nothing_asked or limit < 1:
            return []
        return await self._run(self._cold.event_matches, await self.now(), event_ids, saga_ids, limit)

    async def starting_events(
        self, wire_names: Sequence[str], prefix: str, *, event_ids: Sequence[UUID] | None = None, limit: int = 200
    ) -> list[StartingEvent]:
        """One statement."""
        if not wire_names or (event_ids is not None and not event_ids) or limit < 1:
            return []
        now = await self.now()
        return await self._run(self._cold.starting_events, now, wire_names, prefix, event_ids, limit)

    async def lock_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """One statement."""
        return await self._run(self._cold.lock_events, event_ids) if event_ids else set()

    async def consume_events(self, consumers: Mapping[UUID, UUID]) -> None:
        """One statement, run for each."""
        if consumers:
            await self._run(self._cold.consume_events, consumers, await self.now())

    async def change_locks(self, saga: SagaInstance, changes: Sequence[LockChange]) -> None:
        """One statement for each change."""
        if changes:
            await self._run(change_locks, saga, changes, await self.now(), self._schema)

    async def contended_locks(self) -> list[LockRow]:
        """One statement; three more when somebody asks for something."""
        return await self._run(contended_locks, self._schema)

    async def settle_locks(self, granted: Sequence[UUID], denied: Sequence[UUID]) -> None:
        """Two statements at most."""
        if granted or denied:
            await self._run(settle_locks, granted, denied, await self.now(), self._schema)

    async def held_locks(self, *, before: datetime, limit: int = 100) -> list[HeldLock]:
        """One statement."""
        return await self._run(held_locks, before, limit, self._schema)

    async def backlog(self) -> Backlog:
        """Two statements."""
        return await self._run(backlog.backlog, schema=self._schema, now=await self.now())

    async def unsent_commands(self, *, before: datetime) -> list[UnsentCommands]:
        """One statement."""
        return await self._run(backlog.unsent_commands, before, self._schema)

    async def sagas_begun(self, before: Mapping[Pin, datetime]) -> list[OldSagas]:
        """One statement, three on PostgreSQL."""
        return await self._run(backlog.old_sagas, before, await self.now(), self._schema) if before else []

    async def unmatched_since(self, since: datetime) -> int:
        """One statement."""
        return await self._run(backlog.unmatched_since, since, self._schema)

    async def outcomes(self, *, since: datetime, at_least: int) -> list[Outcomes]:
        """Two statements; one more where enough sagas failed."""
        return await self._run(backlog.outcomes, since, at_least, self._schema)

    async def add_unmatched(self, messages: Sequence[UnmatchedMessage]) -> None:
        """Two statements."""
        if messages:
            await self._run(self._cold.add_unmatched, messages, await self.now())

    async def add_outgoing(self, messages: Sequence[Outgoing]) -> None:
        """One statement, into the bus' own table."""
        if messages:
            await self._run(write_outgoing, messages, schema=self._schema)

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        """One statement."""
        if entries:
            await self._run(self._cold.add_audit, entries, await self.now())

    async def claim_purge(self, *, every: timedelta) -> bool:
        """One statement."""
        return await self._run(purging.claim_purge, await self.now(), every, self._schema)

    async def lock_ended(
        self, status: SagaStatus, *, before: datetime, after: Place | None = None, limit: int
    ) -> EndedTrees:
        """Four statements."""
        return await self._run(purging.lock_ended, status, before, after, limit, self._schema)

    async def purge(self, trees: Sequence[EndedTree]) -> None:
        """One statement for each table, for each few hundred sagas."""
        if trees:
            await self._run(purging.purge, trees, await self.now(), self._schema)

    async def purge_rest(self, rest: Rest, *, before: datetime, limit: int) -> int:
        """Two statements."""
        return await self._run(purging.purge_rest, rest, before, limit, self._schema)

    def _locked(self, found: tuple[datetime, dict[UUID, SagaInstance]]) -> Locked:
        now, sagas = found
        if sagas:
            self._now = now
            self._revisions.update((saga.id, saga.revision) for saga in sagas.values())
        return Locked(now, sagas)

    def _check(self, saga: SagaInstance) -> None:
        stored = self._revisions.get(saga.id)
        if stored is None:
            raise RuntimeError(f"saga {saga.id} is not locked in this transaction. Lock it before saving")
        if stored != saga.revision:
            raise ConcurrentUpdate(saga.id, saga.revision, stored)
        self._revisions[saga.id] = stored + 1
