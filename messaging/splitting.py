"""Taking batches apart where they are consumed: whoever handles, answers, puts off or settles sees plain messages."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from messaging.backoff import Backoff
from messaging.batches import BATCH, items_in
from messaging.envelope import to_queue
from messaging.errors import DecodeError
from messaging.transport import Delivery, Outgoing, Part, Subscription, Transport

logger = logging.getLogger(__name__)

_PUBLISH_TIMEOUT: Final = timedelta(seconds=15)
_CLOSES_WITHIN: Final = timedelta(seconds=5)


async def subscribed(transport: Transport, queue: str, *, prefetch_messages: int) -> Subscription:
    """Consume a declared queue, batches in it as the messages they hold; see `Transport.subscribe`.

    The prefetch counts a batch as one message.
    """
    subscription = await transport.subscribe(queue, prefetch_messages=prefetch_messages)
    return Splitting(subscription, transport) if transport.promises.parts else subscription


@dataclass(slots=True)
class _Batch:
    """A batch whose items are being handled."""

    delivery: Delivery
    unsettled: set[int]


class Splitting:
    """Another subscription, whose batches are delivered item by item, and settled when their last item is.

    A batch that comes again is not handled: its items are published plain to its queue, and it is settled. So
    whatever killed its consumer is alone the next time. A batch that cannot be read is delivered as it is, with why.
    """

    def __init__(self, subscription: Subscription, transport: Transport) -> None:
        self._inner, self._transport = subscription, transport
        self._ready: deque[Delivery] = deque()
        """What was taken and not yet handed on: the rest of one batch."""
        self._open: dict[int, _Batch] = {}
        self._open_epoch = subscription.epoch
        self._leaving: set[asyncio.Task[None]] = set()
        self._items_leaving = 0
        self._moves = 0

    @property
    def queue(self) -> str:
        """The queue's full name."""
        return self._inner.queue

    @property
    def epoch(self) -> int:
        """Rises also when items go to the queue's end: they come again, after what was there."""
        return self._inner.epoch + self._moves

    async def take(self, limit: int) -> list[Delivery]:
        """Wait until something is there, then return at most `limit` of it."""
        while not (taken := self.take_nowait(limit)):
            for delivery in await self._inner.take(1):
                self._came(delivery)
        return taken

    def take_nowait(self, limit: int) -> list[Delivery]:
        """Return at most `limit` of what is there right now."""
        self._forget_past()
        taken: list[Delivery] = []
        while len(taken) < limit:
            if self._ready:
                taken.append(self._ready.popleft())
            elif came := self._inner.take_nowait(1):
                self._came(came[0])
            else:
                break
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle as handled; a batch, when its last item is."""
        done = [whole for delivery in deliveries if (whole := self._settled(delivery)) is not None]
        if done:
            await self._inner.ack(done)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """Have it delivered again later; an item, as a plain message."""
        if self._is_unsettled(delivery):
            await self._inner.retry_later(delivery, after)
            await self._has_left(delivery)

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        """Move it to the dead letters; an item, as a plain message."""
        if self._is_unsettled(delivery):
            await self._inner.dead_letter(delivery, reason, detail)
            await self._has_left(delivery)

    async def backlog(self) -> int:
        """How many are not yet taken; batches that nobody has looked into count as one."""
        return await self._inner.backlog() + len(self._ready) + self._items_leaving

    async def close(self) -> None:
        """Stop receiving; of a batch that was taken in part, the rest leaves plain."""
        await self._inner.close()
        self._forget_past()
        if self._ready:
            await self._publish_rest()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_CLOSES_WITHIN.total_seconds())
        for task in self._leaving:
            task.cancel()

    # -- batches

    def _came(self, delivery: Delivery) -> None:
        self._forget_past()  # before it is kept: it may be the first of a new connection
        if delivery.problem or delivery.envelope.content_type != BATCH:
            self._ready.append(delivery)
            return
        try:
            envelopes = items_in(delivery.envelope)
        except DecodeError as error:
            self._ready.append(replace(delivery, problem=error.problem))
            return
        of = len(envelopes)
        items = [
            Delivery(envelope, delivery.queue, delivery.tag, delivery.epoch, part=Part(number, of))
            for number, envelope in enumerate(envelopes, start=1)
        ]
        if delivery.redelivered:
            self._start_leaving(delivery, items)
        else:
            self._open[delivery.tag] = _Batch(delivery, set(range(1, of + 1)))
            self._ready.extend(items)

    def _forget_past(self) -> None:
        """What was unsettled on a lost connection comes again, whole."""
        if self._open_epoch != self._inner.epoch:
            self._open_epoch = self._inner.epoch
            self._open.clear()
            self._ready.clear()

    def _batch_of(self, delivery: Delivery) -> _Batch | None:
        """The batch that an unsettled item came in; None for everything else."""
        batch = self._open.get(delivery.tag)
        if batch is None or delivery.part is None or batch.delivery.epoch != delivery.epoch:
            return None
        return batch if delivery.part.number in batch.unsettled else None

    def _is_unsettled(self, delivery: Delivery) -> bool:
        return delivery.part is None or self._batch_of(delivery) is not None

    def _settled(self, delivery: Delivery) -> Delivery | None:
        """What the broker is to be told now: itself, the batch whose last unsettled item it was, or nothing."""
        if delivery.part is None:
            return delivery
        batch = self._batch_of(delivery)
        if batch is None:
            return None
        batch.unsettled.remove(delivery.part.number)
        if batch.unsettled:
            return None
        del self._open[delivery.tag]
        return batch.delivery

    async def _has_left(self, delivery: Delivery) -> None:
        if delivery.part is not None:
            await self.ack([delivery])

    # -- leaving as plain messages

    def _start_leaving(self, batch: Delivery, items: Sequence[Delivery]) -> None:
        logger.info(
            "Batch %s of queue %s came again; its %d messages go back one by one",
            *(batch.envelope.message_id, self.queue, len(items)),
        )
        self._items_leaving += len(items)
        self._moves += 1
        # Beside consuming: where the queue is full, only taking from it makes room.
        task = asyncio.create_task(self._leave(batch, items))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, batch: Delivery, items: Sequence[Delivery]) -> None:
        backoff, left = Backoff(), items
        try:
            while left := await self._published(left):
                await asyncio.sleep(backoff.next())
                if batch.epoch != self._inner.epoch:
                    return  # it comes again, and its items once more
            await self._inner.ack([batch])
        finally:
            self._items_leaving -= len(items)
            self._moves += 1

    async def _publish_rest(self) -> None:
        rest, self._ready = list(self._ready), deque[Delivery]()
        left = await self._published(rest, _CLOSES_WITHIN)
        await self.ack([delivery for delivery in rest if delivery not in left])

    async def _published(self, items: Sequence[Delivery], timeout: timedelta = _PUBLISH_TIMEOUT) -> list[Delivery]:
        """Publish them plain to their queue, and return those that are not confirmed."""
        plain = [Outgoing(item.envelope, to_queue(item.queue)) for item in items]
        outcomes = await self._transport.publish(plain, timeout=timeout)
        failed = [(item, error) for item, error in zip(items, outcomes, strict=True) if error is not None]
        if failed:
            logger.warning("%s. %d messages of a batch are still to go back.", failed[0][1], len(failed))
        return [item for item, _ in failed]
