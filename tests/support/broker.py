"""A broker as tests use it: names of their own, removed when the test is over."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelClosed

from messaging.rabbitmq.topology import DELAY_STEPS


class Broker:
    """Remembers the queues and exchanges a test uses, and deletes them at its end.

    RabbitMQ lists its queues only through a plugin we do not ask for, so whatever a test declares, by its own hands
    or by the code under test, is to be named here:

        queue = broker.queue(f"{prefix}orders")
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._queues: list[str] = []
        self._exchanges: list[str] = []
        self._connection: AbstractConnection | None = None

    def queue(self, name: str) -> str:
        """Have this queue deleted at the end, if it exists by then; returns the name."""
        self._queues.append(name)
        return name

    def service_queue(self, name: str) -> str:
        """Have a service's queue deleted at the end, with its dead letters and what was put off; returns the name."""
        self.queue(f"{name}.dead")
        for step in DELAY_STEPS:
            self.queue(f"{name}.delay.{round(step.total_seconds() * 1000)}")
        return self.queue(name)

    def exchange(self, name: str) -> str:
        """Have this exchange deleted at the end, if it exists by then; returns the name."""
        self._exchanges.append(name)
        return name

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with what is in it; nothing happens when there is none."""
        channel = await self._channel()
        await channel.queue_delete(name)
        await channel.close()

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange; nothing happens when there is none."""
        channel = await self._channel()
        await channel.exchange_delete(name)
        await channel.close()

    async def depth(self, name: str) -> int | None:
        """How many messages are ready in a queue, without those at a consumer; None when there is no such queue."""
        channel = await self._channel()
        try:
            queue = await channel.declare_queue(name, passive=True)
        except ChannelClosed:
            return None
        await channel.close()
        return queue.declaration_result.message_count

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._queues:
            await self.delete_queue(name)
            await self.delete_exchange(f"{name}.owner")  # the mark of a queue that has an owner
        for name in self._exchanges:
            await self.delete_exchange(name)
        if self._connection is not None:
            await self._connection.close()

    async def _channel(self) -> AbstractChannel:
        """A channel of its own for each operation: the broker closes it when it refuses one."""
        if self._connection is None or self._connection.is_closed:
            self._connection = await aio_pika.connect(self.url)
        return await self._connection.channel()
