"""The fast path on an event loop that is not asyncio's own, as web servers bring along."""

from __future__ import annotations

import asyncio

import uvloop

from messaging.rabbitmq import RabbitTransport
from messaging.transport import QueueSpec
from tests.conformance.transport_backends import a_message, send, take
from tests.support.broker import Broker


def test_messages_go_out_and_come_in_on_uvloop(amqp_url: str, prefix: str, broker: Broker) -> None:
    broker.service_queue(f"{prefix}orders")

    async def one_there_and_back() -> bytes:
        transport = RabbitTransport(amqp_url, prefix=prefix)
        await transport.open()
        await transport.declare([QueueSpec("orders")])
        try:
            subscription = await transport.subscribe("orders", prefetch_messages=1)
            assert await send(transport, a_message(b"on another loop"), to="orders") == [None]
            (delivery,) = await take(subscription, 1)
            await subscription.ack([delivery])
            return delivery.envelope.body
        finally:
            await transport.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(one_there_and_back()) == b"on another loop"
