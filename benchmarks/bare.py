"""The yardstick: three aio-pika command/reply pairs one after the other per "saga", nothing persisted.

    python -m benchmarks.bare amqp://... --sagas 2000 --in-flight 200

Plain public calls of aio-pika on quorum queues with publisher confirms, one publish and one ack per message;
the echo participant runs in a process of its own, like the participants of the sagas.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from benchmarks.numbers import Cpu, percentile

_BODY = b'{"order":12345,"customer":"customer-42"}'
_QUORUM = {"x-queue-type": "quorum"}


async def declared(channel: AbstractChannel, name: str) -> None:
    """A quorum queue, as the services' are."""
    await channel.declare_queue(name, durable=True, arguments=_QUORUM)


async def echo(url: str, prefix: str) -> None:
    """Answer every command until terminated."""
    connection = await aio_pika.connect_robust(url)
    publishing, consuming = await connection.channel(), await connection.channel(publisher_confirms=False)
    await consuming.set_qos(prefetch_count=1000)

    async def answer(message: AbstractIncomingMessage) -> None:
        reply = aio_pika.Message(message.body, delivery_mode=2, correlation_id=message.message_id)
        await publishing.default_exchange.publish(reply, message.reply_to or "")
        await message.ack()

    for step in range(3):
        await declared(consuming, f"{prefix}{step}")
        await (await consuming.get_queue(f"{prefix}{step}")).consume(answer)
    print("ready", flush=True)
    await asyncio.Event().wait()


class Loop:
    """Keeps so many open at a time, each three round trips."""

    def __init__(self, channel: AbstractChannel, prefix: str, sagas: int) -> None:
        self._channel, self._prefix, self._left = channel, prefix, sagas
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self.took: list[float] = []

    async def reply(self, message: AbstractIncomingMessage) -> None:
        """Wake whoever waits for it."""
        await message.ack()
        self._waiting.pop(message.correlation_id or "").set_result(None)

    async def worker(self) -> None:
        """One open saga at a time."""
        while self._left > 0:
            self._left -= 1
            begun = time.perf_counter()
            for step in range(3):
                await self._round_trip(f"{self._prefix}{step}")
            self.took.append((time.perf_counter() - begun) * 1000)

    async def _round_trip(self, queue: str) -> None:
        message_id = str(uuid4())
        answered = self._waiting[message_id] = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(_BODY, delivery_mode=2, message_id=message_id, reply_to=f"{self._prefix}replies")
        await self._channel.default_exchange.publish(message, queue)
        await answered


async def measure(options: argparse.Namespace, prefix: str, echo_pid: int) -> dict[str, float]:
    """Run it."""
    connection = await aio_pika.connect_robust(options.broker)
    publishing, consuming = await connection.channel(), await connection.channel(publisher_confirms=False)
    await consuming.set_qos(prefetch_count=1000)
    await declared(consuming, f"{prefix}replies")
    loop = Loop(publishing, prefix, options.sagas)
    await (await consuming.get_queue(f"{prefix}replies")).consume(loop.reply)
    begun, cpu = time.perf_counter(), Cpu(echo_pid)
    await asyncio.gather(*(loop.worker() for _ in range(options.in_flight)))
    seconds, micros = time.perf_counter() - begun, cpu.micros()
    for name in ("replies", "0", "1", "2"):
        await consuming.queue_delete(f"{prefix}{name}")
    await connection.close()
    took = sorted(loop.took)
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        "p50_ms": round(percentile(took, 50), 1),
        "p99_ms": round(percentile(took, 99), 1),
        "cpu_us_per_saga": round(micros / options.sagas),
        "cpu_us_per_command": round(micros / options.sagas / 3),
    }


def main() -> None:
    """Start the echo, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker")
    parser.add_argument("--sagas", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--echo", default="")
    options = parser.parse_args()
    if options.echo:
        asyncio.run(echo(options.broker, options.echo))
        return
    prefix = f"bench-{uuid4().hex[:8]}."
    command = [sys.executable, "-m", "benchmarks.bare", options.broker, "--echo", prefix]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        print(json.dumps(asyncio.run(measure(options, prefix, process.pid))))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
