"""Where a bus hears the answers to its requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator
from typing import Final

from messaging import envelope as wire
from messaging.envelope import Envelope
from messaging.errors import TransportError
from messaging.splitting import subscribed
from messaging.transport import Delivery, QueueSpec, Subscription, Transport

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 100


class Replies:
    """The queue on which one bus hears the answers to its requests, from the first request on."""

    def __init__(self, transport: Transport, spec: QueueSpec) -> None:
        self._transport, self._spec, self._queue = transport, spec, spec.name
        self._awaited: dict[str, asyncio.Future[Envelope]] = {}
        self._subscription: Subscription | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def listen(self) -> str:
        """Return the full name of the queue, declared and consumed."""
        async with self._starting:
            if self._subscription is None:
                await self._transport.declare([self._spec])
                self._subscription = await subscribed(self._transport, self._queue, prefetch_messages=_AT_ONCE)
                self._reading = asyncio.create_task(self._read(self._subscription))
        return self._transport.full_name(self._queue)

    @contextlib.contextmanager
    def expected(self, message_id: str) -> Generator[asyncio.Future[Envelope]]:
        """Give a future for the answer to this message."""
        future = self._awaited[message_id] = asyncio.get_running_loop().create_future()
        try:
            yield future
        finally:
            del self._awaited[message_id]

    async def _read(self, subscription: Subscription) -> None:
        with contextlib.suppress(TransportError):
            while True:
                deliveries = await subscription.take(_AT_ONCE)
                for delivery in deliveries:
                    self._hear(delivery)
                await subscription.ack(deliveries)

    def _hear(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        future = self._awaited.get(envelope.correlation_id)
        if future is None or future.done():
            logger.info("A reply to %s came after nobody waited for it", envelope.correlation_id)
        elif envelope.text_header(wire.OUTCOME) != wire.ACCEPTED:  # accepted: it goes on, and so do we
            future.set_result(envelope)

    async def close(self) -> None:
        """Stop reading."""
        subscription, self._subscription = self._subscription, None
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        if subscription is not None:
            await subscription.close()
