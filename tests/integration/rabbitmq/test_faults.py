"""What the transport keeps when connections, queues and brokers fail under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiormq.abc import AbstractChannel

from messaging.envelope import to_subscribers
from messaging.errors import MessageTooLarge, NotConfirmed, TopologyMismatch, TransportError
from messaging.rabbitmq import RabbitTransport
from messaging.rabbitmq.connection import Session
from messaging.transport import Binding, Outgoing, QueueSpec
from tests.conformance.transport_backends import (
    SOON,
    a_message,
    bodies,
    eventually,
    remove_afterwards,
    send,
    take,
)
from tests.integration.rabbitmq.proxy import Proxy
from tests.support.broker import Broker
from tests.support.services import PrivateRabbit

LATER = timedelta(seconds=30)


@pytest.fixture(params=["fast", "plain"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"fast": request.param == "fast", "patience": timedelta(seconds=10)}


@asynccontextmanager
async def opened(url: str, prefix: str, **options: Any) -> AsyncIterator[RabbitTransport]:
    transport = RabbitTransport(url, prefix=prefix, **options)
    await transport.open()
    try:
        yield transport
    finally:
        await asyncio.wait_for(transport.close(), 25)


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(amqp_url) as proxy:
        yield proxy


@pytest.fixture
async def transport(
    proxy: Proxy, prefix: str, broker: Broker, options: dict[str, Any]
) -> AsyncIterator[RabbitTransport]:
    """A transport behind the proxy with a queue `orders`."""
    remove_afterwards(broker, f"{prefix}orders")
    async with opened(proxy.url, prefix, **options) as transport:
        await transport.declare([QueueSpec("orders")])
        yield transport


async def test_a_connection_cut_while_publishing_leaves_every_message_with_an_outcome(
    transport: RabbitTransport, proxy: Proxy
) -> None:
    messages = [a_message(b"%d" % number) for number in range(2000)]
    unconfirmed = {message.message_id: message for message in messages}
    cuts = 0

    async def cut() -> None:
        nonlocal cuts
        while cuts < 6:
            await asyncio.sleep(0.05)
            proxy.cut()
            cuts += 1

    cutter = asyncio.create_task(cut())
    while unconfirmed and cuts < 6:
        part = list(unconfirmed.values())[:50]
        outcomes = await send(transport, *part, to="orders", timeout=timedelta(seconds=30))
        for message, outcome in zip(part, outcomes, strict=True):
            assert outcome is None or isinstance(outcome, NotConfirmed)
            if outcome is None:
                del unconfirmed[message.message_id]
    await cutter
    assert await send(transport, *unconfirmed.values(), to="orders") == [None] * len(unconfirmed)

    subscription = await transport.subscribe("orders", prefetch_messages=500)
    seen: set[str] = set()
    async with asyncio.timeout(90):
        while not seen >= {message.message_id for message in messages}:
            deliveries = await subscription.take(500)
            seen |= {delivery.envelope.message_id for delivery in deliveries}
            await subscription.ack(deliveries)
    assert seen == {message.message_id for message in messages}


async def test_publishing_to_a_broker_that_is_away_ends_within_its_timeout_and_goes_on_later(
    transport: RabbitTransport, proxy: Proxy
) -> None:
    await proxy.refuse()
    loop = asyncio.get_running_loop()
    began = loop.time()
    (outcome,) = await send(transport, a_message(b"1"), to="orders", timeout=timedelta(seconds=0.5))
    assert isinstance(outcome, NotConfirmed)
    assert loop.time() - began < 1.5
    await proxy.accept()
    assert await send(transport, a_message(b"2"), to="orders", timeout=LATER) == [None]


async def test_publishing_into_a_half_open_connection_ends_within_its_timeout(
    transport: RabbitTransport, proxy: Proxy
) -> None:
    proxy.stall()
    message = a_message(b"1")
    first, second = await asyncio.gather(
        send(transport, message, to="orders", timeout=timedelta(seconds=0.3)),
        send(transport, a_message(b"2"), to="orders", timeout=timedelta(seconds=0.3)),
    )
    assert isinstance(first[0], NotConfirmed)
    assert isinstance(second[0], NotConfirmed)
    # The first copy is still under way, so the second waits for it.
    (outcome,) = await send(transport, message, to="orders", timeout=timedelta(seconds=0.3))
    assert isinstance(outcome, NotConfirmed)
    proxy.flow()
    assert await send(transport, message, to="orders") == [None]


async def test_cancelling_a_publish_cancels_it_and_nothing_else(transport: RabbitTransport, proxy: Proxy) -> None:
    proxy.stall()
    publishing = asyncio.create_task(send(transport, a_message(b"1"), to="orders"))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    proxy.flow()
    assert await send(transport, a_message(b"2"), to="orders") == [None]


async def test_a_consumer_whose_connection_is_cut_gets_again_what_it_had_not_settled(
    transport: RabbitTransport, proxy: Proxy
) -> None:
    await send(transport, *(a_message(b"%d" % number) for number in range(6)), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    settled, *taken = await take(subscription, 3)
    await subscription.ack([settled])

    async def acknowledged() -> bool:
        return await subscription.backlog() == 3

    await eventually(acknowledged, "the broker has the acknowledgement")
    epoch = subscription.epoch

    proxy.cut()
    await eventually(lambda: subscription.epoch > epoch, "another epoch", within=LATER)
    await subscription.ack(taken)
    await subscription.dead_letter(taken[0], "too late")
    again = await take(subscription, 4, within=LATER)
    assert {delivery.epoch for delivery in again} == {subscription.epoch}
    await subscription.ack(again)
    assert sorted(bodies(again + await take(subscription, 1))) == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_take_outlasts_a_broker_that_is_away(transport: RabbitTransport, proxy: Proxy) -> None:
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    waiting = asyncio.create_task(subscription.take(1))
    await proxy.refuse()
    await asyncio.sleep(0.3)
    await proxy.accept()
    assert await send(transport, a_message(b"back"), to="orders", timeout=LATER) == [None]
    assert bodies(await asyncio.wait_for(waiting, 30)) == [b"back"]


@pytest.mark.parametrize("problem", [AttributeError("of None"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_a_consumer_and_a_publisher_go_on_whatever_a_lost_connection_makes_the_libraries_raise(
    transport: RabbitTransport, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    channel, raised = Session.channel, 0

    async def fails_at_first(session: Session, *, confirms: bool = False) -> AbstractChannel:
        nonlocal raised
        raised += 1
        if raised <= 4:
            raise problem
        return await channel(session, confirms=confirms)

    monkeypatch.setattr(Session, "channel", fails_at_first)
    proxy.cut()

    async def accepted() -> bool:
        return await send(transport, a_message(b"after"), to="orders", timeout=SOON) == [None]

    await eventually(accepted, "the publisher is back", within=LATER)
    assert bodies(await take(subscription, 1, within=LATER)) == [b"after"]
    assert raised > 4


async def test_a_half_open_consumer_is_noticed_by_its_heartbeat(
    amqp_url: str, prefix: str, broker: Broker, options: dict[str, Any]
) -> None:
    remove_afterwards(broker, f"{prefix}orders")
    async with (
        Proxy(amqp_url) as proxy,
        opened(proxy.url, prefix, heartbeat=timedelta(seconds=1), **options) as transport,
    ):
        await transport.declare([QueueSpec("orders")])
        subscription = await transport.subscribe("orders", prefetch_messages=4)
        before = proxy.connections
        proxy.stall()
        await eventually(lambda: proxy.connections > before, "a new connection", within=LATER)
        proxy.flow()
        await send(transport, a_message(b"after"), to="orders", timeout=LATER)
        assert bodies(await take(subscription, 1, within=LATER)) == [b"after"]


async def test_a_busy_consumer_is_not_taken_for_dead(
    amqp_url: str, prefix: str, broker: Broker, options: dict[str, Any]
) -> None:
    remove_afterwards(broker, f"{prefix}orders")
    async with opened(amqp_url, prefix, heartbeat=timedelta(seconds=1), **options) as transport:
        await transport.declare([QueueSpec("orders")])
        subscription = await transport.subscribe("orders", prefetch_messages=4)
        epoch, until = subscription.epoch, asyncio.get_running_loop().time() + 8
        while asyncio.get_running_loop().time() < until:
            await send(transport, a_message(), to="orders")
            await subscription.ack(await take(subscription, 1))
        assert subscription.epoch == epoch


async def test_a_queue_deleted_under_its_consumer_is_declared_again(
    transport: RabbitTransport, broker: Broker, prefix: str
) -> None:
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    epoch = subscription.epoch
    await broker.delete_queue(f"{prefix}orders")
    await broker.delete_queue(f"{prefix}orders.dead")
    await eventually(lambda: subscription.epoch > epoch, "another epoch", within=LATER)
    await send(transport, a_message(b"again"), to="orders")
    (delivery,) = await take(subscription, 1)
    await broker.delete_queue(f"{prefix}orders.dead")
    await subscription.dead_letter(delivery, "there is nothing to put it in")
    assert await broker.depth(f"{prefix}orders.dead") == 1


async def test_a_delay_queue_deleted_meanwhile_is_declared_again(
    transport: RabbitTransport, broker: Broker, prefix: str
) -> None:
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    await send(transport, a_message(b"patience"), to="orders")
    for _ in range(2):
        (delivery,) = await take(subscription, 1)
        await subscription.retry_later(delivery, timedelta(milliseconds=100))
        await eventually(lambda: len(subscription._buffer) > 0, "it is back")
        await broker.delete_queue(f"{prefix}orders.delay.100")
    (delivery,) = await take(subscription, 1)
    assert delivery.attempt == 3


async def test_an_exchange_deleted_meanwhile_is_declared_again(
    transport: RabbitTransport, broker: Broker, prefix: str
) -> None:
    broker.exchange(f"{prefix}events")
    event = Outgoing(a_message(), to_subscribers("orders.paid"))
    assert await transport.publish([event], timeout=SOON) == [None]
    await broker.delete_exchange(f"{prefix}events")

    async def published() -> bool:
        return await transport.publish([event], timeout=SOON) == [None]

    await eventually(published, "the event is confirmed again", within=LATER)


async def test_an_exchange_of_another_kind_is_published_to_as_it_is(
    transport: RabbitTransport, broker: Broker, prefix: str
) -> None:
    broker.exchange(f"{prefix}billing")
    await transport.declare([QueueSpec("orders", (Binding("", "billing", "fanout"),))])
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    assert await send(transport, a_message(b"event"), to=to_subscribers("any", "billing")) == [None]
    assert bodies(await take(subscription, 1)) == [b"event"]


async def test_a_queue_of_another_definition_is_told_by_name_and_in_the_brokers_words(
    transport: RabbitTransport, prefix: str
) -> None:
    with pytest.raises(TopologyMismatch, match=rf"{prefix}orders(.|\n)*x-delivery-limit +7 +20"):
        await transport.declare([QueueSpec("orders", delivery_limit=7)])
    assert await send(transport, a_message(), to="orders") == [None]


async def test_headers_that_no_frame_can_hold_are_refused_and_their_neighbours_are_not(
    transport: RabbitTransport,
) -> None:
    large = a_message(headers={"h": "x" * 131_072})
    first, second, third = await send(transport, a_message(), large, a_message(), to="orders")
    assert first is third is None
    assert isinstance(second, MessageTooLarge)
    fits = a_message(headers={"h": "x" * 130_900})
    assert await send(transport, fits, to="orders") == [None]
    subscription = await transport.subscribe("orders", prefetch_messages=10)
    *_, delivery = await take(subscription, 3)
    await subscription.dead_letter(delivery, "too large to bear a reason as well", "y" * 10_000)
    dead = await transport.subscribe("orders.dead", prefetch_messages=10)
    (letter,) = await take(dead, 1)
    assert letter.envelope.headers["dead-letter-lost-headers"] == 1


async def test_a_wrong_password_is_told_at_once_and_not_shown(amqp_url: str, options: dict[str, Any]) -> None:
    url = amqp_url.replace("guest:guest", "guest:hunter2-secret")
    transport = RabbitTransport(url, **options)
    with pytest.raises(TransportError, match=r"refuses us.*ACCESS_REFUSED") as caught:
        await asyncio.wait_for(transport.open(), 30)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)
    await transport.close()


async def test_an_unknown_virtual_host_is_told_at_once(amqp_url: str) -> None:
    transport = RabbitTransport(f"{amqp_url.rstrip('/')}/no-such-host")
    with pytest.raises(TransportError, match="no-such-host"):
        await asyncio.wait_for(transport.open(), 30)
    await transport.close()


async def test_a_broker_that_does_not_answer_is_given_up_after_the_patience(options: dict[str, Any]) -> None:
    options["patience"] = timedelta(seconds=0.5)
    transport = RabbitTransport("amqp://guest:hunter2-secret@127.0.0.1:1/", **options)
    with pytest.raises(TransportError, match=r"does not answer within 0.5 s.*Connect call failed") as caught:
        await asyncio.wait_for(transport.open(), 30)
    assert "hunter2" not in str(caught.value)
    await transport.close()


async def test_closing_is_bounded_when_nothing_answers(
    proxy: Proxy, prefix: str, broker: Broker, options: dict[str, Any]
) -> None:
    remove_afterwards(broker, f"{prefix}orders")
    transport = RabbitTransport(proxy.url, prefix=prefix, **options)
    await transport.open()
    await transport.declare([QueueSpec("orders")])
    await transport.subscribe("orders", prefetch_messages=4)
    proxy.stall()
    await asyncio.wait_for(transport.close(), 25)


@pytest.mark.torture
async def test_a_broker_short_of_memory_blocks_publishers_and_goes_on_delivering(
    private_rabbit: PrivateRabbit, options: dict[str, Any]
) -> None:
    async with opened(private_rabbit.url, "", **options) as transport:
        await transport.declare([QueueSpec("orders")])
        await send(transport, a_message(b"before"), to="orders")
        await asyncio.to_thread(private_rabbit.ctl, "set_vm_memory_high_watermark", "0")
        loop = asyncio.get_running_loop()

        async def blocked() -> bool:
            began = loop.time()
            (outcome,) = await send(transport, a_message(), to="orders", timeout=timedelta(seconds=0.5))
            assert loop.time() - began < 1.5
            return isinstance(outcome, NotConfirmed)

        # The broker blocks a connection only when something is published over it.
        await eventually(blocked, "the broker blocks")
        assert await blocked()
        # Also those who start only now: they are the ones to relieve it.
        async with opened(private_rabbit.url, "", **options) as another:
            subscription = await another.subscribe("orders", prefetch_messages=5)
            (delivery,) = await take(subscription, 1)
            assert delivery.envelope.body == b"before"
            await subscription.ack([delivery])
        await asyncio.to_thread(private_rabbit.ctl, "set_vm_memory_high_watermark", "0.4")
        assert await send(transport, a_message(b"after"), to="orders", timeout=LATER) == [None]


@pytest.mark.torture
async def test_who_handles_longer_than_the_broker_waits_is_told_how_to_get_more_time(
    private_rabbit: PrivateRabbit, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for setting in ("consumer_timeout", "channel_tick_interval"):
        await asyncio.to_thread(private_rabbit.ctl, "eval", f"application:set_env(rabbit, {setting}, 100).")
    async with opened(private_rabbit.url, "", **options) as transport:
        await transport.declare([QueueSpec("orders")])
        await send(transport, a_message(b"slow"), to="orders")
        subscription = await transport.subscribe("orders", prefetch_messages=1)
        await take(subscription, 1)
        (again,) = await take(subscription, 1)
        assert again.redelivered
        await subscription.ack([again])
    assert "QueueOptions(consumer_timeout=...)" in caplog.text
