"""Tests get things of their own, and nothing of them stays behind."""

from __future__ import annotations

import aio_pika
import asyncpg
import pytest

from tests.support.broker import Broker
from tests.support.databases import fresh_database


async def test_a_fresh_database_is_empty_and_goes_although_somebody_is_still_connected(postgres_url: str) -> None:
    with fresh_database(postgres_url) as url:
        assert url.startswith("postgresql+asyncpg://")
        address = url.replace("+asyncpg", "")
        connection = await asyncpg.connect(address)
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0

    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(address)
    connection.terminate()


async def test_a_broker_deletes_what_it_was_told_of(amqp_url: str, prefix: str) -> None:
    async with Broker(amqp_url) as broker, await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(broker.exchange(f"{prefix}news"), aio_pika.ExchangeType.FANOUT)
        queue = await channel.declare_queue(broker.queue(f"{prefix}letters"))
        await queue.bind(exchange)
        await exchange.publish(aio_pika.Message(b"dear"), routing_key="")
        assert await broker.depth(queue.name) == 1

    async with Broker(amqp_url) as broker:
        assert await broker.depth(queue.name) is None
