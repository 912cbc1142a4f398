"""What the engine takes from the broker: deliveries of its queues, and whether it has caught up.

Answers are read before timeouts: after a start, a reconnect or an outage, deadlines wait until the
queues were seen empty, or what was ready at that moment is handled, or the catch-up limit has passed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta

from messaging.errors import TransportError
from messaging.transport import Delivery, Subscription

logger = logging.getLogger(__name__)

_EMPTY_LOOKS = 2


class Intake:
    """One queue's deliveries in batches.

    Args:
        subscription: where they come from.
        wake: set whenever something is ready.
        prefetch: how many deliveries may be on their way here, which no count of the broker's shows.
        catch_up_limit: how long deadlines wait at most.
    """

    def __init__(
        self, subscription: Subscription, wake: asyncio.Event, *, prefetch: int, catch_up_limit: timedelta
    ) -> None:
        self.subscription, self._wake, self._prefetch = subscription, wake, prefetch
        self._limit = catch_up_limit.total_seconds()
        self._ready: list[Delivery] = []
        self._taken = asyncio.Event()
        self._epoch = -1
        self._ahead: int | None = None
        self._looked_empty = 0
        self._behind_since = time.monotonic()

    async def pump(self, batch: int) -> None:
        """Move deliveries from the subscription to here, at most two batches ahead; cancel to end."""
        while True:
            while len(self._ready) >= batch:
                self._taken.clear()
                await self._taken.wait()
            taken = await self.subscription.take(batch)
            self._ready.extend(taken)
            self._wake.set()

    def take(self, limit: int) -> list[Delivery]:
        """What is ready now, at most so many."""
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        self._taken.set()
        return taken

    @property
    def empty(self) -> bool:
        """Whether nothing is ready here."""
        return not self._ready

    async def handled(self, deliveries: Sequence[Delivery]) -> None:
        """Settle what is committed."""
        await self.subscription.ack(deliveries)
        self._looked_empty = 0
        if self._ahead is not None:
            # In messages of the broker, as it was counted: a batch is one.
            self._ahead -= sum(delivery.part is None or delivery.part.is_last for delivery in deliveries)

    def fell_behind(self) -> None:
        """Tell that handling stood still for a while: deadlines wait again."""
        self._epoch = -1

    async def caught_up(self) -> bool:
        """Whether answers that were ready when we (re)connected have been handled."""
        if self._epoch != self.subscription.epoch:
            self._epoch, self._ahead, self._behind_since = self.subscription.epoch, None, time.monotonic()
            self._looked_empty = 0
        if self._ahead is not None and self._ahead <= 0:
            return True
        if time.monotonic() - self._behind_since > self._limit:
            logger.warning("Queue %s is not caught up after %g s; deadlines count again", self._queue, self._limit)
            self._ahead = 0
            return True
        return await self._look()

    async def _look(self) -> bool:
        try:
            backlog = await self.subscription.backlog() + len(self._ready)
        except TransportError:
            return False
        if self._ahead is None:
            self._ahead = backlog + self._prefetch
        # What the broker has just pushed is neither ready there nor arrived here: one look is not enough.
        self._looked_empty = 0 if backlog else self._looked_empty + 1
        if self._looked_empty >= _EMPTY_LOOKS:
            self._ahead = 0
        return self._ahead <= 0

    @property
    def _queue(self) -> str:
        return self.subscription.queue
