"""A broker inside the process: for tests, tutorials and an orchestrator embedded in one program.

One `MemoryTransport` is shared by all parts of a process. What it holds dies with the process, so
senders that must not lose anything publish `until_handled`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from messaging.envelope import Destination
from messaging.errors import (
    MessageTooLarge,
    NotConfirmed,
    PublishError,
    TopologyMismatch,
    TransportError,
    UnknownQueue,
    Unroutable,
)
from messaging.memory_queue import Entry, Handling, Keep, MemoryLook, Queue
from messaging.queue_state import QueueState
from messaging.routing import matches
from messaging.transport import Binding, Delivery, Outgoing, Promises, QueueSpec, dead_letter_queue

_ROUTES_KEPT = 4096
_PUBLISHED_BEFORE_YIELDING = 128


class MemoryTransport:
    """Queues in this process: first in first out, at least once, never durable.

    Publishing is a call that appends to a deque: no task, no copy. Closing keeps what is in the queues,
    so that `open` after `close` is a restart of everything but the process.
    """

    def __init__(self, *, max_body_bytes: int = 1 << 20) -> None:
        self._max_body_bytes = max_body_bytes
        self._queues: dict[str, Queue] = {}
        self._exchanges: dict[str, list[tuple[Binding, Queue]]] = {}
        self._routes: dict[tuple[str, str], tuple[Queue, ...]] = {}
        self._published = 0
        self._closed = False
        self._keep: Keep | None = None

    @property
    def promises(self) -> Promises:
        """Nothing outlives the process; everything else is kept."""
        return Promises(
            survives_restart=False,
            keeps_order=True,
            broadcasts=True,
            delays=False,
            detects_unroutable=True,
            dead_letters=True,
            parts=True,
        )

    def full_name(self, queue: str) -> str:
        """The name itself: there is nobody to share with."""
        return queue

    def keep_dead_letters(self, keep: Keep) -> None:
        """Have dead letters kept by somebody whom they survive; the transport has none of them then."""
        self._keep = keep
        for queue in self._queues.values():
            queue.keep = keep

    async def open(self) -> None:
        """Go on where `close` stopped."""
        self._closed = False
        for queue in self._queues.values():
            queue.resume()

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Create what is missing, with a queue for dead letters beside each.

        Raises:
            TopologyMismatch: a queue has another owner.
        """
        for spec in queues:
            queue = self._queue(spec.name)
            if spec.owner and queue.owner not in ("", spec.owner):
                raise TopologyMismatch(
                    f"queue {spec.name!r} belongs to {queue.owner}, not to {spec.owner}. Two systems must not take "
                    "each other's messages: give this one a transport of its own."
                )
            queue.owner = spec.owner or queue.owner
            queue.delivery_limit = spec.delivery_limit
            queue.dead = self._queue(dead_letter_queue(spec.name))
            for binding in spec.bindings:
                bound = self._exchanges.setdefault(binding.exchange, [])
                if (binding, queue) not in bound:
                    bound.append((binding, queue))
        self._routes.clear()

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Put each into the queues it is routed to; waits only for those sent `until_handled`."""
        outcomes: list[PublishError | None] = []
        awaited: list[tuple[int, Handling]] = []
        for outgoing in messages:
            handling = Handling() if outgoing.until_handled else None
            outcomes.append(self._put(outgoing, handling))
            if handling is not None and handling.open:
                awaited.append((len(outcomes) - 1, handling))
        if awaited:
            await self._until_handled(messages, awaited, outcomes, timeout)
        else:
            # A sender that only publishes would never let a consumer run.
            self._published += len(messages)
            if self._published >= _PUBLISHED_BEFORE_YIELDING:
                self._published = 0
                await asyncio.sleep(0)
        return outcomes

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> MemorySubscription:
        """Consume a declared queue.

        Raises:
            TransportError: nobody has declared it.
        """
        if queue not in self._queues:
            raise TransportError(f"queue {queue!r} is not declared. Declare it before consuming it.")
        return MemorySubscription(self._queues[queue], prefetch_messages)

    @asynccontextmanager
    async def dead_letters(self, queue: str) -> AsyncGenerator[MemoryLook]:
        """Look at the dead letters of a queue."""
        dead = self._queues.get(dead_letter_queue(queue))
        if dead is None:
            raise UnknownQueue(queue, dead_letter_queue(queue), "this process")
        yield MemoryLook(queue, dead, self._queues)

    async def dead_letter_count(self, queue: str) -> int | None:
        """How many there are and nobody has taken; None when the queue keeps none."""
        dead = self._queues.get(dead_letter_queue(queue))
        return None if dead is None else len(dead.ready)

    async def queue_state(self, queue: str) -> QueueState | None:
        """How many messages nobody has taken, and how many subscriptions there are; None when nobody declared it."""
        found = self._queues.get(queue)
        return None if found is None else QueueState(len(found.ready), len(found.subscriptions))

    async def close(self) -> None:
        """End every subscription; what was not settled is at the head of its queue again."""
        self._closed = True
        for queue in list(self._queues.values()):
            queue.suspend()

    def _queue(self, name: str) -> Queue:
        return self._queues.get(name) or self._queues.setdefault(name, Queue(name, keep=self._keep))

    def _put(self, outgoing: Outgoing, handling: Handling | None) -> PublishError | None:
        envelope, destination = outgoing.envelope, outgoing.destination
        if self._closed:
            return NotConfirmed(envelope.message_id, str(destination), "this process' bus is closed")
        if len(envelope.body) > self._max_body_bytes:
            return MessageTooLarge(
                envelope.message_id,
                str(destination),
                f"its body has {len(envelope.body)} bytes, the limit is {self._max_body_bytes}",
            )
        queues = self._route(destination)
        if not queues and destination.mandatory:
            return Unroutable(envelope.message_id, str(destination))
        for queue in queues:
            if handling is not None:
                handling.open += 1
            queue.put(Entry(envelope, destination, handling))
        return None

    def _route(self, destination: Destination) -> tuple[Queue, ...]:
        if not destination.exchange:
            queue = self._queues.get(destination.routing_key)
            return () if queue is None else (queue,)
        route = (destination.exchange, destination.routing_key)
        queues = self._routes.get(route)
        if queues is None:
            bound = self._exchanges.get(destination.exchange, ())
            matching = [queue for binding, queue in bound if matches(binding, destination.routing_key)]
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            queues = self._routes[route] = tuple(dict.fromkeys(matching))
        return queues

    async def _until_handled(
        self,
        messages: Sequence[Outgoing],
        awaited: Sequence[tuple[int, Handling]],
        outcomes: list[PublishError | None],
        timeout: timedelta,
    ) -> None:
        await asyncio.wait([handling.done for _, handling in awaited], timeout=timeout.total_seconds())
        for index, handling in awaited:
            if not handling.done.done():
                outgoing = messages[index]
                outcomes[index] = NotConfirmed(
                    outgoing.envelope.message_id,
                    str(outgoing.destination),
                    f"not handled within {timeout.total_seconds():g} s",
                )


class MemorySubscription:
    """One consumer of one queue. Its buffer is the queue itself: what is not taken was never moved."""

    def __init__(self, queue: Queue, prefetch_messages: int) -> None:
        self._queue = queue
        self._prefetch = prefetch_messages
        self._unsettled: dict[int, Entry] = {}
        self._tag = 0
        self._closed = ""
        queue.subscriptions.append(self)

    @property
    def queue(self) -> str:
        """The queue's full name."""
        return self._queue.name

    @property
    def epoch(self) -> int:
        """Always 1: there is no connection to lose."""
        return 1

    async def take(self, limit: int) -> list[Delivery]:
        """Wait until something is there and the prefetch allows it, then return at most `limit`."""
        while not (taken := self.take_nowait(limit)):
            await self._queue.changed()
        return taken

    def take_nowait(self, limit: int) -> list[Delivery]:
        """Return at most `limit` of what is in the queue right now."""
        if self._closed:
            raise TransportError(f"the subscription of queue {self.queue!r} is closed{self._closed}.")
        ready = self._queue.ready
        room = min(limit, self._prefetch - len(self._unsettled), len(ready))
        return [self._deliver(ready.popleft()) for _ in range(room)]

    def _deliver(self, entry: Entry) -> Delivery:
        self._tag += 1
        self._unsettled[self._tag] = entry
        return Delivery(
            entry.envelope,
            self._queue.name,
            self._tag,
            epoch=1,
            attempt=entry.attempt,
            redelivered=entry.redeliveries > 0,
        )

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle as handled; what went back to the queue meanwhile is left there."""
        full = len(self._unsettled) >= self._prefetch
        for delivery in deliveries:
            entry = self._unsettled.pop(delivery.tag, None)
            if entry is not None:
                entry.settle()
        if full:
            self._queue.wake()

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """Put it back at the queue's end when `after` has passed."""
        entry = self._unsettled.get(delivery.tag)
        if entry is not None:
            self._queue.put_later(_meant(delivery, entry), after)
            self._settle(delivery)

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        """Move it to the queue's dead letters."""
        entry = self._unsettled.get(delivery.tag)
        if entry is not None:
            await self._queue.bury(_meant(delivery, entry), reason, detail)
            if self._settle(delivery):
                entry.settle()

    def _settle(self, delivery: Delivery) -> bool:
        """Forget what has been moved; whether there was something. A part leaves what it came with unsettled."""
        self._queue.wake()
        return delivery.part is None and self._unsettled.pop(delivery.tag, None) is not None

    async def backlog(self) -> int:
        """How many messages are in the queue and not yet taken."""
        return len(self._queue.ready)

    async def close(self) -> None:
        """Take no more; what was taken may still be settled until the transport closes."""
        self._closed = self._closed or " by its owner"
        if not self._unsettled and self in self._queue.subscriptions:
            self._queue.subscriptions.remove(self)
        self._queue.wake()

    def give_back(self) -> list[Entry]:
        """End with the transport and hand over what was not settled, oldest first."""
        self._closed = " with its transport"
        entries = list(self._unsettled.values())
        self._unsettled.clear()
        return entries


def _meant(delivery: Delivery, entry: Entry) -> Entry:
    """What is to be moved: the entry, or of a part a new one."""
    if delivery.part is None:
        return entry
    return Entry(delivery.envelope, entry.destination, attempt=delivery.attempt)
