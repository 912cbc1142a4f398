"""Where the libraries beneath are not as the hot path needs them, the same is done through their public calls."""

from __future__ import annotations

import pytest

from messaging.rabbitmq import RabbitTransport
from messaging.rabbitmq.connection import Session
from messaging.rabbitmq.lines import FastLine, NotAsExpected
from messaging.transport import QueueSpec
from tests.conformance.transport_backends import a_message, bodies, remove_afterwards, send, take
from tests.support.broker import Broker


async def assert_it_works_plainly(amqp_url: str, prefix: str, broker: Broker) -> None:
    remove_afterwards(broker, f"{prefix}orders")
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    assert not transport.fast
    await transport.declare([QueueSpec("orders")])
    assert await send(transport, a_message(b"1"), a_message(b"2"), to="orders") == [None, None]
    subscription = await transport.subscribe("orders", prefetch_messages=10)
    deliveries = await take(subscription, 2)
    assert bodies(deliveries) == [b"1", b"2"]
    await subscription.ack(deliveries)
    await transport.close()


async def test_a_library_without_the_way_in_is_used_through_its_public_calls(
    amqp_url: str, prefix: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.rabbitmq.transport.unusable", lambda: "there is no way in")
    await assert_it_works_plainly(amqp_url, prefix, broker)


async def test_a_library_that_behaves_otherwise_is_used_through_its_public_calls(
    amqp_url: str, prefix: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(session: Session) -> FastLine:
        raise NotAsExpected("it is another version")

    monkeypatch.setattr(FastLine, "opened", opened)
    await assert_it_works_plainly(amqp_url, prefix, broker)
