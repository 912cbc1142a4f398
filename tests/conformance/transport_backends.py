"""Transports to hold the suite against, each with the way to restart it and to leave nothing behind."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from messaging.envelope import Destination, Envelope, to_queue
from messaging.errors import PublishError
from messaging.memory import MemoryTransport
from messaging.rabbitmq import RabbitTransport
from messaging.rabbitmq.topology import DELAY_STEPS
from messaging.redis import RedisTransport
from messaging.transport import Binding, Delivery, Outgoing, QueueSpec, Subscription, Transport
from tests.support.broker import Broker

SOON = timedelta(seconds=10)


class TransportBackend(ABC):
    """A transport, open, that can be closed and opened again with what its queues hold."""

    transport: Transport

    @abstractmethod
    async def restarted(self) -> Transport:
        """Close the transport as a process that ends, and return it as the next process sees it."""

    async def declare(
        self, *names: str, bindings: Sequence[Binding] = (), delivery_limit: int = 20, owner: str = ""
    ) -> None:
        """Declare queues."""
        specs = [QueueSpec(name, tuple(bindings), delivery_limit, owner=owner) for name in names]
        await self.transport.declare(specs)

    async def close(self) -> None:
        """Disconnect."""
        await self.transport.close()


class MemoryBackend(TransportBackend):
    def __init__(self) -> None:
        self.transport = MemoryTransport()

    async def restarted(self) -> Transport:
        await self.transport.close()
        await self.transport.open()
        return self.transport


class RabbitBackend(TransportBackend):
    def __init__(self, url: str, prefix: str, broker: Broker, **options: Any) -> None:
        self._url, self._prefix, self._broker, self._options = url, prefix, broker, options
        self.transport = self.another()

    def another(self) -> RabbitTransport:
        options = {"patience": timedelta(seconds=3), **self._options}
        return RabbitTransport(self._url, prefix=self._prefix, **options)

    @property
    def is_classic(self) -> bool:
        return self._options.get("queue_type") == "classic"

    def removes_exchange(self, name: str) -> None:
        """Have an exchange deleted that the transport declares by itself."""
        self._broker.exchange(self._prefix + name)

    async def restarted(self) -> Transport:
        await self.transport.close()
        self.transport = self.another()
        await self.transport.open()
        return self.transport

    async def declare(
        self, *names: str, bindings: Sequence[Binding] = (), delivery_limit: int = 20, owner: str = ""
    ) -> None:
        for name in names:
            remove_afterwards(self._broker, self._prefix + name)
            if owner:
                self._broker.exchange(f"{self._prefix}{name}.owner")
        for binding in bindings:
            self._broker.exchange(self._prefix + binding.exchange)
        await super().declare(*names, bindings=bindings, delivery_limit=delivery_limit, owner=owner)


class RedisBackend(TransportBackend):
    def __init__(self, url: str, prefix: str, *, survives_restart: bool) -> None:
        self._url, self._prefix, self._survives = url, prefix, survives_restart
        self.transport = self.another()

    def another(self) -> RedisTransport:
        return RedisTransport(
            self._url, prefix=self._prefix, survives_restart=self._survives, patience=timedelta(seconds=3)
        )

    async def restarted(self) -> Transport:
        await self.transport.close()
        self.transport = self.another()
        await self.transport.open()
        return self.transport


def remove_afterwards(broker: Broker, queue: str) -> None:
    """Have a queue removed with all that the transport declares for it."""
    for name in (
        queue,
        f"{queue}.dead",
        *(f"{queue}.delay.{round(s.total_seconds() * 1000)}" for s in DELAY_STEPS[:6]),
    ):
        broker.queue(name)


def a_message(body: bytes = b"{}", *, message_id: str = "", **properties: Any) -> Envelope:
    return Envelope(message_id or str(uuid.uuid4()), body, **properties)


async def send(
    transport: Transport, *envelopes: Envelope, to: str | Destination, timeout: timedelta = SOON
) -> list[PublishError | None]:
    destination = to_queue(to) if isinstance(to, str) else to
    return await transport.publish([Outgoing(envelope, destination) for envelope in envelopes], timeout=timeout)


async def take(subscription: Subscription, count: int, *, within: timedelta = SOON) -> list[Delivery]:
    """Exactly `count` deliveries, or a failure that says how many came."""
    taken: list[Delivery] = []
    try:
        async with asyncio.timeout(within.total_seconds()):
            while len(taken) < count:
                taken += await subscription.take(count - len(taken))
    except TimeoutError:
        raise AssertionError(f"{len(taken)} of {count} came within {within}") from None
    return taken


async def eventually(condition: Callable[[], bool | Awaitable[bool]], what: str, *, within: timedelta = SOON) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within.total_seconds()
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within}: {what}")
        await asyncio.sleep(0.01)


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.envelope.body for delivery in deliveries]
