"""A participant with nothing but a Redis client, by the recipe of docs/redis.md."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from messaging.envelope import to_queue
from messaging.transport import Outgoing, QueueSpec
from tests.conformance.transport_backends import a_message, send, take
from tests.integration.redis.surroundings import LATER, opened
from tests.support.redis_keys import keys_removed


async def read_one(plain: Redis, stream: str, name: str) -> tuple[bytes, dict[bytes, bytes]]:
    async with asyncio.timeout(10):
        while True:
            found: Any = await plain.xreadgroup(stream, name, {stream: ">"}, count=1, block=1000)
            if found:
                ((_, ((entry, fields),)),) = found.items() if isinstance(found, dict) else found
                return entry, fields


async def test_it_answers_to_the_key_named_in_reply_to_and_counts_down_who_waits(redis_url: str, prefix: str) -> None:
    stream = f"{prefix}queue:payments"
    async with (
        keys_removed(redis_url, prefix) as plain,
        opened(redis_url, prefix, survives_restart=False) as transport,
    ):
        await transport.declare([QueueSpec("replies")])
        replies = await transport.subscribe("replies", prefetch_messages=1)
        await plain.xgroup_create(stream, stream, "0", mkstream=True)
        command = a_message(
            b'{"amount":9}', type="charge", correlation_id="c-1", reply_to=transport.full_name("replies")
        )
        outgoing = Outgoing(command, to_queue("payments"), until_handled=True)
        publishing = asyncio.create_task(transport.publish([outgoing], timeout=LATER))

        entry, fields = await read_one(plain, stream, "node-1")
        assert (fields[b"type"], fields[b"body"]) == (b"charge", b'{"amount":9}')
        answer: dict[Any, Any] = {
            "correlation-id": fields[b"correlation-id"],
            "headers": '{"outcome":"success"}',
            "body": "{}",
        }
        await plain.xadd(fields[b"reply-to"], answer)
        assert not publishing.done()
        await plain.xack(stream, stream, entry)
        await plain.xdel(stream, entry)
        await plain.decr(fields[b"handling"])

        assert await publishing == [None]
        (reply,) = await take(replies, 1)
        assert (reply.problem, reply.envelope.correlation_id) == ("", "c-1")
        assert reply.envelope.text_header("outcome") == "success"


async def test_what_it_left_in_hand_is_taken_over_by_a_consumer_of_ours(redis_url: str, prefix: str) -> None:
    async with (
        keys_removed(redis_url, prefix) as plain,
        opened(redis_url, prefix, dead_after=timedelta(seconds=1)) as transport,
    ):
        await transport.declare([QueueSpec("payments")])
        stream = transport.full_name("payments")
        await send(transport, a_message(b"1"), to="payments")
        await read_one(plain, stream, "node-1")
        subscription = await transport.subscribe("payments", prefetch_messages=1)
        (delivery,) = await take(subscription, 1)
        assert (delivery.envelope.body, delivery.redelivered) == (b"1", True)
