"""What every contender needs."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

AT_ONCE = 100
"""Publishes that wait for their confirm, and requests that wait for their reply, at a time."""
PREFETCH = 128


def options() -> argparse.Namespace:
    """What the driver tells a contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["publish", "consume", "request", "echo"])
    parser.add_argument("--broker", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--messages", type=int, required=True)
    return parser.parse_args()


class Stopwatch:
    """Wall and processor time of this process between `start` and `stop`."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._wall = self._processor = 0.0
        self.start()

    def start(self) -> None:
        """Begin, again if it was begun."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Print the result as the last line of this process."""
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        result = {
            "per_second": round(self._messages / wall, 1),
            "processor_us": round(processor / self._messages * 1e6, 1),
        }
        print(json.dumps(result), flush=True)


async def many(count: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Do it so often, so many at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


@contextmanager
def echo_running(chosen: argparse.Namespace) -> Iterator[None]:
    """The service that answers requests, in a process of its own."""
    module = sys.modules["__main__"].__spec__
    assert module is not None
    arguments = ["--broker", chosen.broker, "--queue", chosen.queue, "--messages", str(chosen.messages)]
    command = [sys.executable, "-m", module.name, "echo", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
