"""Our transports keep what every transport keeps; which they are, `conftest.py` says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from messaging.coalescing import Coalescing
from messaging.dialects import Speaking
from messaging.errors import PublishError, TransportError, Unroutable
from messaging.memory import MemoryTransport
from messaging.splitting import subscribed
from messaging.testing.transports import TransportBackend, TransportSuite
from messaging.testing.transports.backend import a_message, bodies, send, take
from messaging.testing.transports.consuming import ConsumingSuite
from messaging.testing.transports.publishing import PublishingSuite
from messaging.testing.transports.routing import RoutingSuite
from messaging.transport import Outgoing, Promises, QueueSpec, Subscription


class TestTransports(TransportSuite):
    """The suite that others run on theirs."""


class SpeakingBackend(TransportBackend):
    transport: Speaking

    def __init__(self) -> None:
        self.transport = Speaking(MemoryTransport())

    async def restarted(self) -> Speaking:
        await self.transport.close()
        await self.transport.open()
        return self.transport


class TestSpeaking(TransportSuite):
    """A transport before which another stands keeps what it kept."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[SpeakingBackend]:
        backend = SpeakingBackend()
        await backend.transport.open()
        yield backend
        await backend.close()


class JoiningAndSplitting(Coalescing):
    """As a process has it whose settings name queues, and whose services and orchestrators take batches apart."""

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> Subscription:
        return await subscribed(self.inner, queue, prefetch_messages=prefetch_messages)


class CoalescingBackend(TransportBackend):
    transport: JoiningAndSplitting

    def __init__(self) -> None:
        self.transport = JoiningAndSplitting(MemoryTransport(), {"orders"})

    async def restarted(self) -> JoiningAndSplitting:
        await self.transport.close()
        await self.transport.open()
        return self.transport


class TestCoalescing(PublishingSuite, ConsumingSuite, RoutingSuite):
    """Plain messages between batches are kept as well as without."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[CoalescingBackend]:
        backend = CoalescingBackend()
        await backend.transport.open()
        yield backend
        await backend.close()


class Modest(MemoryTransport):
    """Keeps as little as a transport may: what comes last is delivered first, nothing is bound, nothing unroutable."""

    @property
    def promises(self) -> Promises:
        return Promises(
            survives_restart=False,
            keeps_order=False,
            broadcasts=False,
            delays=False,
            detects_unroutable=False,
            dead_letters=False,
        )

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        if any(queue.bindings for queue in queues):
            raise TransportError("there are no exchanges here")
        await super().declare(queues)

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        outcomes = await super().publish(messages[::-1], timeout=timeout)
        return [None if isinstance(outcome, Unroutable) else outcome for outcome in reversed(outcomes)]


class ModestBackend(TransportBackend):
    counts_redeliveries = False
    transport: Modest

    def __init__(self) -> None:
        self.transport = Modest()

    async def restarted(self) -> Modest:
        await self.transport.close()
        await self.transport.open()
        return self.transport


class TestModest(TransportSuite):
    """The suite asks of a transport no more than it promises."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[ModestBackend]:
        backend = ModestBackend()
        await backend.transport.open()
        yield backend
        await backend.close()


async def test_in_memory_what_is_put_off_waits_on_after_the_transport_was_closed() -> None:
    transport = MemoryTransport()
    await transport.declare([QueueSpec("orders")])
    await send(transport, a_message(b"patience"), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=1)
    (delivery,) = await take(subscription, 1)
    await subscription.retry_later(delivery, timedelta(milliseconds=50))
    await transport.close()
    await transport.open()

    subscription = await transport.subscribe("orders", prefetch_messages=1)
    assert bodies(await take(subscription, 1)) == [b"patience"]
