"""The batch engine: many deliveries or due sagas, one transaction, then publish and settle.

One loop takes what is there, so replies are always decided before deadlines. Nothing is settled before
its effect is committed; nothing is published before it is committed; killed anywhere in between, the
delivery comes again and changes nothing, and the unsent command is found by its row.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from messaging import failpoints
from messaging.codec import DEFAULT_LIMITS, Limits
from orchestrator.at_hand import AtHand
from orchestrator.batch import Batch
from orchestrator.errors import ConcurrentUpdate
from orchestrator.event_starts import start_by_events
from orchestrator.granting import settle
from orchestrator.holding import Holds
from orchestrator.incoming import Events, Reply, Start, UnknownEvent, Unmatched, unmatched_message
from orchestrator.instance import StepKey
from orchestrator.late_starts import take_starts
from orchestrator.local_runner import Due, LocalJob, job_of
from orchestrator.lock_answers import answers_of
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender, counting_as_sent
from orchestrator.signal_codec import EVENT, signal_from_row
from orchestrator.signals import CodeFailed, DeadlinePassed, EventMatched
from orchestrator.start_messages import start_types
from orchestrator.store import SagaStore, StoreTransaction
from orchestrator.store_records import (
    CommandRef,
    DueWork,
    EventMatch,
    Locked,
    SagaCommand,
    StoredSignal,
    UnmatchedMessage,
)
from orchestrator.telling import Telling
from orchestrator.unlocked import received, tell_unlocked
from orchestrator.watching import Watching
from orchestrator.workers import DEAD_AFTER

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine works; the defaults suit production."""

    batch: int = 200
    """Deliveries or due sagas in one transaction, at most."""
    grace: timedelta = timedelta(seconds=30)
    """How long a committed command may be on its way to the broker before it is sent again."""
    keep_events_for: timedelta = timedelta(hours=24)
    needs_version_after: timedelta = DEAD_AFTER
    """How long a saga is due, and no process has its version, before it is blocked; a silent process is dead then."""
    limits: Limits = DEFAULT_LIMITS


class Engine:
    """Turns batches of signals into transactions. Each method is one transaction, safe to repeat."""

    def __init__(
        self,
        registry: SagaRegistry,
        store: SagaStore,
        sender: Sender,
        settings: EngineSettings | None = None,
        *,
        watching: Watching | None = None,
        at_hand: AtHand | None = None,
    ) -> None:
        self._registry, self._store, self._sender = registry, store, sender
        self._sagas = at_hand or AtHand(store)
        self.watching = watching
        self.settings = settings or EngineSettings()
        self.holds = Holds()
        self._at_hand: tuple[UUID, ...] = ()
        self.events_published: Callable[[], None] = lambda: None
        """Called after a commit that put events into the outbox."""
        self.local_due: Callable[[Sequence[Due]], None] = lambda _: None
        """Called after a commit with the local steps to be run, each by `run_local`."""
        self.locks_changed: Callable[[], None] = lambda: None
        """Called after a commit that asked for locks or let go of some."""

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

    async def replies(self, items: Sequence[Reply | Unmatched]) -> None:
        """Decide replies, in order; those that fit nothing are kept whole with why."""
        left = await self.unlocked(items)
        if left:
            await self.locked(left)

    async def unlocked(self, items: Sequence[Reply | Unmatched]) -> Sequence[Reply | Unmatched]:
        """Decide, without a transaction around it, replies that need none; return what is left for `locked`."""
        ids = [item.command_id for item in items if isinstance(item, Reply)]
        left = await self._decided(items, ids)
        if left is None and self._sagas.forget(ids):  # somebody has changed one of them: see what it is now
            left = await self._decided(items, ids)
        return items if left is None else left

    async def _decided(
        self, items: Sequence[Reply | Unmatched], ids: Sequence[UUID]
    ) -> Sequence[Reply | Unmatched] | None:
        """What is left once the rest is written; None: one of the sagas was changed since, and nothing was written."""
        read = await self._sagas.read_commands(ids) if ids else None
        if read is None:
            return items
        batch = self._batch(read[1])
        left = tell_unlocked(batch, items, read[0])
        decisions, commands = batch.sending()
        failpoints.reached("engine.decided")
        if decisions and not await self._store.write(decisions, batch.now):
            return None
        await self._committed(batch, commands)
        return left

    async def locked(self, items: Sequence[Reply | Unmatched]) -> None:
        """Decide replies in one transaction, their sagas locked; those that fit nothing are kept whole with why."""
        replies = [item for item in items if isinstance(item, Reply)]
        unmatched = [unmatched_message(item, item.reason) for item in items if isinstance(item, Unmatched)]
        put_aside = 0

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal put_aside
            refs, locked = await tx.lock_commands([item.command_id for item in replies])
            batch = self._batch(locked)
            more = [self._reply(batch, item, refs.get(item.command_id)) for item in replies]
            aside = [*unmatched, *(message for message in more if message)]
            put_aside = len(aside)
            await tx.add_unmatched(aside)
            return batch

        await self._run(work)
        self._tell_unmatched(put_aside)

    def _reply(self, batch: Batch, item: Reply, ref: CommandRef | None) -> UnmatchedMessage | None:
        if ref is None:
            return unmatched_message(item, f"correlation id {item.command_id} is of nothing we sent")
        incoming = received(item, ref)
        told = batch.tell(ref.saga_id, incoming)
        if told.decision is None or told.error or told.decision.parked:
            batch.park(ref.saga_id, incoming, error=told.error)
            return None
        unusable = next((note for note in told.decision.notes if note.unusable), None)
        return unmatched_message(item, unusable.text, ref.saga_id) if unusable else None

    async def keep_events(self, items: Sequence[Events | Start | Unmatched]) -> list[UUID]:
        """Keep events, unmatched ones aside, and start what start messages start; return the new events' ids.

        They are to be matched next.
        """
        items = [self._or_elsewhere(item) for item in items]
        rows = [row for item in items if isinstance(item, Events) for row in item.rows]
        async with self._store.transaction() as tx:
            unread = await self._for_others(tx, items)
            aside = [item for item in items if isinstance(item, Unmatched) and item not in unread]
            starts = [item for item in items if isinstance(item, Start)]
            refused = await take_starts(tx, self._registry, starts)
            unmatched = [*(unmatched_message(item, item.reason) for item in aside), *refused]
            await tx.add_unmatched(unmatched)
            new = await tx.add_events([*rows, *(item.unread for item in unread)])
        failpoints.reached("engine.events_kept")
        self._tell_unmatched(len(unmatched))
        return new

    def _or_elsewhere(self, item: Events | Start | Unmatched) -> Events | Start | Unmatched:
        if not isinstance(item, Start) or self._registry.version_or_latest(item.saga_name, item.version):
            return item
        return item.elsewhere

    async def _for_others(self, tx: StoreTransaction, items: Sequence[object]) -> list[UnknownEvent]:
        """Those that some other process, of a later release say, can read."""
        unknown = [item for item in items if isinstance(item, UnknownEvent)]
        if not unknown:
            return []
        workers = await tx.workers(dead_after=self.settings.needs_version_after)
        read_elsewhere = {name for worker in workers for name in (*worker.events, *start_types(worker.pins))}
        return [item for item in unknown if item.unread.wire_name in read_elsewhere]

    async def start_by_events(self, event_ids: Sequence[UUID] | None = None) -> int:
        """Start the sagas that kept events start; return how many events there were."""
        if not self._registry.starting:
            return 0
        async with self._store.transaction() as tx:
            taken = await start_by_events(tx, self._registry, event_ids, limit=self.settings.batch)
        self._tell_unmatched(taken.refused)
        return taken.events

    async def match_events(self, event_ids: Sequence[UUID] | None = None) -> int:
        """Hand kept events to the sagas that wait for them; return how many found one."""
        found = 0

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal found
            matches = await tx.event_matches(event_ids=event_ids, limit=self.settings.batch)
            found = len(matches)
            batch = self._batch(await tx.lock(list({match.saga_id for match in matches})))
            await self._take_events(tx, batch, matches)
            return batch

        await self._run(work)
        return found

    async def _take_events(self, tx: StoreTransaction, batch: Batch, matches: Sequence[EventMatch]) -> None:
        """Tell each waiting saga its event, once if it is kept for it. An event that any saga takes is consumed."""
        parked = await _parked_waits(tx, batch, matches)
        unconsumed = await tx.lock_events(list({match.event_id for match in matches}))
        consumed: dict[UUID, UUID] = {}
        for match in matches:
            if match.event_id in unconsumed and (match.saga_id, match.key) not in parked:
                incoming = EventMatched(match.key, match.event_id, match.body, match.arrived_at)
                told = batch.tell(match.saga_id, incoming)
                aside = told.decision is None or told.decision.parked  # its version is not known here, or it is paused
                if aside:
                    parked.add((match.saga_id, match.key))
                if aside or told.error:
                    batch.park(match.saga_id, incoming, error=told.error)
                if aside or told.error or (told.decision and told.decision.accepted):
                    consumed[match.event_id] = match.saga_id
        await tx.consume_events(consumed)

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
        self._at_hand = tuple(locked.sagas)
        return len(locked.sagas)

    async def quarantine(self, error: BaseException) -> None:
        """Block the sagas last taken on, which could not be written, so that the others go on."""
        async with self._store.transaction() as tx:
            batch = self._batch(await tx.lock(self._at_hand))
            for saga_id in self._at_hand:
                batch.tell(saga_id, CodeFailed("", f"{type(error).__name__}: {error}"))
            await batch.save(tx)

    async def due(self) -> DueWork:
        """What the scans may find."""
        return await self._store.due()

    async def claim_unsent(self) -> int:
        """Find commands that are due and not on their way, and hand them to the sender; return how many."""
        async with self._store.transaction() as tx:
            commands = await tx.claim_unsent(limit=self.settings.batch, grace=self.settings.grace)
        self._sagas.forget(command.record.command_id for command in commands if command.record.command_id)
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

    # -- one transaction

    async def transact(self, work: Callable[[StoreTransaction, Callable[[Locked], Batch]], Awaitable[Batch]]) -> None:
        """One transaction of another room's making, which sends nothing; told to watchers like the engine's own."""
        async with self._store.transaction() as tx:
            batch = await work(tx, lambda locked: Batch(self._registry, locked, grace=self.settings.grace))
            await batch.save(tx)
        if self.watching is not None:
            self.watching.committed(batch.changes)

    def _batch(self, locked: Locked) -> Batch:
        failpoints.reached("engine.loaded")
        return Batch(self._registry, locked, grace=self.settings.grace)

    async def _run(self, work: Callable[[StoreTransaction], Awaitable[Batch]], *, alone: bool = False) -> None:
        """One transaction: the work, its decisions, and the sender's news last, unless alone; then publish."""
        marks, problems = ([], {}) if alone else (self._sender.marks(), self._sender.take_problems())
        begun = self._sagas.seconds()
        try:
            async with self._store.transaction() as tx:
                batch = await work(tx)
                self._sagas.saw(batch.now, asked=begun)
                failpoints.reached("engine.decided")
                commands: list[SagaCommand] = await batch.save(tx)
                written = batch.sent
                await tx.mark_sent([mark for mark in marks if mark not in written])
                await tx.put_off_sends(problems)
        except BaseException:
            self._sender.give_back(problems)
            raise
        self._sender.forget(marks)
        await self._committed(batch, commands, marks=marks, put_off=problems)

    async def _committed(
        self,
        batch: Batch,
        commands: Sequence[SagaCommand],
        *,
        marks: Iterable[UUID] = (),
        put_off: Iterable[UUID] = (),
    ) -> None:
        """What follows a commit: publish, and tell whom it concerns."""
        failpoints.reached("engine.committed")
        if marks:
            failpoints.reached("engine.marked")
        self._sender.forget(batch.sent)
        self._sagas.keep(batch.written)
        self._sagas.forget((*marks, *put_off))
        if self.watching is not None:
            self.watching.committed(batch.changes)
        await self._sender.send(commands)
        if due := batch.local_due:
            self.local_due(due)
        if batch.changes_locks:
            self.locks_changed()
        if batch.publishes_events:
            self.events_published()

    def _tell_unmatched(self, messages: int) -> None:
        if self.watching is not None:
            self.watching.unmatched(messages)

    def may_succeed_again(self, error: BaseException) -> bool:
        """Whether the same batch, done again as a whole, may go through."""
        return isinstance(error, ConcurrentUpdate) or self._store.is_transient(error)


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


async def _parked_waits(tx: StoreTransaction, batch: Batch, matches: Iterable[EventMatch]) -> set[tuple[UUID, StepKey]]:
    """Waits of sagas that are paused, or not known here, for which an event is parked already."""
    resting = [saga_id for saga_id in {match.saga_id for match in matches} if not batch.decides(saga_id)]
    kept = [(signal.saga_id, signal) for signal in await tx.pending_signals(resting) if signal.kind == EVENT]
    told = [(saga_id, signal_from_row(signal.kind, signal.body)) for saga_id, signal in kept]
    return {(saga_id, incoming.key) for saga_id, incoming in told if isinstance(incoming, EventMatched)}
