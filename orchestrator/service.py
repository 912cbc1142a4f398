"""One running orchestrator: its queues, its engine's loop, its sender and its relay, started and drained."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from messaging.codec import Limits
from messaging.errors import TopologyMismatch
from messaging.splitting import subscribed
from messaging.transport import Binding, QueueSpec, Subscription, Transport
from orchestrator import nudge
from orchestrator.alarms import checks_of
from orchestrator.at_hand import AtHand
from orchestrator.engine import Engine, EngineSettings
from orchestrator.errors import InstallationMismatch
from orchestrator.holding_failing import HoldsFailing
from orchestrator.intake import Intake
from orchestrator.local_runner import LocalRunner
from orchestrator.loop import EngineLoop, LoopSettings
from orchestrator.registry import SagaRegistry
from orchestrator.reply_tokens import ReplyTokens
from orchestrator.sender import Sender
from orchestrator.settings import OrchestratorSettings
from orchestrator.store import SagaStore
from orchestrator.version_keeper import VersionKeeper
from orchestrator.watchdog import Watchdog
from orchestrator.watching import Watcher, Watching
from orchestrator.workers import Worker, this_process

logger = logging.getLogger(__name__)

_MARKS_AFTER: Final = timedelta(milliseconds=500)
"""Most commands are answered sooner, and need no mark: an answer says that they were sent."""

_AT_HAND: Final = 10_000_000
"""Bytes of sagas kept in memory between their batches: some 2,000 of three steps."""


class Outbox(Protocol):
    """What relays the events that sagas publish."""

    async def run(self) -> None:
        """Relay until `stop`."""
        ...

    def nudge(self) -> None:
        """Tell that something was committed."""
        ...

    def stop(self) -> None:
        """Let `run` end."""
        ...


@dataclass(frozen=True, slots=True)
class Queues:
    """The two queues of an installation, shared by all its replicas."""

    installation: str

    @property
    def replies(self) -> str:
        """Where participants answer."""
        return f"orchestrator.{self.installation}.replies"

    @property
    def events(self) -> str:
        """Where events come that some saga waits for."""
        return f"orchestrator.{self.installation}.events"

    def specs(self, registry: SagaRegistry, *, owner: str = "") -> Sequence[QueueSpec]:
        """What to declare."""
        bindings = tuple(Binding(wire_name) for wire_name in sorted(registry.events))
        return QueueSpec(self.replies, owner=owner), QueueSpec(self.events, bindings)


class OrchestratorService:
    """Starts what an orchestrator consists of, and stops it without losing anything.

    Args:
        registry: the definitions.
        store: open, and migrated.
        transport: open.
        outbox: relays what sagas publish; None if the store's owner does.
        installation: name in the queues' names.
        owner: the installation's id, that its queues are declared with.
        tokens: the installation's, by which commands may be answered later.
        watchers: are told what it does.
    """

    def __init__(
        self,
        registry: SagaRegistry,
        store: SagaStore,
        transport: Transport,
        settings: OrchestratorSettings,
        *,
        outbox: Outbox | None = None,
        installation: str = "main",
        owner: str = "",
        tokens: ReplyTokens | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self._registry, self._store, self._transport = registry, store, transport
        self._settings, self._outbox, self._owner = settings, outbox, owner
        self._queues, self._tokens = Queues(installation), tokens
        self._watching = Watching(watchers) if watchers else None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: list[Subscription] = []
        self._loop: EngineLoop | None = None

    async def start(self) -> None:
        """Declare the queues, make unanswered commands due where the broker forgets, begin to work.

        Raises:
            TransportError: the broker refuses.
            InstallationMismatch: the queues are another installation's, or declared otherwise.
        """
        settings, transport = self._settings, self._transport
        worker = await self._announced()
        try:
            await transport.declare(self._queues.specs(self._registry, owner=self._owner))
        except TopologyMismatch as error:
            raise InstallationMismatch(str(error)) from error
        grace = settings.seconds("send_grace")
        self._sender = Sender(
            transport,
            transport.full_name(self._queues.replies),
            timeout=grace / 2,
            watching=self._watching,
            tokens=self._tokens,
            marks_after=min(_MARKS_AFTER, self._shortest_timeout() / 4),
        )
        limits = Limits(max_body_bytes=settings.max_body_bytes)
        engine_settings = EngineSettings(
            settings.batch, grace, settings.seconds("keep_events"), settings.seconds("needs_version"), limits
        )
        sagas = AtHand(self._store, _AT_HAND)
        self._engine = Engine(
            self._registry, self._store, self._sender, engine_settings, watching=self._watching, at_hand=sagas
        )
        self._local = LocalRunner(self._engine.run_local)
        self._engine.local_due = self._local.take
        if self._outbox:
            self._engine.events_published = self._outbox.nudge
        if not transport.promises.survives_restart:
            await self._recover()
        wake = asyncio.Event()
        replies, events = [await self._intake(q, wake) for q in (self._queues.replies, self._queues.events)]
        loop_settings = LoopSettings(settings.seconds("poll"), settings.seconds("sweep"))
        self._loop = EngineLoop(self._engine, self._registry, replies, events, wake, loop_settings)
        nudge.listen(self._loop.nudge)
        self._spawn(self._sender.run(), "sender")
        self._main = self._spawn(self._loop.run(), "engine")
        self._keeper = VersionKeeper(self._engine, self._store, self._registry, worker)
        self._spawn(self._keeper.run(), "versions")
        self._watchdog = self._made_watchdog()
        self._spawn(self._watchdog.run(settings.seconds("alarm_every")), "watchdog")
        if self._outbox:
            self._spawn(self._outbox.run(), "outbox relay")

    def _shortest_timeout(self) -> timedelta:
        """No deadline may find a command unmarked that another engine has sent, or it would be put off."""
        return min((saga.plan.shortest_timeout for saga in self._registry), default=timedelta.max)

    def _made_watchdog(self) -> Watchdog:
        watching, settings, store = self._watching, self._settings, self._store
        checks = checks_of(settings, self._registry)
        act = HoldsFailing(store, settings.seconds("alarm_window")) if settings.hold_failing else None
        if watching is None:
            return Watchdog(store, checks, lambda _: None, act=act)
        return Watchdog(store, checks, watching.alarmed, watching.waiting if watching.want_backlog else None, act)

    async def _announced(self) -> Worker:
        """Tell what this process has, before messages can reach the queue that others may not be able to read."""
        worker = this_process(self._registry.pins, self._registry.events)
        async with self._store.transaction() as tx:
            await tx.announce(worker, dead_after=self._settings.seconds("needs_version"))
        return worker

    async def _recover(self) -> None:
        """Send unanswered commands again, each with all the time it may need: being away is no timeout."""
        timeout = max((saga.plan.longest_timeout for saga in self._registry), default=timedelta(0))
        async with self._store.transaction() as tx:
            due = await tx.make_unanswered_due(timeout=timeout)
        if due:
            logger.info("%d commands were unanswered when the last process ended; they are sent again", due)

    async def _intake(self, queue: str, wake: asyncio.Event) -> Intake:
        prefetch = self._settings.prefetch_messages
        subscription = await subscribed(self._transport, queue, prefetch_messages=prefetch)
        self._subscriptions.append(subscription)
        return Intake(subscription, wake, prefetch=prefetch, catch_up_limit=self._settings.seconds("catch_up_limit"))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def failed(self) -> None:
        """Wait until a part of the service ends by an error, and raise it; cancel to stop waiting."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Finish the batch, publish what is committed, write what was confirmed; bounded by `drain_seconds`."""
        if self._loop is None:
            return
        drain = self._settings.seconds("drain")
        nudge.forget(self._loop.nudge)
        self._keeper.stop()
        self._watchdog.stop()
        self._loop.stop()
        await asyncio.wait([self._main], timeout=drain.total_seconds() / 4)
        await self._local.stop(drain / 4)
        if not await self._sender.drained(drain / 4):
            logger.warning("Some commands are still unsent; the next process sends them")
        self._sender.hurry()
        try:
            await asyncio.wait_for(self._engine.flush_marks(), drain.total_seconds() / 4)
        except Exception as error:  # noqa: BLE001 - unmarked sends cost a second copy with the same id, nothing else
            logger.warning("What was sent could not be marked: %s", error)
        if self._outbox:
            self._outbox.stop()
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        await asyncio.wait(self._tasks, timeout=0.2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions), return_exceptions=True)
        self._subscriptions.clear()
        self._loop = None
