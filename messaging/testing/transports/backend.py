"""A transport to hold the suite against, and what the suite does with it."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from messaging.envelope import Destination, Envelope, to_queue
from messaging.errors import PublishError
from messaging.transport import Binding, Delivery, Outgoing, QueueSpec, Subscription, Transport

SOON: Final = timedelta(seconds=10)


class TransportBackend(ABC):
    """A transport, open, that can be closed and opened again with what its queues hold.

    Each test gets one whose queues are its own and empty; `declare` and `will_use_exchange` say what it will
    leave behind, for those who have to clean up.
    """

    transport: Transport
    counts_redeliveries: bool = True
    """Whether a message that is never settled is dead-lettered after the queue's `delivery_limit`."""

    @abstractmethod
    async def restarted(self) -> Transport:
        """Close the transport as a process that ends, and return it as the next process sees it."""

    async def declare(
        self, *names: str, bindings: Sequence[Binding] = (), delivery_limit: int = 20, owner: str = ""
    ) -> None:
        """Declare queues."""
        specs = [QueueSpec(name, tuple(bindings), delivery_limit, owner=owner) for name in names]
        await self.transport.declare(specs)

    def in_order(self, *bodies: bytes) -> list[bytes]:
        """Bodies as they came, or sorted where the transport keeps no order, so that both can be compared."""
        return list(bodies) if self.transport.promises.keeps_order else sorted(bodies)

    def will_use_exchange(self, name: str) -> None:  # noqa: B027 - most have nothing to do
        """Be told of an exchange that the transport declares by itself."""

    async def close(self) -> None:
        """Disconnect."""
        await self.transport.close()


def a_message(body: bytes = b"{}", *, message_id: str = "", **properties: Any) -> Envelope:
    """A message with an id, and whatever else it is to have."""
    return Envelope(message_id or str(uuid.uuid4()), body, **properties)


async def send(
    transport: Transport, *envelopes: Envelope, to: str | Destination, timeout: timedelta = SOON
) -> list[PublishError | None]:
    """Publish all to one place."""
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
    """The bodies, in order."""
    return [delivery.envelope.body for delivery in deliveries]
