"""Topology that differs from the code, and processes that may not declare any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from messaging.envelope import Destination, to_subscribers
from messaging.errors import TopologyMismatch, TopologyMissing, TransportError, Unroutable
from messaging.rabbitmq import RabbitTransport
from messaging.settings import MessagingSettings
from messaging.transport import Binding, QueueSpec
from messaging.wiring import inspection_from, transport_from
from tests.conformance.transport_backends import a_message, bodies, remove_afterwards, send, take
from tests.support.broker import Broker
from tests.support.tls_rabbit import PrivateTlsRabbit

PAYMENTS = QueueSpec("payments", (Binding("orders.*"),))


def settings(url: str, prefix: str, topology: str) -> MessagingSettings:
    return MessagingSettings.model_validate(
        {"broker_url": url, "prefix": prefix, "topology": topology, "patience_seconds": 5.0}
    )


@asynccontextmanager
async def opened(url: str, prefix: str, topology: str = "declare") -> AsyncIterator[RabbitTransport]:
    transport = transport_from(settings(url, prefix, topology))
    assert isinstance(transport, RabbitTransport)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def test_a_queue_of_another_definition_is_told_side_by_side_with_ours_and_left_alone(
    amqp_url: str, prefix: str, broker: Broker
) -> None:
    remove_afterwards(broker, f"{prefix}payments")
    async with opened(amqp_url, prefix) as transport:
        await transport.declare([QueueSpec("payments", consumer_timeout=timedelta(hours=1))])
        with pytest.raises(TopologyMismatch) as told:
            await transport.declare([QueueSpec("payments", delivery_limit=7, expires_after=timedelta(days=1))])
        lines = [line.split() for line in str(told.value).splitlines()]
        assert ["wanted", "on", "the", "broker"] in lines
        assert ["x-expires", "86400000", "(not", "set)"] in lines
        assert ["x-delivery-limit", "(not", "set)", "20"] in lines
        assert ["x-dead-letter-routing-key", "(not", "set)", f"{prefix}payments.dead"] in lines
        assert f"rabbitmqctl delete_queue {prefix}payments --if-empty" in str(told.value)
        assert "guest:guest" not in str(told.value)
        # As it was, and still ours: asking has changed nothing.
        await transport.declare([QueueSpec("payments")])


async def test_an_exchange_of_another_kind_is_told_by_both_kinds(amqp_url: str, prefix: str, broker: Broker) -> None:
    remove_afterwards(broker, f"{prefix}payments")
    broker.exchange(f"{prefix}billing")
    async with opened(amqp_url, prefix) as transport:
        await transport.declare([QueueSpec("payments", (Binding("", "billing", "fanout"),))])
        with pytest.raises(TopologyMismatch, match=r"type\s+direct\s+fanout"):
            await transport.declare([QueueSpec("payments", (Binding("paid", "billing", "direct"),))])


async def test_somebody_elses_exchange_is_bound_to_as_it_is_and_never_declared(
    amqp_url: str, prefix: str, broker: Broker
) -> None:
    remove_afterwards(broker, f"{prefix}payments")
    theirs = broker.exchange(f"{prefix}theirs")
    legacy = QueueSpec("payments", (Binding("charge.*", theirs, "topic", absolute=True),))
    async with opened(amqp_url, prefix) as transport:
        with pytest.raises(TransportError, match=rf"binding of queue .* to exchange '{theirs}' .* NOT_FOUND"):
            await transport.declare([legacy])
        channel = await broker._channel()
        await channel.declare_exchange(theirs, "topic", durable=False)  # as we never would
        await transport.declare([legacy])
        subscription = await transport.subscribe("payments", prefetch_messages=5)
        to_them = Destination("charge.eu", theirs, absolute=True)
        assert await send(transport, a_message(b"{}"), to=to_them) == [None]
        deliveries = await take(subscription, 1)
        await subscription.ack(deliveries)
        (outcome,) = await send(transport, a_message(b"{}"), to=Destination("refund", theirs, absolute=True))
        assert isinstance(outcome, Unroutable)


async def test_a_passive_process_tells_all_that_is_missing_and_who_creates_it(
    tls_rabbit: PrivateTlsRabbit, prefix: str
) -> None:
    async with opened(tls_rabbit.clerk_url, prefix, "passive") as transport:
        with pytest.raises(TopologyMissing) as told:
            await transport.declare([PAYMENTS])
    assert told.value.missing[:3] == (
        f"queue '{prefix}payments.dead'",
        f"queue '{prefix}payments'",
        f"exchange '{prefix}events'",
    )
    assert "MESSAGING_TOPOLOGY=passive saga topology apply TARGET..." in str(told.value)
    assert "clerk-secret" not in str(told.value)


async def test_a_user_without_the_right_to_declare_is_told_of_the_passive_way(
    tls_rabbit: PrivateTlsRabbit, prefix: str
) -> None:
    async with opened(tls_rabbit.clerk_url, prefix) as transport:
        with pytest.raises(TransportError, match=r"ACCESS_REFUSED.*MESSAGING_TOPOLOGY=passive"):
            await transport.declare([PAYMENTS])


async def test_a_user_without_the_right_to_declare_works_with_what_was_applied_beforehand(
    tls_rabbit: PrivateTlsRabbit, prefix: str
) -> None:
    async with inspection_from(settings(tls_rabbit.url, prefix, "passive"), app_id="test") as inspection:
        await inspection.apply([PAYMENTS])
        assert {one.state for one in await inspection.compare([PAYMENTS])} == {"same", "unknown"}

    async with opened(tls_rabbit.clerk_url, prefix, "passive") as transport:
        await transport.declare([PAYMENTS])
        subscription = await transport.subscribe("payments", prefetch_messages=5)
        assert await send(transport, a_message(b"paid"), to=to_subscribers("orders.paid")) == [None]
        (delivery,) = await take(subscription, 1)
        await subscription.retry_later(delivery, timedelta(milliseconds=100))
        (delivery,) = await take(subscription, 1)
        assert (delivery.envelope.body, delivery.attempt) == (b"paid", 2)
        await subscription.dead_letter(delivery, "not wanted")
        dead = await transport.subscribe("payments.dead", prefetch_messages=5)
        assert bodies(await take(dead, 1)) == [b"paid"]
        (outcome,) = await send(transport, a_message(), to=Destination("x", "never-declared", mandatory=False))
        assert isinstance(outcome, Unroutable)


async def test_comparing_tells_what_is_missing_otherwise_or_hidden_and_creates_nothing(
    tls_rabbit: PrivateTlsRabbit, prefix: str
) -> None:
    async with opened(tls_rabbit.url, prefix) as transport:
        await transport.declare([QueueSpec("payments", delivery_limit=7)])
    async with inspection_from(settings(tls_rabbit.url, prefix, "declare"), app_id="test") as inspection:
        for _ in range(2):
            states = {str(one.part): one for one in await inspection.compare([PAYMENTS])}
            assert states[f"queue '{prefix}payments.dead'"].state == "same"
            assert states[f"exchange '{prefix}events'"].state == "missing"
            (difference,) = states[f"queue '{prefix}payments'"].differences
            assert (difference.name, difference.wanted, difference.found) == ("x-delivery-limit", 20, 7)
    async with inspection_from(settings(tls_rabbit.clerk_url, prefix, "declare"), app_id="test") as inspection:
        states = {str(one.part): one for one in await inspection.compare([PAYMENTS])}
        assert states[f"queue '{prefix}payments'"].state == "unknown"
        assert states[f"exchange '{prefix}events'"].state == "missing"
