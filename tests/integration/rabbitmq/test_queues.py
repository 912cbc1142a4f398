"""Queues that are somebody's, and queues that go away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import aio_pika
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


async def test_a_queue_that_expires_is_gone_when_nobody_consumes_it(amqp_url: str, prefix: str, broker: Broker) -> None:
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    try:
        await transport.declare([QueueSpec(broker.queue("short"), expires_after=timedelta(milliseconds=200))])
        async with await aio_pika.connect(amqp_url) as connection, asyncio.timeout(20):
            while await _exists(connection, f"{prefix}short"):  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)
            assert not await _exists(connection, f"{prefix}short.dead")
    finally:
        await transport.close()


async def _exists(connection: aio_pika.abc.AbstractConnection, queue: str) -> bool:
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue, passive=True)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True
