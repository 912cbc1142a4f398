"""Who has which definition: announces this process, blocks what nobody has, lifts that, and carries out upgrades.

Nothing is decided here for a saga whose definition is not at hand, but that it needs an operator; and that only when
it was due for so long, and no process that was heard of within that time has its definition.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from messaging.logged import about
from orchestrator.batch import Batch
from orchestrator.engine import Engine
from orchestrator.incoming import Events, Start, Undecodable, Unmatched, read_kept, unmatched_message
from orchestrator.instance import Pin, SagaInstance
from orchestrator.late_starts import take_starts
from orchestrator.registry import SagaRegistry, pin_of
from orchestrator.signal_codec import UPGRADE, upgrade_from_row, upgrade_kind
from orchestrator.signals import UpgradeRequested
from orchestrator.start_messages import start_types
from orchestrator.store import SagaStore, StoreTransaction
from orchestrator.store_records import AuditEntry, Locked, StoredSignal
from orchestrator.upgrading import Upgrade, upgraded
from orchestrator.versions import lifted, needing_version
from orchestrator.workers import DEAD_AFTER, Worker

logger = logging.getLogger(__name__)

_BEATS: Final = 6
"""How often a process is heard of within the time after which it counts as dead."""
_LOOK_EVERY: Final = timedelta(seconds=1)


class VersionKeeper:
    """One process' part in it.

    Args:
        engine: writes what is decided here.
        store: the engine's.
        registry: the engine's.
        worker: how this process announces itself.
    """

    def __init__(self, engine: Engine, store: SagaStore, registry: SagaRegistry, worker: Worker) -> None:
        self._engine, self._store, self._registry, self._worker = engine, store, registry, worker
        self._dead_after = engine.settings.needs_version_after
        self._batch = engine.settings.batch
        self._begun: datetime | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`; whatever fails is done again with the next beat."""
        beat_every = min(self._dead_after, DEAD_AFTER) / _BEATS  # who looks from outside knows DEAD_AFTER alone
        look_every = min(_LOOK_EVERY, beat_every)
        looks = max(1, round(beat_every / look_every))
        while not self._stopping.is_set():
            await self._tried(self.beat)
            for _ in range(looks):
                await self._tried(self.upgrade)
                await self._tried(self.read_events)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), look_every.total_seconds())

    def stop(self) -> None:
        """Let `run` end after the transaction it is in."""
        self._stopping.set()

    async def _tried(self, work: Callable[[], Awaitable[object]]) -> None:
        if self._stopping.is_set():
            return
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - nothing rests on one beat
            logger.warning("The roll of versions could not be kept: %s. Trying again.", error)

    async def beat(self) -> None:
        """Announce this process; lift what it knows, and block what nobody does."""
        async with self._store.transaction() as tx:
            workers = await tx.announce(self._worker, dead_after=self._dead_after)
            now = await tx.now()
        self._begun = self._begun or now
        await self._each(lambda tx: tx.lock_needing_version(self._registry.pins, limit=self._batch), self._lift)
        if now - self._begun >= self._dead_after:  # others that began with this one have been heard of by then
            known = list({pin for worker in workers for pin in worker.pins})
            by, limit = self._dead_after, self._batch
            await self._each(lambda tx: tx.lock_overdue(known, by=by, limit=limit), self._block)
            await self._each(lambda tx: tx.lock_ordered_back(known, by=by, limit=limit), self._block)

    async def _each(
        self,
        lock: Callable[[StoreTransaction], Awaitable[Locked]],
        transition: Callable[[Batch, SagaInstance], None],
    ) -> None:
        """Make a transition for all that is found, a batch in a transaction."""
        found = self._batch
        while found >= self._batch:

            async def work(tx: StoreTransaction, batch_of: Callable[[Locked], Batch]) -> Batch:
                nonlocal found
                locked = await lock(tx)
                found = len(locked.sagas)
                locked = await self._engine.holds.passed(tx, locked)
                batch = batch_of(locked)
                for saga in locked.sagas.values():
                    transition(batch, saga)
                return batch

            await self._engine.transact(work)

    def _lift(self, batch: Batch, saga: SagaInstance) -> None:
        definition = self._registry.find(saga.pin)
        if definition is not None:
            with about(saga_id=str(saga.id)):
                logger.info("Saga %s goes on: this process has its version", saga.id)
            batch.keep(saga.id, lifted(definition, saga, batch.now))

    def _block(self, batch: Batch, saga: SagaInstance) -> None:
        pin = saga.pin
        with about(saga_id=str(saga.id)):
            logger.warning("Saga %s is blocked: no engine that runs has %s v%d", saga.id, pin.name, pin.version)
        batch.keep(saga.id, needing_version(saga, batch.now))

    async def read_events(self) -> int:
        """Take events and start messages from processes that could not read them; return how many there were."""
        settings, known = self._engine.settings, self._registry.events
        async with self._store.transaction() as tx:
            types = [*known, *start_types(self._registry.pins)]
            unread = await tx.unread_events(types, limit=self._batch)
            read = [read_kept(one, known, settings.limits, settings.keep_events_for) for one in unread]
            new = await tx.add_events([row for one in read if isinstance(one, Events) for row in one.rows])
            refused = await take_starts(tx, self._registry, [one for one in read if isinstance(one, Start)])
            aside = [one for one in read if isinstance(one, Undecodable | Unmatched)]
            await tx.add_unmatched([*(unmatched_message(one, one.reason) for one in aside), *refused])
            await tx.drop_events([one.id for one in unread])
        if new:
            await self._engine.match_events(new)
        return len(unread)

    # -- upgrades

    async def upgrade(self) -> int:
        """Carry out, or refuse, what was asked for versions that this process has; return for how many sagas."""
        found = 0

        async def work(tx: StoreTransaction, batch_of: Callable[[Locked], Batch]) -> Batch:
            nonlocal found
            locked = await tx.lock_upgrading(self._registry.pins, limit=self._batch)
            found, batch = len(locked.sagas), batch_of(locked)
            asked = [one for one in await tx.pending_signals(list(locked.sagas)) if one.kind.startswith(UPGRADE)]
            answers = [answer for signal in asked if (answer := self._answer(batch, signal)) is not None]
            await tx.take_signals([answer.signal_id for answer in answers if answer.signal_id])
            await tx.add_audit(answers)
            await tx.set_pins(_new_pins(locked, batch))
            return batch

        await self._engine.transact(work)
        return found

    def _answer(self, batch: Batch, signal: StoredSignal) -> AuditEntry | None:
        """Decide one request; None where it is for a version that others have."""
        saga = batch.saga(signal.saga_id)
        request = upgrade_from_row(signal.body)
        if saga is None:
            return None
        outcome = self._decided(saga, request, batch.now)
        if outcome is None:
            return None
        if outcome.decision is not None:
            batch.keep(saga.id, outcome.decision)
        after = batch.saga(saga.id) or saga
        words = (saga.status.value, after.status.value, outcome.refused)
        return AuditEntry(saga.id, upgrade_kind(request.version), request.by, request.reason, *words, signal.id)

    def _decided(self, saga: SagaInstance, request: UpgradeRequested, now: datetime) -> Upgrade | None:
        target = self._registry.version(saga.pin.name, request.version)
        if target is None:
            return None
        if pin_of(target).fingerprint != request.fingerprint:
            return Upgrade(None, f"the engine has other steps in v{request.version}. Deploy one code everywhere first")
        old = self._registry.find(saga.pin)
        told = f"by {request.by or 'an operator'}: {request.reason}"
        return upgraded(target, saga, old=old.plan if old else None, now=now, told=told)


def _new_pins(locked: Locked, batch: Batch) -> dict[UUID, Pin]:
    now = {saga_id: batch.saga(saga_id) for saga_id in locked.sagas}
    return {one: saga.pin for one, saga in now.items() if saga and saga.pin != locked.sagas[one].pin}
