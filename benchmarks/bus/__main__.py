"""The bus beside raw aio-pika doing the same work with the same guarantees; medians and ratios.

    python -m benchmarks.bus --amqp amqp://... --rounds 5 --messages 3000
    python -m benchmarks.bus --amqp amqp://... --peers    # other people's buses as well; or: make bench-peers

Publishing with confirms, handling what waits in a queue, and request/reply, 100 at a time, on quorum queues. Each
contender runs once a round in a process of its own, so that a noisy machine hits each alike: read the ratios. The
processor's time is the contender's alone, without that of the broker and of whoever answers requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from importlib.metadata import version
from uuid import uuid4

from benchmarks.__main__ import one_run
from benchmarks.bus.contenders import BASE, OURS, PEERS, Contender
from benchmarks.numbers import markdown, median

TASKS = ("publish", "consume", "request")

Results = dict[tuple[str, str], list[dict[str, float]]]


async def delete_queues(amqp: str, queue: str) -> None:
    """Leave nothing behind on the broker."""
    import aio_pika

    connection = await aio_pika.connect(amqp)
    async with connection, connection.channel() as channel:
        for name in (queue, f"{queue}.dead", f"{queue}.replies", f"{queue}.replies.dead"):
            await channel.queue_delete(name)
        for name in (f"{queue}.direct", f"{queue}.topic"):
            await channel.exchange_delete(name)


def one_task(options: argparse.Namespace, task: str, module: str, python: str) -> dict[str, float]:
    """One run on queues of its own."""
    queue = f"bench-{uuid4().hex[:8]}"
    try:
        arguments = ["--broker", options.amqp, "--queue", queue, "--messages", str(options.messages)]
        return one_run([module, task, *arguments], python)
    finally:
        asyncio.run(delete_queues(options.amqp, queue))


def run_all(options: argparse.Namespace, contenders: tuple[Contender, ...]) -> Results:
    """Round after round, each contender once a round with each task."""
    results: Results = {}
    pythons = [contender.python() for contender in contenders]  # nothing is installed between the rounds
    for number in range(1, options.rounds + 1):
        for task in TASKS:
            for contender, python in zip(contenders, pythons, strict=True):
                result = one_task(options, task, contender.module, python)
                results.setdefault((task, contender.name), []).append(result)
                told = f"round {number}/{options.rounds}  {task:8} {contender.name:20} {result}"
                print(told, file=sys.stderr, flush=True)
    return results


def summary(results: Results) -> str:
    """Medians over the rounds, and the ratio of the rates to raw aio-pika's."""
    rows: list[list[object]] = []
    for (task, name), runs in results.items():
        rate, base = (median([run["per_second"] for run in group]) for group in (runs, results[task, BASE]))
        processor = median([run["processor_us"] for run in runs])
        rows.append([task, name, rate, processor, f"{rate / base:.2f}"])
    return markdown(["task", "", "messages/s", "processor µs per message", "ratio to raw"], rows)


def main() -> None:
    """Parse, run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amqp", default=os.environ.get("SAGASMITH_TEST_AMQP_URL", ""))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--peers", action="store_true", help="measure other people's buses too; installs them once")
    options = parser.parse_args()
    if not options.amqp:
        parser.error("name the broker with --amqp")
    contenders = OURS + PEERS if options.peers else OURS
    print(summary(run_all(options, contenders)))
    packages = [f"aio-pika=={version('aio-pika')}", *(one.package for one in contenders if one.package)]
    print(f"\nmedians of {options.rounds} rounds; Python {platform.python_version()}, {', '.join(packages)}")


if __name__ == "__main__":
    main()
