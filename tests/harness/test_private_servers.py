"""Private servers come back with their data, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import asyncpg
import pytest
import redis

from tests.support.probes import NotAnswering, probe_redis
from tests.support.processes import process_is_alive
from tests.support.services import (
    PrivatePostgres,
    PrivateRabbit,
    PrivateRedis,
    ServerDidNotStart,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.torture  # tests/faults restart one each time
async def test_a_killed_rabbit_comes_back_with_its_queue_and_message(private_rabbit: PrivateRabbit) -> None:
    async with await aio_pika.connect(private_rabbit.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("letters", durable=True)
        letter = aio_pika.Message(b"dear", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(letter, routing_key="letters")

    private_rabbit.kill()
    private_rabbit.restart()

    async with await aio_pika.connect(private_rabbit.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("letters", durable=True)
        assert (await queue.get()).body == b"dear"
    assert "letters" in private_rabbit.ctl("list_queues", "-q", "name")


async def test_a_killed_postgres_comes_back_with_what_was_committed(private_postgres: PrivatePostgres) -> None:
    connection = await asyncpg.connect(private_postgres.url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

    private_postgres.kill()
    connection.terminate()
    private_postgres.restart()

    connection = await asyncpg.connect(private_postgres.url)
    assert await connection.fetchval("SELECT number FROM kept") == 7
    await connection.close()


def test_a_killed_redis_comes_back_with_what_was_written(private_redis: PrivateRedis) -> None:
    with redis.Redis.from_url(private_redis.url) as client:
        client.set("kept", "7")

    private_redis.kill()
    with pytest.raises(NotAnswering):
        probe_redis(private_redis.url)
    private_redis.restart()

    with redis.Redis.from_url(private_redis.url) as client:
        assert client.get("kept") == b"7"


def test_a_paused_server_does_not_answer_until_it_is_resumed(private_redis: PrivateRedis) -> None:
    with redis.Redis.from_url(private_redis.url, socket_timeout=0.2) as client:
        private_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()

        private_redis.resume()
        assert client.ping()


def test_a_server_that_cannot_start_says_so_with_its_log(private_redis: PrivateRedis) -> None:
    assert private_redis.pid  # so the program is installed

    class BrokenRedis(PrivateRedis):
        def _command(self) -> list[str]:
            return [*super()._command(), "--no-such-setting", "1"]

    server = BrokenRedis()
    with pytest.raises(ServerDidNotStart, match="no-such-setting"):
        server.start()
    assert server.pid is None


def test_a_server_ends_with_a_test_run_that_was_killed(private_redis: PrivateRedis) -> None:
    assert private_redis.pid  # so the program is installed
    program = """
import os, signal
from tests.support.services import PrivateRedis

server = PrivateRedis().start()
print(server.pid, server.directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    pid, directory = run.stdout.split()

    deadline = time.monotonic() + 10
    while process_is_alive(int(pid)) or Path(directory).exists():
        assert time.monotonic() < deadline, f"process {pid} or {directory} is still there"
        time.sleep(0.02)
