"""One orchestrator process, in a world: the engine as it is shipped, run without an event loop.

Nothing is imitated here but the broker, which is two lists. Engine, loop, batch, sender, intake, the pure core
and the memory store are those of the package. Since the memory store and this broker never make them wait, their
coroutines run to the end in one go. Killing the process is an exception at one of its failpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from messaging import failpoints
from messaging.envelope import ERROR_CODE, OUTCOME, Envelope
from messaging.errors import PublishError
from messaging.transport import Delivery, Outgoing, Promises, QueueSpec, Subscription
from orchestrator.engine import Engine, EngineSettings
from orchestrator.intake import Intake
from orchestrator.loop import EngineLoop
from orchestrator.memory import MemoryStore, MemoryTransaction
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.testing.exploring.world import SAGA_ID, Answered, Sent, World

T = TypeVar("T")

GRACE: Final = timedelta(seconds=30)
REPLIES, EVENTS = "replies", "events"
WRITTEN: Final = "store.written"
"""A failpoint of our own: all is written, and not committed."""
HANDED_OVER: Final = "broker.took"
"""Another: the broker has taken one message of a batch."""


class Killed(BaseException):
    """The process ended here, as by SIGKILL."""


class Shell:
    """An engine that has just been given the world's tables, and what its process remembers."""

    def __init__(self, registry: SagaRegistry, world: World) -> None:
        self._world = world
        self.store = _CountingStore(_Standing(world.now), world.tables.copied())
        self.broker = Broker(self.store)
        self._sender = Sender(self.broker, REPLIES, timeout=GRACE / 2)
        self._sender.give_back(world.marks, {})
        self.engine = Engine(registry, self.store, self._sender, EngineSettings(grace=GRACE))
        wake = asyncio.Event()
        replies, events = (Intake(q, wake, prefetch=1, catch_up_limit=GRACE) for q in self.broker.subscriptions)
        self.loop = EngineLoop(self.engine, registry, replies, events, wake)
        self.marks: tuple[UUID, ...] = ()
        self.killed = False

    def run(self, work: Callable[[Shell], Coroutine[Any, Any, Any]], *, kill_at: str = "") -> None:
        """Do some work and publish what it committed, or be killed the first time that place is reached."""

        def watch(name: str) -> None:
            if name == kill_at:
                raise Killed

        async def all_of_it() -> None:
            await work(self)
            await self._sender.publish_batch()

        with failpoints.watched(watch):
            try:
                finished(all_of_it())
                self.marks = tuple(self._sender.take_marks())
            except Killed:
                self.killed = True

    def deliver_replies(self, replies: Sequence[Answered]) -> Coroutine[Any, Any, None]:
        """Hand replies to the loop in one batch."""
        return self.loop.handle_replies(self.broker.delivered(REPLIES, [_envelope_of(reply) for reply in replies]))

    def deliver_event(self, envelope: Envelope) -> Coroutine[Any, Any, None]:
        """Hand an event to the loop."""
        return self.loop.handle_events(self.broker.delivered(EVENTS, [envelope]))

    def sent(self) -> list[Sent]:
        """What the broker took, with what the committed rows say about it.

        Raises:
            LookupError: no row knows one of them: it left before, or without, its commit.
        """
        return [self._sent(outgoing) for outgoing in self.broker.taken]

    def _sent(self, outgoing: Outgoing) -> Sent:
        envelope = outgoing.envelope
        ref = self.store.tables.commands.get(UUID(envelope.message_id))
        if ref is None or ref.saga_id != SAGA_ID:
            raise LookupError(f"{envelope.type} left, and no committed row knows its message id {envelope.message_id}")
        return Sent(
            ref.key,
            ref.round,
            ref.attempt,
            envelope.message_id,
            envelope.text_header("idempotency-key"),
            envelope.text_header("compensates"),
            outgoing.destination.routing_key,
            envelope.type,
            envelope.body.decode(),
        )


class Broker:
    """Takes what is published and hands over what it is told to; notes what is settled, and when."""

    def __init__(self, store: _CountingStore) -> None:
        self._store = store
        self.taken: list[Outgoing] = []
        self.acked: set[int] = set()
        """Tags of deliveries that were settled as handled."""
        self.acked_too_early = False
        """Whether one was settled before anything was committed."""
        self.dead_letters: list[str] = []
        self.subscriptions: list[Subscription] = [_Queue(self, REPLIES), _Queue(self, EVENTS)]
        self.promises = Promises(
            survives_restart=True,
            keeps_order=True,
            broadcasts=True,
            delays=False,
            detects_unroutable=True,
            dead_letters=True,
        )

    def delivered(self, queue: str, envelopes: Sequence[Envelope]) -> list[Delivery]:
        """Messages as a consumer of the queue gets them; tags count from 0."""
        return [Delivery(envelope, queue, tag, epoch=1) for tag, envelope in enumerate(envelopes)]

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Take them, one after the other."""
        for message in messages:
            self.taken.append(message)
            failpoints.reached(HANDED_OVER)
        return [None] * len(messages)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Note what is settled."""
        self.acked.update(delivery.tag for delivery in deliveries)
        self.acked_too_early = self.acked_too_early or bool(deliveries and not self._store.commits)

    def full_name(self, queue: str) -> str:
        """The name itself."""
        return queue

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Every queue is there."""

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> Subscription:
        """One of the two queues."""
        return self.subscriptions[queue == EVENTS]


class _Queue:
    """A subscription that is handed its deliveries from outside."""

    epoch = 1

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker, self.queue = broker, name

    async def take(self, limit: int) -> list[Delivery]:
        return []

    def take_nowait(self, limit: int) -> list[Delivery]:
        return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._broker.settle(deliveries)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """The engine never does."""

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        self._broker.dead_letters.append(f"{reason}: {detail}" if detail else reason)

    async def backlog(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing to end."""


class _CountingStore(MemoryStore):
    """Counts what was committed."""

    commits = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        async with super().transaction() as tx:
            yield tx
            failpoints.reached(WRITTEN)
        self.commits += 1


class _Standing:
    """Time stands still while the engine works."""

    def __init__(self, instant: datetime) -> None:
        self._instant = instant

    def now(self) -> datetime:
        return self._instant


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, to its end.

    Raises:
        RuntimeError: it waits.
    """
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the engine waits for something that will not come in the explorer")


def _envelope_of(reply: Answered) -> Envelope:
    headers = {OUTCOME: reply.outcome, ERROR_CODE: reply.error_code}
    return Envelope("", reply.body.encode(), correlation_id=reply.to.message_id, headers=headers)
