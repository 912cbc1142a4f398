"""Memory under backpressure: what a service holds while it can do nothing and ever more waits in its queue.

    python -m benchmarks.backpressure --amqp amqp://...

Twice a consumer stalls: its handlers never end, or its database is away. Each time it is started on a queue in which
1,000 messages wait, and on one with 50,000; the peaks of its resident memory are compared. A ratio near 1 says that
what waits is kept by the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
from uuid import uuid4

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.__main__ import one_run
from benchmarks.bus.__main__ import delete_queues
from benchmarks.bus.measuring import many
from benchmarks.bus.orders import Book, Booked
from benchmarks.numbers import markdown
from messaging import Bus, Service, ServiceRunner
from messaging.rabbitmq import RabbitTransport
from messaging.transport import QueueSpec

STALLS = ("handler", "database")
_NOBODY_LISTENS = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"


def a_service(queue: str, stall: str) -> Service:
    """A service of the usual settings that never gets anything done."""
    if stall == "database":
        service = Service(queue, sessions=async_sessionmaker(create_async_engine(_NOBODY_LISTENS)))
    else:
        service = Service(queue)

    @service.handles(Book)
    async def book(command: Book) -> Booked:
        await asyncio.Event().wait()
        return Booked(booking=command.order_id)

    return service


async def stalled(options: argparse.Namespace) -> None:
    """Run the service for a while, and print the most memory this process has used."""
    transport = RabbitTransport(options.amqp)
    await transport.open()
    runner = ServiceRunner(a_service(options.queue, options.stall), transport)
    await runner.start()
    await asyncio.sleep(options.seconds)
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
    os._exit(0)  # as if killed: what it has taken goes back to the queue


async def fill(options: argparse.Namespace, queue: str, messages: int) -> None:
    """Have so many orders wait in a queue."""
    order = Book(order_id="order", customer_id="x" * options.kib * 1024, cents=1)
    transport = RabbitTransport(options.amqp)
    await transport.open()
    async with Bus(transport) as bus:
        await transport.declare([QueueSpec(queue)])
        await many(messages, lambda _: bus.send(order, to=queue))
    await transport.close()


def peak_mib(options: argparse.Namespace, stall: str, waiting: int) -> float:
    """The peak of a process that stalls before so many waiting messages."""
    queue = f"bench-{uuid4().hex[:8]}"
    try:
        asyncio.run(fill(options, queue, waiting))
        of_it = ["--amqp", options.amqp, "--seconds", str(options.seconds), "--queue", queue, "--stall", stall]
        return one_run(["benchmarks.backpressure", *of_it])["peak_mib"]
    finally:
        asyncio.run(delete_queues(options.amqp, queue))


def table(options: argparse.Namespace) -> str:
    """A row for each stall, with the ratio of the peaks."""
    rows: list[list[object]] = []
    for stall in STALLS:
        few, many_more = (peak_mib(options, stall, waiting) for waiting in options.waiting)
        rows.append([stall, f"{few:.1f}", f"{many_more:.1f}", f"{many_more / few:.2f}"])
    return markdown(["what stalls", *(f"peak MiB, {waiting} waiting" for waiting in options.waiting), "ratio"], rows)


def main() -> None:
    """Parse; be the process that stalls, or start it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amqp", default=os.environ.get("SAGASMITH_TEST_AMQP_URL", ""))
    parser.add_argument("--waiting", type=int, nargs=2, default=[1000, 50_000], metavar=("FEW", "MANY"))
    parser.add_argument("--kib", type=int, default=1, help="the size of a message")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long it stalls: time to take all, if it did")
    parser.add_argument("--queue", default="", help=argparse.SUPPRESS)
    parser.add_argument("--stall", choices=STALLS, default="handler", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.amqp:
        parser.error("name the broker with --amqp")
    if options.queue:
        logging.basicConfig(level=logging.ERROR)  # that its database is away is meant to be
        asyncio.run(stalled(options))
    else:
        print(table(options))


if __name__ == "__main__":
    main()
