"""What the transport keeps when connections, keys and consumers fail under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha1
from typing import Any

import pytest
from redis.asyncio import Redis

from messaging.envelope import to_queue, to_subscribers
from messaging.errors import NotConfirmed, TopologyMismatch, TransportError, Unroutable
from messaging.redis import RedisTransport, scripts
from messaging.redis.lua import Script
from messaging.transport import DEAD_LETTER_REASON, Binding, Outgoing, QueueSpec, dead_letter_queue
from tests.conformance.transport_backends import SOON, a_message, bodies, eventually, send, take
from tests.integration.rabbitmq.proxy import Proxy
from tests.integration.redis.surroundings import LATER, handle_until, opened
from tests.support.redis_keys import keys_removed


@pytest.fixture
async def plain(redis_url: str, prefix: str) -> AsyncIterator[Redis]:
    """A client of the test's own, to look and to break things."""
    async with keys_removed(redis_url, prefix) as client:
        yield client


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def transport(plain: Redis, proxy: Proxy, prefix: str) -> AsyncIterator[RedisTransport]:
    """A transport behind the proxy with a queue `orders`."""
    async with opened(proxy.url, prefix, answer_timeout=timedelta(seconds=2)) as transport:
        await transport.declare([QueueSpec("orders")])
        yield transport


async def in_stream(plain: Redis, transport: RedisTransport, queue: str = "orders") -> int:
    return int(await plain.xlen(transport.full_name(queue)))


async def test_connections_cut_all_the_time_lose_nothing_and_leave_nothing(
    transport: RedisTransport, proxy: Proxy, plain: Redis
) -> None:
    published: set[bytes] = set()
    confirmed: set[bytes] = set()
    subscription = await transport.subscribe("orders", prefetch_messages=50)

    async def cut() -> None:
        for _ in range(8):
            await asyncio.sleep(0.1)
            proxy.cut()

    async def publish(numbers: range) -> None:
        unconfirmed = {b"%d" % number: a_message(b"%d" % number) for number in numbers}
        published.update(unconfirmed)
        while unconfirmed:
            part = list(unconfirmed.values())[:25]
            outcomes = await send(transport, *part, to="orders", timeout=timedelta(seconds=5))
            for message, outcome in zip(part, outcomes, strict=True):
                assert outcome is None or isinstance(outcome, NotConfirmed)
                if outcome is None:
                    del unconfirmed[message.body]
                    confirmed.add(message.body)
            await asyncio.sleep(0.01)

    everything = {b"%d" % number for number in range(2000)}
    handling = asyncio.create_task(handle_until(subscription, everything, within=90))
    await asyncio.gather(cut(), *(publish(range(start, start + 500)) for start in range(0, 2000, 500)))
    handled = await handling

    assert published == confirmed == set(handled) == everything
    assert subscription.epoch > 1

    async def nothing_left() -> bool:
        again = subscription.take_nowait(500)  # a second copy of what was sent twice
        await subscription.ack(again)
        return await in_stream(plain, transport) == 0

    await eventually(nothing_left, "an empty stream")


async def test_publishing_to_a_server_that_is_away_ends_within_its_timeout_and_goes_on_later(
    transport: RedisTransport, proxy: Proxy
) -> None:
    await proxy.refuse()
    loop = asyncio.get_running_loop()
    began = loop.time()
    (outcome,) = await send(transport, a_message(b"1"), to="orders", timeout=timedelta(seconds=0.5))
    assert isinstance(outcome, NotConfirmed)
    assert loop.time() - began < 1.5
    waiting = asyncio.create_task(send(transport, a_message(b"2"), to="orders", timeout=LATER))
    await asyncio.sleep(0)
    await proxy.accept()
    assert await waiting == [None]


async def test_publishing_into_a_half_open_connection_ends_within_its_timeout(
    transport: RedisTransport, proxy: Proxy
) -> None:
    proxy.stall()
    (outcome,) = await send(transport, a_message(b"1"), to="orders", timeout=timedelta(seconds=0.3))
    assert isinstance(outcome, NotConfirmed)
    proxy.flow()
    assert await send(transport, a_message(b"2"), to="orders") == [None]


async def test_a_half_open_connection_of_a_consumer_is_noticed(
    transport: RedisTransport, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = await transport.subscribe("orders", prefetch_messages=10)
    proxy.stall()
    await eventually(lambda: "consuming again" in caplog.text, "a connection given up")
    proxy.cut()
    proxy.flow()
    await send(transport, a_message(b"1"), to="orders", timeout=LATER)
    assert bodies(await take(subscription, 1)) == [b"1"]
    assert subscription.epoch > 1


async def test_a_consumer_whose_connection_is_cut_gets_again_what_it_had_not_settled(
    transport: RedisTransport, proxy: Proxy
) -> None:
    await send(transport, *(a_message(b"%d" % number) for number in range(6)), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    settled, *taken = await take(subscription, 3)
    await subscription.ack([settled])
    proxy.cut()
    await eventually(lambda: subscription.epoch == 2, "a second life")
    again = await take(subscription, 4)
    assert sorted(bodies(again)) == [b"1", b"2", b"3", b"4"]
    assert all(delivery.redelivered for delivery in again if delivery.envelope.body in bodies(taken))
    await subscription.ack(taken)  # of the life before: nothing
    await subscription.ack(again[1:])
    assert bodies(await take(subscription, 1)) == [b"5"]


async def test_what_was_settled_while_the_server_was_away_does_not_come_again(
    transport: RedisTransport, proxy: Proxy, plain: Redis
) -> None:
    await send(transport, a_message(b"1"), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    taken = await take(subscription, 1)
    await proxy.refuse()
    await subscription.ack(taken)
    await proxy.accept()

    async def gone() -> bool:
        return await in_stream(plain, transport) == 0

    await eventually(gone, "the entry acknowledged after all")
    assert subscription.take_nowait(10) == []


async def test_putting_off_and_dead_lettering_fail_openly_while_the_server_is_away(
    transport: RedisTransport, proxy: Proxy
) -> None:
    await send(transport, a_message(b"1"), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    (delivery,) = await take(subscription, 1)
    proxy.stall()
    with pytest.raises(NotConfirmed):
        await asyncio.wait_for(subscription.retry_later(delivery, timedelta(0)), 30)
    proxy.cut()
    proxy.flow()
    (again,) = await take(subscription, 1)
    assert again.envelope.body == b"1"


async def test_a_deleted_queue_comes_back_with_its_bindings(transport: RedisTransport, plain: Redis) -> None:
    await transport.declare([QueueSpec("orders", (Binding("paid"),))])
    subscription = await transport.subscribe("orders", prefetch_messages=4)
    epoch = subscription.epoch
    await plain.delete(
        transport.full_name("orders"), transport.full_name("orders").replace("queue:orders", "bindings:events")
    )
    await eventually(lambda: subscription.epoch > epoch, "a life on a new stream")
    assert await send(transport, a_message(b"1"), to="orders", timeout=LATER) == [None]
    assert await send(transport, a_message(b"2"), to=to_subscribers("paid"), timeout=LATER) == [None]
    assert bodies(await take(subscription, 2)) == [b"1", b"2"]


async def test_a_lost_group_takes_up_what_the_stream_still_holds(transport: RedisTransport, plain: Redis) -> None:
    subscription = await transport.subscribe("orders", prefetch_messages=1)
    await send(transport, a_message(b"1"), a_message(b"2"), to="orders")
    await take(subscription, 1)
    await plain.xgroup_destroy(transport.full_name("orders"), transport.full_name("orders"))
    assert bodies(await take(subscription, 1)) == [b"1"]


async def test_a_server_that_does_not_know_a_script_is_told_it(
    transport: RedisTransport, plain: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Having it forget all scripts would be felt by others: one that it has never seen is the same to us.
    source = scripts.PUBLISH.source + f"\n-- {prefix}".encode()
    monkeypatch.setattr(scripts, "PUBLISH", Script(source, sha1(source, usedforsecurity=False).hexdigest()))
    assert await send(transport, a_message(b"1"), a_message(b"2"), to="orders") == [None, None]
    assert await in_stream(plain, transport) == 2


async def test_a_slow_handler_of_a_live_consumer_keeps_its_message(redis_url: str, plain: Redis, prefix: str) -> None:
    quick = {"dead_after": timedelta(seconds=0.5)}
    async with opened(redis_url, prefix, **quick) as one, opened(redis_url, prefix, **quick) as two:
        await one.declare([QueueSpec("orders")])
        slow = await one.subscribe("orders", prefetch_messages=1)
        other = await two.subscribe("orders", prefetch_messages=10)
        await send(one, a_message(b"slow"), to="orders")
        async with asyncio.timeout(10):
            while not (taken := slow.take_nowait(1)):
                if mine := other.take_nowait(1):  # the other was first: let it be taken again
                    await other.retry_later(mine[0], timedelta(0))
                await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.take(1), 2.5)  # five times as long as a dead one would keep it
        await slow.ack(taken)
        assert await in_stream(plain, one) == 0


async def test_a_process_that_stood_still_for_too_long_lets_go_of_what_others_have_taken(
    redis_url: str, plain: Redis, prefix: str
) -> None:
    async with opened(redis_url, prefix) as one, opened(redis_url, prefix) as two:
        await one.declare([QueueSpec("orders")])
        await send(one, a_message(b"1"), to="orders")
        asleep = await one.subscribe("orders", prefetch_messages=1)
        (taken,) = await take(asleep, 1)
        # As if we had not been heard of: our own heartbeat is an hour old.
        alive = f"{prefix}alive:orders"
        (name,) = await plain.zrange(alive, 0, -1)
        awake = await two.subscribe("orders", prefetch_messages=1)
        got: list[Any] = []
        async with asyncio.timeout(10):
            while not got:
                await plain.zadd(alive, {name: 1}, xx=True)
                got = awake.take_nowait(1)
                await asyncio.sleep(0.01)
        assert got[0].redelivered
        await asleep.dead_letter(taken, "late")
        assert await plain.xlen(one.full_name(dead_letter_queue("orders"))) == 0
        await awake.ack(got)


async def test_the_stream_holds_no_more_than_what_is_not_settled(transport: RedisTransport, plain: Redis) -> None:
    await send(transport, *(a_message(b"x" * 1000) for _ in range(1000)), to="orders")
    subscription = await transport.subscribe("orders", prefetch_messages=200)
    slow, *others = await take(subscription, 1000 // 5)
    count = 1
    while others:
        await subscription.ack(others)
        count += len(others)
        others = await take(subscription, min(199, 1000 - count)) if count < 1000 else []
    assert await in_stream(plain, transport) == 1
    assert await plain.memory_usage(transport.full_name("orders")) < 200_000
    await subscription.ack([slow])
    assert await in_stream(plain, transport) == 0


async def test_a_queue_that_expires_goes_with_all_its_keys(redis_url: str, plain: Redis, prefix: str) -> None:
    async with opened(redis_url, prefix) as transport:
        await transport.declare([QueueSpec("short", expires_after=timedelta(seconds=2))])
        subscription = await transport.subscribe("short", prefetch_messages=5)
        await send(transport, a_message(b"1"), a_message(b"2"), to="short")
        (first, _) = await take(subscription, 2)
        await subscription.dead_letter(first, "no")
    await eventually(lambda: _no_keys(plain, prefix), "no key left")


async def _no_keys(plain: Redis, prefix: str) -> bool:
    return [key async for key in plain.scan_iter(f"{prefix}*", count=1000)] == []


async def test_an_exchange_of_another_kind_or_a_key_of_another_type_is_told(
    transport: RedisTransport, plain: Redis
) -> None:
    await transport.declare([QueueSpec("orders", (Binding("paid", "sales"),))])
    with pytest.raises(TopologyMismatch, match=r"sales.*'topic'"):
        await transport.declare([QueueSpec("other", (Binding("", "sales", "fanout"),))])
    await plain.set(transport.full_name("taken"), "by somebody")
    with pytest.raises(TopologyMismatch, match=r"taken.*string"):
        await transport.declare([QueueSpec("taken")])
    (outcome,) = await send(transport, a_message(), to="taken")
    assert isinstance(outcome, Unroutable)


async def test_a_binding_made_by_another_process_is_heeded_at_once(
    redis_url: str, transport: RedisTransport, prefix: str
) -> None:
    event = to_subscribers("orders.paid")
    assert await send(transport, a_message(b"before"), to=event) == [None]
    async with opened(redis_url, prefix) as other:
        await other.declare([QueueSpec("listener", (Binding("orders.*"),))])
        assert await send(transport, a_message(b"after"), to=event) == [None]
        listener = await other.subscribe("listener", prefetch_messages=1)
        assert bodies(await take(listener, 1)) == [b"after"]


async def test_an_entry_of_a_plain_client_that_cannot_be_read_is_delivered_with_its_problem_and_buried_whole(
    transport: RedisTransport, plain: Redis
) -> None:
    many: dict[Any, Any] = {f"field-{number}": "x" for number in range(6000)}
    await plain.xadd(transport.full_name("orders"), {"headers": "{", **many})
    await plain.xadd(transport.full_name("orders"), {"type": "fine", "body": "{}"})
    subscription = await transport.subscribe("orders", prefetch_messages=5)
    broken, fine = await take(subscription, 2)
    assert "no JSON" in broken.problem
    assert (fine.problem, fine.envelope.type) == ("", "fine")
    await subscription.dead_letter(broken, "unreadable")
    dead = await transport.subscribe(dead_letter_queue("orders"), prefetch_messages=5)
    (letter,) = await take(dead, 1)
    assert letter.envelope.headers[DEAD_LETTER_REASON] == "unreadable"


async def test_until_handled_is_counted_over_processes(redis_url: str, plain: Redis, prefix: str) -> None:
    async with (
        opened(redis_url, prefix, survives_restart=False) as sender,
        opened(redis_url, prefix, survives_restart=False) as receiver,
    ):
        await receiver.declare([QueueSpec("orders")])
        subscription = await receiver.subscribe("orders", prefetch_messages=5)
        outgoing = Outgoing(a_message(b"1"), to_queue("orders"), until_handled=True)
        publishing = asyncio.create_task(sender.publish([outgoing], timeout=SOON))
        taken = await take(subscription, 1)
        assert not publishing.done()
        await subscription.ack(taken)
        assert await publishing == [None]
        assert [key async for key in plain.scan_iter(f"{prefix}handling:*")] == []


async def test_opening_ends_in_time_and_tells_no_password() -> None:
    transport = RedisTransport("redis://ann:hunter2-secret@127.0.0.1:1/0", patience=timedelta(seconds=0.5))
    with pytest.raises(TransportError, match=r"redis://ann:\*\*\*@127\.0\.0\.1:1/0.*does not answer") as caught:
        await asyncio.wait_for(transport.open(), 30)
    assert "hunter2" not in str(caught.value)
    await asyncio.wait_for(transport.close(), 30)


async def test_a_wrong_password_is_told_at_once_and_not_shown(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis://nobody:hunter2-secret@", 1)
    transport = RedisTransport(url, patience=timedelta(seconds=30))
    with pytest.raises(TransportError, match="refuses us") as caught:
        await asyncio.wait_for(transport.open(), 30)
    assert "hunter2" not in str(caught.value)


async def test_closing_while_nothing_answers_ends_in_time(plain: Redis, proxy: Proxy, prefix: str) -> None:
    transport = RedisTransport(proxy.url, prefix=prefix, answer_timeout=timedelta(seconds=60))
    await transport.open()
    await transport.declare([QueueSpec("orders")])
    await transport.subscribe("orders", prefetch_messages=1)
    proxy.stall()
    await asyncio.wait_for(transport.close(), 15)
