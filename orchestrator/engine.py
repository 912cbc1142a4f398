"""The batch engine: many deliveries or due sagas, one transaction, then publish and settle.

One loop takes what is there, so replies are always decided before deadlines. Nothing is settled before
its effect is committed; nothing is published before it is committed; killed anywhere in between, the
delivery comes again and changes nothing, and the unsent command is found by its row.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from messaging import failpoints
from messaging.printable import error_text
from orchestrator.batch import Batch
from orchestrator.granting import settle
from orchestrator.instance import StepKey
from orchestrator.kept_events import KeepsEvents
from orchestrator.local_runner import LocalJob, job_of
from orchestrator.lock_answers import answers_of
from orchestrator.replies import DecidesReplies
from orchestrator.sender import counting_as_sent
from orchestrator.signals import CodeFailed, DeadlinePassed
from orchestrator.store import StoreTransaction
from orchestrator.store_records import DueWork, Locked, StoredSignal
from orchestrator.telling import Telling
from orchestrator.transacting import EngineSettings
from orchestrator.watching import Watching

__all__ = ["Engine", "EngineSettings"]

logger = logging.getLogger(__name__)


class Engine(DecidesReplies, KeepsEvents):
    """Turns batches of signals into transactions. Each method is one transaction, safe to repeat."""

    _taken_on: tuple[UUID, ...] = ()

    async def settle_locks(self) -> int:
        """Grant what sagas ask for, or deny it, as `granting` says; return how many steps got an answer."""
        if not self._registry.locking:
            return 0
        async with self._store.transaction() as tx:
            settled = settle(await tx.contended_locks())
            await tx.settle_locks(
                [one for request in settled.granted for one in request.ids],
                [one for request, _ in settled.denied for one in request.ids],
            )
            await tx.add_signals(answers_of(settled))
        return len(settled.granted) + len(settled.denied)

    async def wake(self, limit: int, *, deadlines: bool) -> int:
        """Take on sagas whose time has come: new ones, new waits, passed deadlines; return how many.

        Args:
            limit: at most so many.
            deadlines: whether deadlines count already; if not, only sagas that have not begun are taken.
        """
        found = 0

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal found
            pins = self._registry.pins
            locked = await tx.lock_due(pins, limit=limit, only_new=not deadlines)
            found = self._took_on(locked)
            if found:
                failpoints.reached("engine.timer_claimed")
            return await self._woken(tx, await self.holds.passed(tx, locked))

        await self._run(work)
        return found

    async def _woken(self, tx: StoreTransaction, locked: Locked) -> Batch:
        if self.watching is not None:
            locked = await _traced(tx, locked, self.watching)
        sent = self._sender.unmarked(locked)
        if sent:  # deadlines count from when a command was sent
            await tx.mark_sent(list(sent))
            locked = counting_as_sent(locked, sent)
        batch = self._batch(locked)
        batch.marked = sent
        waiting = [saga.id for saga in locked.sagas.values() if saga.seq]
        if waiting:
            await self._take_signals(tx, batch, await tx.pending_signals(waiting))
            await self._take_events(tx, batch, await tx.event_matches(saga_ids=waiting))
        for saga_id in locked.sagas:
            batch.tell(saga_id, DeadlinePassed())
        return batch

    async def run_local(self, saga_id: UUID, key: StepKey) -> None:
        """Run the function of a local step, if it is due still, and decide with its result, in one transaction.

        What it raises is rolled back with everything, and decided in a transaction of its own.
        """
        job: LocalJob | None = None

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal job
            batch = self._batch(await tx.lock([saga_id]))
            job = self._job(batch, saga_id, key)
            if job is not None:
                told = batch.tell(saga_id, await job.run(tx))
                if told.error:  # what follows cannot be decided; nor can what has run stay without it
                    raise _NothingFollows(told.step, told.error)
            return batch

        try:
            await self._run(work, alone=True)
        except Exception as error:
            if job is None:
                raise
            await self._rolled_back(saga_id, job, error)

    async def _rolled_back(self, saga_id: UUID, job: LocalJob, error: Exception) -> None:
        logger.info("Step %s of saga %s was rolled back: %s", job.key.step, saga_id, error)
        outcome = CodeFailed(error.step, str(error)) if isinstance(error, _NothingFollows) else job.failed(error)

        async def work(tx: StoreTransaction) -> Batch:
            batch = self._batch(await tx.lock([saga_id]))
            due = self._job(batch, saga_id, job.key)
            if due is not None and due.attempt == job.attempt:
                batch.tell(saga_id, outcome)
            return batch

        await self._run(work, alone=True)

    def _job(self, batch: Batch, saga_id: UUID, key: StepKey) -> LocalJob | None:
        instance = batch.saga(saga_id)
        return job_of(self._registry.find(instance.pin) if instance else None, instance, key)

    async def signals(self, limit: int) -> int:
        """Tell sagas what is kept for them; return how many sagas had something."""
        found = 0

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal found
            locked = await tx.lock_signalled(self._registry.pins, limit=limit)
            found = self._took_on(locked)
            batch = self._batch(locked)
            await self._take_signals(tx, batch, await tx.pending_signals(list(locked.sagas)))
            return batch

        await self._run(work)
        return found

    async def _take_signals(self, tx: StoreTransaction, batch: Batch, signals: Sequence[StoredSignal]) -> None:
        telling = Telling(batch)
        for signal in signals:
            telling.tell(signal)
        await tx.fail_signals(telling.failed)
        await tx.take_signals(telling.taken)
        await tx.revive_signals(telling.revived)
        await tx.add_unmatched(telling.unmatched)
        await tx.add_audit(telling.audit)

    def _took_on(self, locked: Locked) -> int:
        self._taken_on = tuple(locked.sagas)
        return len(locked.sagas)

    async def quarantine(self, error: BaseException) -> None:
        """Block the sagas last taken on, which could not be written, so that the others go on."""
        async with self._store.transaction() as tx:
            batch = self._batch(await tx.lock(self._taken_on))
            for saga_id in self._taken_on:
                batch.tell(saga_id, CodeFailed("", error_text(error)))
            await batch.save(tx)

    async def due(self) -> DueWork:
        """What the scans may find."""
        return await self._store.due()

    async def claim_unsent(self) -> int:
        """Find commands that are due and not on their way, and hand them to the sender; return how many."""
        async with self._store.transaction() as tx:
            commands = await tx.claim_unsent(limit=self.settings.batch, grace=self.settings.grace)
        self._at_hand.forget(command.record.command_id for command in commands if command.record.command_id)
        if commands:
            failpoints.reached("engine.sends_claimed")
            await self._sender.send(commands)
        return len(commands)

    async def flush_marks(self) -> int:
        """Write what the sender knows, when no batch comes along to carry it."""

        async def work(tx: StoreTransaction) -> Batch:
            return self._batch(Locked(await tx.now()))

        if self._sender.has_news:
            await self._run(work)
        return 0


class _NothingFollows(Exception):
    """A hook raised when a local step was to be followed by the next."""

    def __init__(self, step: str, error: str) -> None:
        self.step = step
        super().__init__(error)


async def _traced(tx: StoreTransaction, locked: Locked, watching: Watching) -> Locked:
    """Begin a trace for those that are new and have none."""
    new = [saga for saga in locked.sagas.values() if saga.revision == 0 and not saga.trace]
    traces = {saga.id: trace for saga in new if (trace := watching.begun(saga))}
    await tx.set_traces(traces)
    traced = {saga_id: replace(locked.sagas[saga_id], trace=trace) for saga_id, trace in traces.items()}
    return Locked(locked.now, {**locked.sagas, **traced}) if traced else locked
