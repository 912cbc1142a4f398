"""Transports to hold the suite against, each with the way to restart it and to leave nothing behind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from messaging.dead_letters import TransportWithDeadLetters
from messaging.memory import MemoryTransport
from messaging.rabbitmq import RabbitTransport
from messaging.rabbitmq.topology import DELAY_STEPS
from messaging.redis import RedisTransport
from messaging.testing import transports as testing
from messaging.testing.transports.backend import SOON, a_message, bodies, eventually, send, take
from messaging.transport import Binding
from tests.support.broker import Broker

__all__ = [
    "SOON",
    "MemoryBackend",
    "RabbitBackend",
    "RedisBackend",
    "TransportBackend",
    "a_message",
    "bodies",
    "eventually",
    "remove_afterwards",
    "send",
    "take",
]


class TransportBackend(testing.TransportBackend):
    """One of ours, whose dead letters can be looked at as well."""

    transport: TransportWithDeadLetters

    @abstractmethod
    async def restarted(self) -> TransportWithDeadLetters: ...


class MemoryBackend(TransportBackend):
    def __init__(self) -> None:
        self.transport = MemoryTransport()

    async def restarted(self) -> TransportWithDeadLetters:
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

    @property
    def counts_redeliveries(self) -> bool:  # type: ignore[override]
        return not self.is_classic

    def will_use_exchange(self, name: str) -> None:
        self._broker.exchange(self._prefix + name)

    async def restarted(self) -> TransportWithDeadLetters:
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

    async def restarted(self) -> TransportWithDeadLetters:
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
