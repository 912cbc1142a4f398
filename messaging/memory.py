"""A broker inside the process: for tests, tutorials and an orchestrator embedded in one program.

One `MemoryTransport` is shared by all parts of a process. What it holds dies with the process, so
senders that must not lose anything publish `until_handled`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from messaging.envelope import Destination, Envelope
from messaging.errors import MessageTooLarge, NotConfirmed, PublishError, TopologyMismatch, TransportError, Unroutable
from messaging.routing import matches
from messaging.transport import (
    DEAD_LETTER_DETAIL,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    Binding,
    Delivery,
    Outgoing,
    Promises,
    QueueSpec,
    dead_letter_queue,
)

_ROUTES_KEPT = 4096
_PUBLISHED_BEFORE_YIELDING = 128


class MemoryTransport:
    """Queues in this process: first in first out, at least once, never durable.

    Publishing is a call that appends to a deque: no task, no copy. Closing keeps what is in the queues,
    so that `open` after `close` is a restart of everything but the process.
    """

    def __init__(self, *, max_body_bytes: int = 1 << 20) -> None:
        self._max_body_bytes = max_body_bytes
        self._queues: dict[str, _Queue] = {}
        self._exchanges: dict[str, list[tuple[Binding, _Queue]]] = {}
        self._routes: dict[tuple[str, str], tuple[_Queue, ...]] = {}
        self._published = 0
        self._closed = False

    @property
    def promises(self) -> Promises:
        """Nothing outlives the process; everything else is kept."""
        return Promises(survives_restart=False, delays=False, detects_unroutable=True, dead_letters=True)

    def full_name(self, queue: str) -> str:
        """The name itself: there is nobody to share with."""
        return queue

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
        awaited: list[tuple[int, _Handling]] = []
        for outgoing in messages:
            handling = _Handling() if outgoing.until_handled else None
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

    async def close(self) -> None:
        """End every subscription; what was not settled is at the head of its queue again."""
        self._closed = True
        for queue in list(self._queues.values()):
            queue.suspend()

    def _queue(self, name: str) -> _Queue:
        return self._queues.get(name) or self._queues.setdefault(name, _Queue(name))

    def _put(self, outgoing: Outgoing, handling: _Handling | None) -> PublishError | None:
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
            queue.put(_Entry(envelope, handling))
        return None

    def _route(self, destination: Destination) -> tuple[_Queue, ...]:
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
        awaited: Sequence[tuple[int, _Handling]],
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

    def __init__(self, queue: _Queue, prefetch_messages: int) -> None:
        self._queue = queue
        self._prefetch = prefetch_messages
        self._unsettled: dict[int, _Entry] = {}
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

    def _deliver(self, entry: _Entry) -> Delivery:
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
            if entry is not None and entry.handling is not None:
                entry.handling.settle()
        if full:
            self._queue.wake()

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """Put it back at the queue's end when `after` has passed."""
        entry = self._unsettled.pop(delivery.tag, None)
        if entry is not None:
            self._queue.put_later(entry, after)
            self._queue.wake()

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        """Move it to the queue's dead letters."""
        entry = self._unsettled.pop(delivery.tag, None)
        if entry is not None:
            self._queue.bury(entry, reason, detail)
            self._queue.wake()

    async def backlog(self) -> int:
        """How many messages are in the queue and not yet taken."""
        return len(self._queue.ready)

    async def close(self) -> None:
        """Take no more; what was taken may still be settled until the transport closes."""
        self._closed = self._closed or " by its owner"
        if not self._unsettled and self in self._queue.subscriptions:
            self._queue.subscriptions.remove(self)
        self._queue.wake()

    def give_back(self) -> list[_Entry]:
        """End with the transport and hand over what was not settled, oldest first."""
        self._closed = " with its transport"
        entries = list(self._unsettled.values())
        self._unsettled.clear()
        return entries


@dataclass(slots=True)
class _Handling:
    """How many copies of a message are yet to be settled."""

    open: int = 0
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class _Entry:
    """A message in one queue."""

    envelope: Envelope
    handling: _Handling | None
    attempt: int = 1
    redeliveries: int = 0


@dataclass(slots=True, eq=False)
class _Queue:
    """What waits, who waits for it, and what is put off."""

    name: str
    ready: deque[_Entry] = field(default_factory=deque[_Entry])
    subscriptions: list[MemorySubscription] = field(default_factory=list[MemorySubscription])
    delivery_limit: int = 20
    owner: str = ""
    dead: _Queue | None = None
    _waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])
    _put_off: dict[_Entry, tuple[float, asyncio.TimerHandle]] = field(
        default_factory=dict[_Entry, tuple[float, asyncio.TimerHandle]]
    )

    def put(self, entry: _Entry) -> None:
        self.ready.append(entry)
        if self._waiting:
            self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in self._waiting:
                self._waiting.remove(future)
            raise

    def put_later(self, entry: _Entry, after: timedelta) -> None:
        entry.attempt += 1
        self._start_timer(entry, time.monotonic() + after.total_seconds())

    def _start_timer(self, entry: _Entry, due: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, due - time.monotonic()), self._put_now, entry)
        self._put_off[entry] = (due, timer)

    def _put_now(self, entry: _Entry) -> None:
        self._put_off.pop(entry, None)
        self.put(entry)

    def bury(self, entry: _Entry, reason: str, detail: str) -> None:
        headers = {
            **entry.envelope.headers,
            DEAD_LETTER_REASON: reason,
            DEAD_LETTER_DETAIL: detail,
            DEAD_LETTER_QUEUE: self.name,
            DEAD_LETTER_TIME: datetime.now(UTC).isoformat(),
        }
        if self.dead is not None:
            self.dead.put(_Entry(replace(entry.envelope, headers=headers), None))
        if entry.handling is not None:
            entry.handling.settle()

    def suspend(self) -> None:
        """Take back what is in flight and stop the timers."""
        returned = [entry for subscription in self.subscriptions for entry in subscription.give_back()]
        self.subscriptions.clear()
        self._return_to_head(returned)
        for _, timer in self._put_off.values():
            timer.cancel()
        self.wake()

    def resume(self) -> None:
        """Start the timers again, on the loop that runs now."""
        for entry, (due, timer) in list(self._put_off.items()):
            timer.cancel()
            self._start_timer(entry, due)

    def _return_to_head(self, entries: Iterable[_Entry]) -> None:
        alive: list[_Entry] = []
        for entry in entries:
            entry.redeliveries += 1
            if entry.redeliveries > self.delivery_limit:
                self.bury(entry, "delivery-limit", f"came back {entry.redeliveries} times")
            else:
                alive.append(entry)
        self.ready.extendleft(reversed(alive))
