"""A consumer that dies without a word leaves its messages to the others."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from messaging.transport import QueueSpec, dead_letter_queue
from tests.conformance.transport_backends import a_message, bodies, eventually, send, take
from tests.integration.redis.surroundings import handle_until, opened
from tests.support.redis_keys import keys_removed

ROOT = Path(__file__).resolve().parents[3]
PROCESS = "tests.integration.redis.consuming_process"


async def started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROCESS, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )


async def lines(process: asyncio.subprocess.Process, count: int) -> list[list[str]]:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return [(await process.stdout.readline()).decode().split() for _ in range(count)]


async def killed(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await asyncio.wait_for(process.wait(), 30)


async def test_what_a_killed_process_had_in_hand_is_taken_over_and_nothing_else(redis_url: str, prefix: str) -> None:
    async with (
        keys_removed(redis_url, prefix) as plain,
        opened(redis_url, prefix, dead_after=timedelta(seconds=1)) as transport,
    ):
        await transport.declare([QueueSpec("orders")])
        everything = {b"%d" % number for number in range(60)}
        await send(transport, *(a_message(b"%d" % number) for number in range(60)), to="orders")
        process = await started(redis_url, prefix, "orders", "10")
        said = await lines(process, 25)
        await killed(process)
        acknowledged = {body.encode() for word, body in said if word == "acknowledged"}
        assert len(acknowledged) == 10

        subscription = await transport.subscribe("orders", prefetch_messages=100)
        handled = await handle_until(subscription, everything - acknowledged)

        assert not acknowledged & set(handled)
        assert len(handled) == len(set(handled)) == 50
        stream = transport.full_name("orders")
        assert await plain.xlen(stream) == 0

        async def only_ours() -> bool:
            return len(await plain.xinfo_consumers(stream, stream)) == 1

        await eventually(only_ours, "the dead consumer forgotten")


async def test_a_message_that_kills_its_process_every_time_ends_among_the_dead_letters(
    redis_url: str, prefix: str
) -> None:
    async with keys_removed(redis_url, prefix), opened(redis_url, prefix) as transport:
        await transport.declare([QueueSpec("orders", delivery_limit=1)])
        await send(transport, a_message(b"deadly"), to="orders")
        for _ in range(2):
            process = await started(redis_url, prefix, "orders", "0")
            assert await lines(process, 1) == [["taken", "deadly"]]
            await killed(process)
        process = await started(redis_url, prefix, "orders", "0")
        dead = await transport.subscribe(dead_letter_queue("orders"), prefetch_messages=1)
        try:
            assert bodies(await take(dead, 1)) == [b"deadly"]
        finally:
            await killed(process)
