"""One consumer of one queue, kept alive over everything that can happen to it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from messaging.backoff import Backoff
from messaging.envelope import Destination
from messaging.errors import NotConfirmed, TransportError
from messaging.redis import fields
from messaging.redis.consumer import Arrival, Consumer
from messaging.redis.server import SERVER_ERRORS, Client
from messaging.redis.topology import Topology
from messaging.transport import Delivery

log = logging.getLogger(__name__)

_BLOCK: Final = timedelta(seconds=1)
_HEARTBEAT_SECONDS: Final = 1.0
_CLAIM_SECONDS: Final = 1.0
_CLAIMED_AT_ONCE: Final = 200
_STOP_SECONDS: Final = 5.0


class _NoSuchQueue(TransportError):
    """There is nothing to consume."""


class _HeldForDead(TransportError):
    """Others have taken over what we had in hand."""


class RedisSubscription:
    """Fills its buffer from the group of its queue; nothing is decoded before it is taken.

    Each life has a consumer name of its own. When one ends, the next leaves what its predecessor had to
    anybody, itself included; so what was unsettled comes again at once, with its delivery count one higher.
    """

    def __init__(
        self, queue: str, *, prefetch_messages: int, client: Client, topology: Topology, dead_after: timedelta
    ) -> None:
        self._name, self._keys = queue, topology.keys.queue(queue)
        self._prefetch = prefetch_messages
        self._client, self._topology, self._dead_after = client, topology, dead_after
        self._reader = Client(client.server, at_most=1)
        self._block = min(_BLOCK, client.server.answer_timeout / 2)
        self._id = uuid.uuid4().hex
        self._buffer: deque[Arrival] = deque()
        self._held: dict[int, Arrival] = {}
        self._owed: dict[bytes, bytes] = {}
        self._tag = 0
        self._epoch = 0
        self._consumer: Consumer | None = None
        self._previous = ""
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._reader_id = 0
        self._filled, self._freed, self._hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._started: asyncio.Future[None] | None = None
        self._last_error = "not connected yet"
        self._closed = False

    @property
    def queue(self) -> str:
        """The queue's full name."""
        return self._keys.stream

    @property
    def epoch(self) -> int:
        """Rises with every life: what was unsettled before comes again."""
        return self._epoch

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be closed."""
        return self._closed and self._task is None

    async def start(self, patience: timedelta) -> None:
        """Begin to consume.

        Raises:
            TransportError: there is no such queue, or it did not come to that within `patience`.
        """
        self._started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_consuming(), name=f"redis consumer of {self.queue}")
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await asyncio.shield(self._started)
        except BaseException as problem:
            await self.end()
            if not isinstance(problem, TimeoutError):
                raise
            raise TransportError(
                f"queue {self.queue!r} could not be consumed within {patience.total_seconds():g} s: {self._last_error}."
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
            raise TransportError(f"the subscription of queue {self.queue!r} is closed.")
        buffer = self._buffer
        return [self._delivery(buffer.popleft()) for _ in range(min(limit, len(buffer)))]

    def _delivery(self, arrival: Arrival) -> Delivery:
        self._tag += 1
        self._held[self._tag] = arrival
        envelope, attempt, problem = fields.decoded(fields.by_name(arrival.fields))
        redelivered = arrival.deliveries > 1
        return Delivery(envelope, self._name, self._tag, self._epoch, attempt, redelivered, problem)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle as handled. What cannot be told now is told as soon as the server is back."""
        for delivery in deliveries:
            if (arrival := self._in_hand(delivery)) is not None:
                del self._held[delivery.tag]
                self._owed[arrival.entry] = _handling(arrival)
        consumer = self._consumer
        if consumer is not None and self._owed:
            with suppress(*SERVER_ERRORS):
                await self._pay(consumer)
            await self._has_settled()

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """Keep it among the delayed messages of the queue until it is due, then settle it: both in one step."""
        arrival, consumer = self._in_hand(delivery), self._consumer
        if arrival is not None and consumer is not None:
            await self._moved(delivery, consumer.put_off(arrival.entry, delivery.attempt + 1, after, _part(delivery)))
            self._hurry.set()

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        """Move it to the dead letters in one step."""
        arrival, consumer = self._in_hand(delivery), self._consumer
        if arrival is not None and consumer is not None:
            await self._moved(delivery, consumer.bury(arrival.entry, reason, detail, _part(delivery)))

    async def backlog(self) -> int:
        """How many messages are ready in the server or in the buffer and not yet taken."""
        consumer = self._consumer or self._new_consumer()
        try:
            async with asyncio.timeout(self._client.server.answer_timeout.total_seconds()):
                return await consumer.backlog() + len(self._buffer)
        except SERVER_ERRORS as problem:
            raise TransportError(
                f"the backlog of queue {self.queue!r} is not known: {self._client.server.told(problem)}."
            ) from problem

    async def close(self) -> None:
        """Receive no more and give back what was not taken; what was taken can still be settled."""
        if self._closed:
            return
        await self._stop_reading()
        self._buffer.clear()
        if self._consumer is not None:
            with suppress(*SERVER_ERRORS):
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._consumer.give_back([arrival.entry for arrival in self._held.values()])
        await self._has_settled()

    async def end(self) -> None:
        """Close with the transport: what is unsettled goes back."""
        await self._stop_reading()
        consumer, self._consumer = self._consumer, None
        await self._stop()
        if consumer is not None:
            with suppress(*SERVER_ERRORS):
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._pay(consumer)
                    await consumer.depart()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=_STOP_SECONDS)
        await self._reader.close()

    async def _stop_reading(self) -> None:
        """Let the read that waits end by itself: cancelled, it could still be given messages."""
        self._closed = True
        for event in (self._filled, self._freed):
            event.set()
        reading = self._reading
        if reading is not None and not reading.done():
            with suppress(*SERVER_ERRORS):
                async with asyncio.timeout(self._block.total_seconds()):
                    await self._client.command("CLIENT", "UNBLOCK", self._reader_id)
            await asyncio.wait([reading], timeout=self._block.total_seconds() + 1)

    def _in_hand(self, delivery: Delivery) -> Arrival | None:
        arrival = self._held.get(delivery.tag) if delivery.epoch == self._epoch else None
        if arrival is None:
            log.info("queue %r: %s was settled before, or will come again", self.queue, delivery.envelope.message_id)
        return arrival

    async def _moved(self, delivery: Delivery, moving: Awaitable[bool]) -> None:
        try:
            async with asyncio.timeout(self._client.server.answer_timeout.total_seconds()):
                await moving
        except SERVER_ERRORS as problem:
            raise NotConfirmed(
                delivery.envelope.message_id, str(Destination(self.queue)), self._client.server.told(problem)
            ) from problem
        if delivery.part is None:
            self._held.pop(delivery.tag, None)
            await self._has_settled()

    async def _pay(self, consumer: Consumer) -> None:
        """Acknowledge what is settled."""
        owed = dict(self._owed)
        if owed:
            await consumer.ack(list(owed.items()))
            for entry in owed:
                self._owed.pop(entry, None)

    async def _has_settled(self) -> None:
        self._freed.set()
        if self._closed and not self._held and not self._owed and self._consumer is not None:
            await self.end()

    def _new_consumer(self) -> Consumer:
        return Consumer(self._client, self._keys, f"{self._id}.{self._epoch + 1}", self._dead_after)

    async def _keep_consuming(self) -> None:
        backoff = Backoff()
        while not self._closed:
            began = asyncio.get_running_loop().time()
            try:
                await self._live()
            except _NoSuchQueue as problem:
                self._refuse(problem)
                self._last_error = str(problem)
            except (TransportError, *SERVER_ERRORS) as problem:
                self._last_error = self._client.server.told(problem)
            self._abandon()
            if asyncio.get_running_loop().time() - began > 2.0:
                backoff.reset()
            if not self._closed:
                log.warning("queue %r: %s; consuming again", self.queue, self._last_error)
                await asyncio.sleep(backoff.next())

    def _refuse(self, problem: TransportError) -> None:
        if self._started is not None and not self._started.done():
            self._started.set_exception(problem)

    async def _live(self) -> None:
        """Live through one consumer's life, which ends by an error, or with the subscription."""
        consumer = await self._joined()
        self._reading = asyncio.create_task(self._keep_reading(consumer))
        keeping = asyncio.create_task(self._keep_alive(consumer))
        try:
            await asyncio.wait([self._reading, keeping], return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (self._reading, keeping):
                task.cancel()
            problems = await asyncio.gather(self._reading, keeping, return_exceptions=True)
        for problem in problems:
            if isinstance(problem, Exception):
                raise problem

    async def _joined(self) -> Consumer:
        if self._epoch:
            await self._topology.restore()
        consumer = self._new_consumer()
        if not await consumer.join(self._previous):
            raise _NoSuchQueue(f"queue {self.queue!r} does not exist. Declare it before consuming it.")
        self._previous = consumer.name
        self._reader_id = int(await self._reader.command("CLIENT", "ID"))
        self._epoch += 1
        self._consumer = consumer
        await self._pay(consumer)
        if self._started is not None and not self._started.done():
            self._started.set_result(None)
        return consumer

    def _abandon(self) -> None:
        self._consumer = None
        self._buffer.clear()
        if self._held:
            log.info("queue %r: %d unsettled deliveries will come again", self.queue, len(self._held))
        self._held.clear()

    async def _keep_reading(self, consumer: Consumer) -> None:
        loop = asyncio.get_running_loop()
        claim_at = loop.time()
        while not self._closed:
            room = self._prefetch - len(self._buffer) - len(self._held)
            if room <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            if loop.time() >= claim_at:
                arrivals = await consumer.claim(min(room, _CLAIMED_AT_ONCE))
                claim_at = loop.time() if arrivals else loop.time() + _CLAIM_SECONDS
            else:
                arrivals = await consumer.read(self._reader, room, self._block)
            if arrivals:
                self._buffer.extend(arrivals)
                self._filled.set()

    async def _keep_alive(self, consumer: Consumer) -> None:
        while True:
            self._hurry.clear()
            await self._pay(consumer)
            alive, next_due = await consumer.keep()
            if not alive:
                raise _HeldForDead(
                    f"nothing was heard of us for {self._dead_after.total_seconds():g} s, or the queue was deleted"
                )
            seconds = min(_HEARTBEAT_SECONDS, self._dead_after.total_seconds() / 4)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds if next_due is None else min(seconds, next_due.total_seconds())):
                    await self._hurry.wait()


def _handling(arrival: Arrival) -> bytes:
    return fields.by_name(arrival.fields).get(fields.HANDLING, b"")


def _part(delivery: Delivery) -> list[bytes]:
    """The fields of a part, which the server does not have by themselves; of a whole delivery none."""
    if delivery.part is None:
        return []
    envelope = delivery.envelope
    encoded = fields.encoded(envelope, envelope.app_id, Destination(delivery.queue))
    return [*encoded, fields.PUT_OFF, b".%d" % delivery.part.number]
