"""A transport around another, for what changes some of what passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from messaging.errors import PublishError
from messaging.transport import Outgoing, Promises, QueueSpec, Subscription, Transport


class TransportAround:
    """Hands everything on to the transport inside; to be subclassed by what does not."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def inner(self) -> Transport:
        """The transport inside."""
        return self._transport

    @property
    def promises(self) -> Promises:
        """Those of the transport inside."""
        return self._transport.promises

    def full_name(self, queue: str) -> str:
        """The queue's name on the wire."""
        return self._transport.full_name(queue)

    async def open(self) -> None:
        """Open the transport inside."""
        await self._transport.open()

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Create queues, exchanges and bindings."""
        await self._transport.declare(queues)

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish all, pipelined."""
        return await self._transport.publish(messages, timeout=timeout)

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> Subscription:
        """Consume a declared queue."""
        return await self._transport.subscribe(queue, prefetch_messages=prefetch_messages)

    async def close(self) -> None:
        """Close the transport inside."""
        await self._transport.close()


def bare(transport: Transport) -> Transport:
    """The transport inside all that stand around it."""
    while isinstance(transport, TransportAround):
        transport = transport.inner
    return transport
