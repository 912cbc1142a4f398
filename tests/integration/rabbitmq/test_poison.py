"""Messages that the client library cannot decode. Anybody who may publish can send one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from messaging.dead_letters import found, replay
from messaging.rabbitmq import RabbitTransport, wire
from messaging.transport import DEAD_LETTER_REASON, QueueSpec
from tests.conformance.transport_backends import a_message, eventually, remove_afterwards, send, take
from tests.integration.rabbitmq.raw_client import (
    absurd_timestamp,
    deep_headers,
    publish_raw,
    short_property,
)
from tests.support.broker import Broker

INNOCENTS = 12

unreadable = pytest.mark.parametrize(
    "properties",
    [
        pytest.param(short_property(wire.MESSAGE_ID, b"id-\xff"), id="message id"),
        pytest.param(short_property(wire.TYPE, b"\xc3"), id="type"),
        pytest.param(short_property(wire.REPLY_TO, b"\xed\xa0\x80"), id="reply to"),
    ],
)
curious = pytest.mark.parametrize(
    "properties",
    [
        pytest.param(short_property(wire.APP_ID, b"\xff"), id="app id"),
        pytest.param(absurd_timestamp(), id="timestamp"),
        pytest.param(deep_headers(2000), id="deep headers"),
    ],
)


@unreadable
async def test_the_hot_path_hands_over_what_cannot_be_read_and_says_why(
    amqp_url: str, prefix: str, broker: Broker, properties: bytes
) -> None:
    queue = f"{prefix}orders"
    remove_afterwards(broker, queue)
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    await transport.declare([QueueSpec("orders")])
    await send(transport, a_message(b"before"), to="orders")
    await publish_raw(amqp_url, queue, properties, b"poison")
    await send(transport, a_message(b"after"), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=10)

    before, poison, after = await take(subscription, 3)

    assert subscription.epoch == 1
    assert before.problem == after.problem == ""
    assert "is not UTF-8" in poison.problem
    assert poison.envelope.body == b"poison"

    await subscription.dead_letter(poison, "unreadable", poison.problem)
    await subscription.ack([before, after])
    dead = await transport.subscribe("orders.dead", prefetch_messages=10)
    (letter,) = await take(dead, 1)
    assert letter.problem == poison.problem
    assert letter.envelope.body == b"poison"
    assert letter.envelope.headers[DEAD_LETTER_REASON] == "unreadable"
    await dead.ack([letter])
    await transport.close()


@unreadable
async def test_a_dead_letter_that_cannot_be_read_is_found_and_replayed_unchanged(
    amqp_url: str, prefix: str, broker: Broker, properties: bytes
) -> None:
    queue = f"{prefix}orders"
    remove_afterwards(broker, queue)
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    await transport.declare([QueueSpec("orders")])
    await publish_raw(amqp_url, queue, properties, b"poison")
    subscription = await transport.subscribe("orders", prefetch_messages=10)
    (poison,) = await take(subscription, 1)
    await subscription.dead_letter(poison, "unreadable", poison.problem)

    (letter,) = await found(transport, "orders")
    assert (letter.problem, letter.reason) == (poison.problem, "unreadable")
    assert [outcome.error for outcome in await replay(transport, "orders")] == [None]

    (again,) = await take(subscription, 1)
    assert (again.problem, again.envelope) == (poison.problem, poison.envelope)
    await subscription.ack([again])
    await transport.close()


@curious
async def test_the_hot_path_reads_what_is_only_curious(
    amqp_url: str, prefix: str, broker: Broker, properties: bytes
) -> None:
    queue = f"{prefix}orders"
    remove_afterwards(broker, queue)
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    await transport.declare([QueueSpec("orders")])
    await publish_raw(amqp_url, queue, properties, b"curious")
    subscription = await transport.subscribe("orders", prefetch_messages=10)
    (delivery,) = await take(subscription, 1)
    assert (delivery.problem, delivery.envelope.timestamp) == ("", None)
    await subscription.retry_later(delivery, timedelta(milliseconds=50))
    (delivery,) = await take(subscription, 1)
    assert (delivery.problem, delivery.attempt, delivery.envelope.body) == ("", 2, b"curious")
    await subscription.ack([delivery])
    await transport.close()


async def test_without_the_hot_path_only_the_culprit_is_dead_lettered(
    amqp_url: str, prefix: str, broker: Broker
) -> None:
    queue = f"{prefix}orders"
    remove_afterwards(broker, queue)
    transport = RabbitTransport(amqp_url, prefix=prefix, fast=False)
    await transport.open()
    # Two lives at the full prefetch and the culprit's own: innocents must not be at the limit by then.
    await transport.declare([QueueSpec("orders", delivery_limit=5)])
    half = INNOCENTS // 2
    await send(transport, *(a_message(b"%d" % n) for n in range(half)), to="orders")
    await publish_raw(amqp_url, queue, short_property(wire.MESSAGE_ID, b"\xff"), b"poison")
    await send(transport, *(a_message(b"%d" % n) for n in range(half, INNOCENTS)), to="orders")

    subscription = await transport.subscribe("orders", prefetch_messages=100)
    handled: set[bytes] = set()

    async def handle_slowly() -> None:
        # Nothing is settled in the lives in which the culprit is among many.
        while len(handled) < INNOCENTS:
            deliveries = await subscription.take(100)
            await asyncio.sleep(0.02)
            if {delivery.epoch for delivery in deliveries} == {subscription.epoch}:
                await subscription.ack(deliveries)
                handled.update(delivery.envelope.body for delivery in deliveries)

    async def buried() -> bool:
        return await broker.depth(f"{queue}.dead") == 1

    await asyncio.wait_for(handle_slowly(), 60)
    await eventually(buried, "one dead letter", within=timedelta(seconds=60))
    assert handled == {b"%d" % n for n in range(INNOCENTS)}
    assert await broker.depth(queue) == 0
    await transport.close()
