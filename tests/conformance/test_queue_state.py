"""What a queue is like is told in the same way on every transport, to whoever is connected."""

from __future__ import annotations

from messaging.queue_state import QueueState, TellsOfQueues
from messaging.transport import dead_letter_queue
from tests.conformance.transport_backends import TransportBackend, a_message, eventually, send, take


async def test_a_queue_tells_what_waits_in_it_and_how_many_take_from_it(backend: TransportBackend) -> None:
    transport = backend.transport
    assert isinstance(transport, TellsOfQueues)
    await backend.declare("orders")
    assert await transport.queue_state("orders") == QueueState(ready=0, consumers=0)
    await send(transport, *[a_message() for _ in range(5)], to="orders")

    async def is_so(ready: int, consumers: int) -> bool:
        return await transport.queue_state("orders") == QueueState(ready, consumers)

    await eventually(lambda: is_so(5, 0), "five wait, and nobody takes from it")
    first = await transport.subscribe("orders", prefetch_messages=2)
    second = await transport.subscribe("orders", prefetch_messages=1)
    deliveries = [*await take(first, 2), *await take(second, 1)]
    await eventually(lambda: is_so(2, 2), "two take from it, and have three in hand")

    await first.ack(deliveries[:2])
    await second.ack(deliveries[2:])
    await first.close()
    await second.close()
    await eventually(lambda: is_so(2, 0), "what they did not take is there, and they are gone")
    assert await transport.queue_state(dead_letter_queue("orders")) == QueueState(ready=0, consumers=0)


async def test_a_queue_that_nobody_declared_is_told_to_be_none_and_does_not_come_to_be(
    backend: TransportBackend,
) -> None:
    transport = backend.transport
    assert isinstance(transport, TellsOfQueues)
    assert [await transport.queue_state("nobody") for _ in range(2)] == [None, None]
    await backend.declare("orders")
    assert await transport.queue_state("orders") is not None
