"""One transaction of the engine: what was decided, the sender's news with it, and what follows its commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from messaging import failpoints
from messaging.codec import DEFAULT_LIMITS, Limits
from orchestrator.at_hand import AtHand
from orchestrator.batch import Batch
from orchestrator.errors import ConcurrentUpdate
from orchestrator.holding import Holds
from orchestrator.local_runner import Due
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.store import SagaStore, StoreTransaction
from orchestrator.store_records import Locked, SagaCommand
from orchestrator.watching import Watching
from orchestrator.workers import DEAD_AFTER


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


class Transacting:
    """What the engine's parts have in common.

    Args:
        registry: the definitions.
        store: open.
        sender: publishes what was committed.
        watching: are told.
        at_hand: keeps sagas between their batches; without it none is kept.
    """

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
        self._at_hand = at_hand or AtHand(store)
        self.watching = watching
        self.settings = settings or EngineSettings()
        self.holds = Holds()
        self.events_published: Callable[[], None] = lambda: None
        """Called after a commit that put events into the outbox."""
        self.local_due: Callable[[Sequence[Due]], None] = lambda _: None
        """Called after a commit with the local steps to be run, each by `run_local`."""
        self.locks_changed: Callable[[], None] = lambda: None
        """Called after a commit that asked for locks or let go of some."""

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
        begun = self._at_hand.seconds()
        try:
            async with self._store.transaction() as tx:
                batch = await work(tx)
                self._at_hand.saw(batch.now, asked=begun)
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
        self._at_hand.keep(batch.written)
        self._at_hand.forget((*marks, *put_off))
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
