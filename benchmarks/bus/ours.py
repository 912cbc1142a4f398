"""The bus as its users use it: one `send` or `request` per message, a handler per message, nothing tuned."""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.bus.measuring import PREFETCH, Stopwatch, echo_running, many, options
from benchmarks.bus.orders import Book, Booked, an_order
from messaging import Bus, Service, ServiceRunner
from messaging.rabbitmq import RabbitTransport
from messaging.transport import QueueSpec


async def publish(transport: RabbitTransport, bus: Bus, chosen: argparse.Namespace) -> None:
    """Send orders, each confirmed."""
    await transport.declare([QueueSpec(chosen.queue)])
    watch = Stopwatch(chosen.messages)
    await many(chosen.messages, lambda number: bus.send(an_order(number), to=chosen.queue))
    watch.stop()


async def consume(transport: RabbitTransport, bus: Bus, chosen: argparse.Namespace) -> None:
    """Handle orders that wait in the queue, until the last is acknowledged."""
    await transport.declare([QueueSpec(chosen.queue)])
    await many(chosen.messages, lambda number: bus.send(an_order(number), to=chosen.queue))
    service, left, done = Service(chosen.queue, max_in_flight=PREFETCH // 2), chosen.messages, asyncio.Event()

    @service.handles(Book)
    async def book(command: Book) -> Booked:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()
        return Booked(booking=command.order_id)

    runner, watch = ServiceRunner(service, transport), Stopwatch(chosen.messages)
    await runner.start()
    await done.wait()
    await runner.stop()  # the last acknowledgements are out
    watch.stop()


async def request(transport: RabbitTransport, bus: Bus, chosen: argparse.Namespace) -> None:
    """Ask and be answered."""
    with echo_running(chosen):
        await bus.request(an_order(0), to=chosen.queue)
        watch = Stopwatch(chosen.messages)
        await many(chosen.messages, lambda number: bus.request(an_order(number), to=chosen.queue))
        watch.stop()


async def echo(transport: RabbitTransport, bus: Bus, chosen: argparse.Namespace) -> None:
    """Answer until killed."""
    service = Service(chosen.queue, max_in_flight=PREFETCH // 2)

    @service.handles(Book)
    async def book(command: Book) -> Booked:
        return Booked(booking=command.order_id)

    await ServiceRunner(service, transport).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def main() -> None:
    """Do the task that is asked for."""
    chosen = options()
    transport = RabbitTransport(chosen.broker)
    await transport.open()
    async with Bus(transport, reply_queue=f"{chosen.queue}.replies") as bus:
        await {"publish": publish, "consume": consume, "request": request, "echo": echo}[chosen.task](
            transport, bus, chosen
        )
    await transport.close()


if __name__ == "__main__":
    asyncio.run(main())
