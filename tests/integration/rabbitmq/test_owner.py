"""A queue that has an owner is not shared with another."""

from __future__ import annotations

import pytest

from messaging.errors import TopologyMismatch
from messaging.rabbitmq import RabbitTransport
from messaging.transport import QueueSpec
from tests.support.broker import Broker


async def test_a_queue_of_one_installation_is_refused_to_another(amqp_url: str, prefix: str, broker: Broker) -> None:
    for name in ("replies", "replies.dead"):
        broker.queue(f"{prefix}{name}")
    broker.exchange(f"{prefix}replies.owner")
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    try:
        await transport.declare([QueueSpec("replies", owner="first")])
        await transport.declare([QueueSpec("replies", owner="first")])
        with pytest.raises(TopologyMismatch, match="belongs to another owner than second"):
            await transport.declare([QueueSpec("replies", owner="second")])
    finally:
        await transport.close()
