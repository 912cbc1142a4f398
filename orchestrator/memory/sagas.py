"""Sagas: started, locked and loaded, saved; and who knows which definition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from orchestrator.errors import ConcurrentUpdate
from orchestrator.instance import BlockedReason, Pin, SagaInstance, SagaStatus, StepKey
from orchestrator.memory.rows import Rows
from orchestrator.signal_codec import ACTIONS, CHILD_ORDER, UPGRADE, upgrade_kind
from orchestrator.signals import STARTED, Decision, KeptState
from orchestrator.store_records import CommandRef, Locked
from orchestrator.workers import Worker

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class _NoSession:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"the memory store has no database for session.{name}. Use a SqlStore, on SQLite say")


class SagaRows(Rows):
    """Instances and their records, and the roll of workers."""

    async def lock_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        """Find attempts by their ids, replaced ones included, and load their sagas."""
        commands = self._tables.commands
        refs = {found: commands[found] for found in command_ids if found in commands}
        return refs, await self.lock([ref.saga_id for ref in refs.values()])

    async def lock(self, saga_ids: Sequence[UUID]) -> Locked:
        """Load these sagas; unknown ids are left out."""
        return self._load(sorted(saga_id for saga_id in set(saga_ids) if saga_id in self._tables.sagas))

    async def lock_due(self, known: Sequence[Pin], *, limit: int, only_new: bool = False) -> Locked:
        """Load sagas of known definitions whose `wake_at` has come, earliest first."""
        now, pins, sagas = self._clock.now(), set(known), self._tables.sagas
        due = [
            (wake_at, saga_id)
            for saga_id, wake_at in self._tables.wakes.items()
            if wake_at <= now and sagas[saga_id].pin in pins and not (only_new and sagas[saga_id].seq)
        ]
        return self._load([saga_id for _, saga_id in sorted(due)[: max(limit, 0)]])

    async def lock_signalled(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """Load sagas of known definitions that have pending signals; paused ones, if operators asked for something."""
        pins, sagas = set(known), self._tables.sagas
        told = {
            kept.signal.saga_id
            for kept in self._tables.signals.values()
            if kept.pending
            and not kept.signal.kind.startswith(UPGRADE)
            and (saga := sagas.get(kept.signal.saga_id))
            and saga.pin in pins
            and (saga.paused_at is None or kept.signal.kind in ACTIONS)
        }
        return self._load(sorted(told)[: max(limit, 0)])

    async def lock_overdue(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """Load sagas of definitions other than these whose `wake_at` has passed by so much."""
        since, pins, sagas = self._clock.now() - by, set(known), self._tables.sagas
        found = [one for one, wake_at in self._tables.wakes.items() if wake_at <= since and sagas[one].pin not in pins]
        return self._load(sorted(found)[: max(limit, 0)])

    async def lock_ordered_back(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """Load completed children of definitions other than these that were ordered back so long ago."""
        since, pins, sagas = self._clock.now() - by, set(known), self._tables.sagas
        orders = [kept for kept in self._tables.signals.values() if kept.pending and kept.signal.kind == CHILD_ORDER]
        told = {kept.signal.saga_id for kept in orders if kept.arrived_at <= since}
        found = [one for one in told if sagas[one].status is SagaStatus.COMPLETED and sagas[one].pin not in pins]
        return self._load(sorted(found)[: max(limit, 0)])

    async def lock_needing_version(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """Load sagas of known definitions that are blocked with `needs_version`."""
        pins, reason = set(known), BlockedReason.NEEDS_VERSION
        found = [saga.id for saga in self._tables.sagas.values() if saga.blocked_reason is reason and saga.pin in pins]
        return self._load(sorted(found)[: max(limit, 0)])

    async def lock_upgrading(self, targets: Sequence[Pin], *, limit: int) -> Locked:
        """Load sagas for which an upgrade to one of these versions is pending."""
        wanted = {(pin.name, upgrade_kind(pin.version)) for pin in targets}
        pending = [kept.signal for kept in self._tables.signals.values() if kept.pending]
        asked = [(saga, one.kind) for one in pending if (saga := self._tables.sagas.get(one.saga_id))]
        found = {saga.id for saga, kind in asked if (saga.pin.name, kind) in wanted}
        return self._load(sorted(found)[: max(limit, 0)])

    async def set_pins(self, pins: Mapping[UUID, Pin]) -> None:
        """Have these sagas belong to another version."""
        for saga_id, pin in pins.items():
            self._write(replace(self._tables.sagas[saga_id], pin=pin))

    async def announce(self, worker: Worker, *, dead_after: timedelta) -> list[Worker]:
        """Note that a process is alive; return those that are."""
        now, workers = await self.now(), self._tables.workers
        self._put(workers, worker.id, (worker, now))
        for dead in [one for one, (_, heard) in workers.items() if heard < now - dead_after]:
            self._remove(workers, dead)
        return await self.workers(dead_after=dead_after)

    async def workers(self, *, dead_after: timedelta) -> list[Worker]:
        """Return the processes that are alive."""
        since = await self.now() - dead_after
        return [worker for _, (worker, heard) in sorted(self._tables.workers.items()) if heard >= since]

    async def start(self, saga: SagaInstance, *, reuse_key_after_end: bool = False) -> tuple[UUID, bool]:
        """Write a new saga and its business key; return its id and True, or who has the key, and False."""
        if saga.id in self._tables.sagas:
            return saga.id, False
        if saga.business_key is not None:
            name_and_key = saga.pin.name, saga.business_key
            holder = self._tables.keys.get(name_and_key)
            if holder is not None and not (reuse_key_after_end and self._has_ended(holder)):
                return holder, False
            self._put(self._tables.keys, name_and_key, saga.id)
        self._write(replace(saga, steps={}, search=(), keeps_state=False))
        self._keep_search(saga.id, saga.search)
        if saga.keeps_state:
            first = KeptState(StepKey(""), STARTED, saga.state, saga.pin.version)
            self._put(self._tables.states, (saga.id, saga.revision, 0), (first, saga.started_at))
        return saga.id, True

    async def save(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided.

        Raises:
            ConcurrentUpdate: a saga's stored revision is not the loaded one.
            RuntimeError: a saga is not locked in this transaction.
        """
        for decision in decisions:
            after = decision.instance
            if after.id not in self._locked:
                raise RuntimeError(f"saga {after.id} is not locked in this transaction. Lock it before saving")
            stored = self._tables.sagas[after.id]
            if stored.revision != after.revision:
                raise ConcurrentUpdate(after.id, after.revision, stored.revision)
            steps = dict(stored.steps)
            for key in (*decision.added, *decision.changed):
                steps[key] = self._write_record(after.id, after.steps[key], steps.get(key))
            self._write(replace(after, revision=after.revision + 1, steps=steps, items={}))
            if decision.items:
                self._put(self._tables.items, after.id, (*self._tables.items.get(after.id, ()), *decision.items))
            self._keep_search(after.id, decision.search)
            for position, kept in enumerate(decision.states):
                self._put(self._tables.states, (after.id, after.revision + 1, position), (kept, await self.now()))
            for old in decision.replaced:
                ref = CommandRef(after.id, old.key, old.round, old.attempt)
                self._put(self._tables.commands, old.command_id, ref)
            for note in decision.notes:
                if not note.unusable:
                    self._put(self._tables.history, self._new_id(), (after.id, note))

    @asynccontextmanager
    async def session(self, *, timeout: timedelta) -> AsyncGenerator[AsyncSession]:
        """There is no database here: whoever uses the session is told so."""
        async with asyncio.timeout(timeout.total_seconds()):
            yield cast("AsyncSession", _NoSession())

    async def set_traces(self, traces: Mapping[UUID, str]) -> None:
        """Write the traces of these sagas."""
        for saga_id, trace in traces.items():
            self._write(replace(self._tables.sagas[saga_id], trace=trace))
