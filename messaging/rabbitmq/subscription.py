"""One consumer of one queue, kept alive over everything that can happen to it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from messaging.backoff import Backoff
from messaging.dead_letter_notes import Notes
from messaging.envelope import Destination
from messaging.errors import TopologyMismatch, TransportError
from messaging.rabbitmq import properties, wire
from messaging.rabbitmq.connection import CLOSE_SECONDS, Link
from messaging.rabbitmq.consumers import Arrival, Consumer, opened_consumer, taken_apart
from messaging.rabbitmq.lines import RETURNED, Parcel
from messaging.rabbitmq.losses import BROKER_ERRORS, keeps_on, told
from messaging.rabbitmq.publisher import Publisher, error_of
from messaging.rabbitmq.refusals import remedy_for_lost_channel
from messaging.rabbitmq.topology import Topology
from messaging.rabbitmq.watermark import Watermark
from messaging.transport import Delivery

log = logging.getLogger(__name__)

_MOVE_TIMEOUT = timedelta(seconds=30)


@dataclass(slots=True)
class Caution:
    """How many messages to ask for at a time.

    A message that ends the connection comes again, and everything else that was under way comes with it,
    each time nearer to the broker's delivery limit. After two lives without anything settled the
    subscription takes messages one by one, so that only the culprit gets there, until as many are settled
    as could have been under way with it.
    """

    prefetch_messages: int
    fruitless_lives: int = 0
    singly: int = 0
    """How many more to take one at a time."""

    @property
    def messages(self) -> int:
        """The prefetch to use now."""
        return 1 if self.singly else self.prefetch_messages

    def lost(self, *, settled: int) -> None:
        """A life has ended in which so many were settled."""
        self.fruitless_lives = 0 if settled else self.fruitless_lives + 1
        if self.fruitless_lives >= 2 and self.prefetch_messages > 1:
            self.singly = self.prefetch_messages

    def settled(self, count: int) -> bool:
        """Returns whether it is time to take many at a time again."""
        if not self.singly:
            return False
        self.singly = max(0, self.singly - count)
        return self.singly == 0


class RabbitSubscription:
    """Fills its buffer from a channel of its own; nothing is decoded before it is taken."""

    def __init__(
        self,
        queue: str,
        *,
        prefetch_messages: int,
        link: Link,
        topology: Topology,
        publisher: Publisher,
    ) -> None:
        self._name = queue
        self._full = topology.full(queue)
        self._link, self._topology, self._publisher = link, topology, publisher
        self._caution = Caution(prefetch_messages)
        self._buffer: deque[Arrival] = deque()
        self._unsettled: Watermark[Arrival] = Watermark()
        self._settled_in_this_life = 0
        self._epoch = 0
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()
        self._consuming = asyncio.Event()
        self._last_error = "not connected yet"
        self._closed = False

    @property
    def queue(self) -> str:
        """The queue's full name."""
        return self._full

    @property
    def epoch(self) -> int:
        """Rises with every channel: what was unsettled before comes again."""
        return self._epoch

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be closed."""
        return self._closed and (self._consumer is None or self._consumer.lost.done())

    async def start(self, patience: timedelta) -> None:
        """Begin to consume.

        Raises:
            TransportError: it did not come to that within `patience`; the text says why.
        """
        self._task = asyncio.create_task(self._keep_consuming(), name=f"rabbitmq consumer of {self._full}")
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await self._consuming.wait()
        except BaseException as problem:
            await self.close()
            if not isinstance(problem, TimeoutError):
                raise
            raise TransportError(
                f"queue {self._full!r} could not be consumed within {patience.total_seconds():g} s: "
                f"{self._last_error}. Is it declared?"
            ) from None

    async def take(self, limit: int) -> list[Delivery]:
        """Wait until something is there, then return at most `limit` of it."""
        while not (taken := self.take_nowait(limit)):
            self._filled.clear()
            await self._filled.wait()
        return taken

    def take_nowait(self, limit: int) -> list[Delivery]:
        """Return at most `limit` of what is in the buffer right now."""
        if self._closed:
            raise TransportError(f"the subscription of queue {self._full!r} is closed.")
        buffer = self._buffer
        return [self._delivery(buffer.popleft()) for _ in range(min(limit, len(buffer)))]

    def _delivery(self, arrival: Arrival) -> Delivery:
        envelope, attempt, problem = properties.decoded(taken_apart(arrival.properties), arrival.body)
        return Delivery(envelope, self._name, arrival.tag, self._epoch, attempt, arrival.redelivered, problem)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle as handled; of a channel that is gone, they come again."""
        await self._settle(deliveries)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """Send it through a queue that holds it for the delay, or to the end of its own at once, then settle it.

        Delays are rounded up to a few steps, since each has a queue of its own.
        """
        arrival = self._arrival(delivery)
        if arrival is None:
            return
        moved = properties.put_off(taken_apart(arrival.properties), delivery.attempt + 1, arrival.address)
        outcome = await (self._delayed(arrival, moved, after) if after else self._move(arrival, self._full, moved))
        await self._moved(delivery, "the delay queue" if after else self._full, outcome)

    async def _delayed(self, arrival: Arrival, moved: bytes, after: timedelta) -> str | None:
        queue = await self._topology.delay_queue(self._name, after)
        outcome = await self._move(arrival, queue, moved)
        if outcome == RETURNED:  # it was there a moment ago
            self._topology.forget_delay(queue)
            queue = await self._topology.delay_queue(self._name, after)
            outcome = await self._move(arrival, queue, moved)
        return outcome

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        """Send it to the dead letters, then settle it."""
        arrival = self._arrival(delivery)
        if arrival is None:
            return
        had = taken_apart(arrival.properties)
        notes = Notes(reason, detail, delivery.attempt, self._full, *properties.first_address(had, arrival.address))
        moved = properties.buried(had, notes, max_bytes=self._publisher.max_properties_bytes)
        queue = f"{self._full}.dead"
        outcome = await self._move(arrival, queue, moved)
        if outcome == RETURNED:
            queue = await self._topology.dead_letters(self._name)
            outcome = await self._move(arrival, queue, moved)
        await self._moved(delivery, queue, outcome)

    async def backlog(self) -> int:
        """How many messages are ready in the broker or in the buffer and not yet taken."""
        return await self._topology.count(self._name) + len(self._buffer)

    async def close(self) -> None:
        """Receive no more and give back what was not taken; what was taken can still be settled."""
        if self._closed:
            return
        self._closed = True
        self._filled.set()
        await self._stop_task()
        consumer = self._consumer
        if consumer is not None and not consumer.lost.done():
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await consumer.cancel()
                    await self._give_back_buffer(consumer)
            if not len(self._unsettled):
                await consumer.close()

    async def end(self) -> None:
        """Close with the transport: what is unsettled goes back."""
        self._closed = True
        self._filled.set()
        await self._stop_task()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()

    async def _stop_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=CLOSE_SECONDS)

    async def _give_back_buffer(self, consumer: Consumer) -> None:
        tags = [arrival.tag for arrival in self._buffer]
        self._buffer.clear()
        self._unsettled.settle(tags)
        await consumer.give_back([(tag, False) for tag in tags])

    def _arrival(self, delivery: Delivery) -> Arrival | None:
        """The message as it came, or of a part as if it had come alone; None when of a past channel, or settled."""
        arrival = self._unsettled.kept(delivery.tag) if delivery.epoch == self._epoch else None
        if arrival is None:
            self._log_dropped([delivery])
        elif delivery.part is not None:
            envelope = delivery.envelope
            return arrival._replace(properties=properties.encoded(envelope, envelope.app_id), body=envelope.body)
        return arrival

    async def _move(self, arrival: Arrival, queue: str, moved: bytes) -> str | None:
        message_id = taken_apart(arrival.properties).fields.get(wire.MESSAGE_ID, b"")
        parcel = Parcel(message_id, "", queue, True, moved, arrival.body)
        return await self._publisher.move(parcel, _MOVE_TIMEOUT)

    async def _moved(self, delivery: Delivery, queue: str, outcome: str | None) -> None:
        """Settle what has been moved; a part leaves what it came with unsettled."""
        if outcome is not None:
            raise error_of(delivery.envelope.message_id, str(Destination(queue)), outcome)
        if delivery.part is None:
            await self._settle([delivery])

    async def _settle(self, deliveries: Sequence[Delivery]) -> None:
        consumer, epoch = self._consumer, self._epoch
        current = [delivery.tag for delivery in deliveries if delivery.epoch == epoch]
        acks = self._unsettled.settle(current) if consumer is not None else []
        if consumer is None or len(current) < len(deliveries) or (current and not acks):
            self._log_dropped(deliveries)
        if consumer is None or not acks:
            return
        self._settled_in_this_life += len(current)
        try:
            await consumer.acknowledge(acks)
        except BROKER_ERRORS:
            self._log_dropped(deliveries)
            return
        if self._closed and not len(self._unsettled):
            await consumer.close()
        elif self._caution.settled(len(current)):
            await consumer.close()  # and start again, many at a time

    def _log_dropped(self, deliveries: Sequence[Delivery]) -> None:
        log.info(
            "queue %r: %d deliveries of a lost channel cannot be settled and will come again: %s",
            self._full,
            len(deliveries),
            ", ".join(delivery.envelope.message_id for delivery in deliveries[:5]),
        )

    async def _keep_consuming(self) -> None:
        backoff = Backoff()
        while True:
            try:
                reason = await self._consume()
            except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - see `keeps_on`
                keeps_on(problem)
                reason = told(problem)
            self._last_error = self._link.broker.masked(reason)
            remedy = remedy_for_lost_channel(reason)
            log.warning("queue %r: %s; consuming again.%s", self._full, self._last_error, remedy)
            if self._settled_in_this_life:
                backoff.reset()
            self._settled_in_this_life = 0
            await asyncio.sleep(backoff.next())

    async def _consume(self) -> str:
        """Live through one channel and return why it ended."""
        session = await self._link.session()
        try:
            await self._topology.restore(self._name)
        except TopologyMismatch as problem:
            log.error("consuming queue %r as it is: %s", self._full, problem)  # noqa: TRY400
        self._begin()
        began = False
        try:
            # In place before it is started: a delivery may be taken and settled before the broker's answer is read.
            self._consumer = await opened_consumer(session, self._caution.messages, self._arrived)
            await self._consumer.start(self._full)
            began = True
            self._consuming.set()
            return await asyncio.shield(self._consumer.lost)
        finally:
            if not self._closed:
                if began:
                    self._caution.lost(settled=self._settled_in_this_life)
                await self._abandon()

    def _begin(self) -> None:
        self._epoch += 1
        self._buffer.clear()
        self._unsettled.clear()

    async def _abandon(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._buffer.clear()
        self._unsettled.clear()
        if consumer is not None:
            await consumer.close()

    def _arrived(self, arrival: Arrival) -> None:
        self._unsettled.arrived(arrival.tag, arrival)
        self._buffer.append(arrival)
        self._filled.set()
