"""What is left when the server itself is killed and started again, with and without its data."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta

from redis.asyncio import Redis

from messaging.envelope import to_queue, to_subscribers
from messaging.errors import NotConfirmed
from messaging.transport import Binding, Outgoing, QueueSpec
from tests.conformance.transport_backends import SOON, a_message, bodies, eventually, send, take
from tests.integration.redis.surroundings import LATER, handle_until, opened
from tests.support.services import PrivateRedis


def restart_empty(server: PrivateRedis) -> None:
    """Kill it and start it again as one that had kept nothing."""
    server.kill()
    shutil.rmtree(server.directory / "appendonlydir")
    server.restart()


async def test_whether_it_survives_a_restart_is_what_the_server_says_of_its_file(private_redis: PrivateRedis) -> None:
    async with opened(private_redis.url, "") as transport:
        assert transport.promises.survives_restart
    async with Redis.from_url(private_redis.url) as plain:
        await plain.config_set("appendfsync", "everysec")
        async with opened(private_redis.url, "") as transport:
            assert not transport.promises.survives_restart
        async with opened(private_redis.url, "", survives_restart=True) as transport:
            assert transport.promises.survives_restart
        await plain.execute_command("ACL", "SETUSER", "shop", "on", ">pw-of-shop", "~*", "+@all", "-config")
    url = private_redis.url.replace("redis://", "redis://shop:pw-of-shop@")
    async with opened(url, "") as transport:
        assert not transport.promises.survives_restart


async def test_a_killed_server_gives_back_everything_it_had_confirmed(private_redis: PrivateRedis) -> None:
    async with opened(private_redis.url, "shop.", answer_timeout=timedelta(seconds=3)) as transport:
        await transport.declare([QueueSpec("orders", (Binding("paid"),)), QueueSpec("later")])
        subscription = await transport.subscribe("orders", prefetch_messages=100)
        later = await transport.subscribe("later", prefetch_messages=100)
        await send(transport, a_message(b"put off"), to="later")
        (delivery,) = await take(later, 1)
        await later.retry_later(delivery, timedelta(seconds=1))
        confirmed: set[bytes] = set()

        async def publish() -> None:
            for number in range(100):
                batch = [a_message(b"%d-%d" % (number, n)) for n in range(20)]
                to = to_queue("orders") if number % 2 else to_subscribers("paid")
                outcomes = await send(transport, *batch, to=to, timeout=LATER)
                confirmed.update(m.body for m, outcome in zip(batch, outcomes, strict=True) if outcome is None)

        publishing = asyncio.create_task(publish())
        await eventually(lambda: len(confirmed) > 300, "some confirmed")
        await asyncio.to_thread(private_redis.kill)
        await asyncio.to_thread(private_redis.restart)
        await asyncio.wait_for(publishing, 60)
        assert len(confirmed) > 1900
        await handle_until(subscription, confirmed)
        (delivery,) = await take(later, 1)
        assert (delivery.envelope.body, delivery.attempt) == (b"put off", 2)


async def test_a_server_that_lost_everything_has_its_queues_and_bindings_again(private_redis: PrivateRedis) -> None:
    options = {"survives_restart": False, "answer_timeout": timedelta(seconds=3)}
    async with opened(private_redis.url, "", **options) as sender, opened(private_redis.url, "", **options) as shop:
        await shop.declare([QueueSpec("orders", (Binding("paid"),))])
        subscription = await shop.subscribe("orders", prefetch_messages=1)
        await send(sender, a_message(b"before"), to=to_subscribers("paid"))
        await take(subscription, 1)
        await asyncio.to_thread(restart_empty, private_redis)
        assert await send(sender, a_message(b"event"), to=to_subscribers("paid"), timeout=LATER) == [None]
        await eventually(lambda: subscription.epoch > 1, "a second life")
        assert bodies(await take(subscription, 1)) == [b"event"]


async def test_an_event_for_a_consumer_that_is_not_back_yet_waits_for_it(private_redis: PrivateRedis) -> None:
    options = {"survives_restart": False, "answer_timeout": timedelta(seconds=3)}
    async with opened(private_redis.url, "", **options) as sender:
        async with opened(private_redis.url, "", **options) as shop:
            await shop.declare([QueueSpec("orders", (Binding("paid"),))])
        await send(sender, a_message(b"before"), to=to_subscribers("paid"))
        await asyncio.to_thread(restart_empty, private_redis)
        assert await send(sender, a_message(b"event"), to=to_subscribers("paid"), timeout=LATER) == [None]
        async with opened(private_redis.url, "", **options) as shop:
            await shop.declare([QueueSpec("orders", (Binding("paid"),))])
            subscription = await shop.subscribe("orders", prefetch_messages=1)
            assert bodies(await take(subscription, 1)) == [b"event"]


async def test_what_a_forgetful_server_lost_before_it_was_handled_is_not_confirmed(private_redis: PrivateRedis) -> None:
    options = {"survives_restart": False, "answer_timeout": timedelta(seconds=3)}
    async with opened(private_redis.url, "", **options) as transport:
        await transport.declare([QueueSpec("orders")])
        outgoing = Outgoing(a_message(b"1"), to_queue("orders"), until_handled=True)
        publishing = asyncio.create_task(transport.publish([outgoing], timeout=LATER))
        async with Redis.from_url(private_redis.url) as plain:

            async def stored() -> bool:
                return bool(await plain.xlen(transport.full_name("orders")))

            await eventually(stored, "a message in the stream")
        await asyncio.to_thread(restart_empty, private_redis)
        (outcome,) = await asyncio.wait_for(publishing, 30)
        assert isinstance(outcome, NotConfirmed)

        publishing = asyncio.create_task(transport.publish([outgoing], timeout=SOON))
        await transport.declare([QueueSpec("orders")])
        subscription = await transport.subscribe("orders", prefetch_messages=1)
        await subscription.ack(await take(subscription, 1))
        assert await publishing == [None]
