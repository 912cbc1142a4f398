"""FastStream: confirmed, mandatory and persistent like ours; replies come past the queues, one at a time."""

from __future__ import annotations

import argparse
import asyncio

from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from pydantic import BaseModel

from benchmarks.bus.measuring import PREFETCH, Stopwatch, echo_running, many, options


class Book(BaseModel):
    order_id: str
    customer_id: str
    cents: int


class Booked(BaseModel):
    booking: str


def an_order(number: int) -> Book:
    return Book(order_id=f"order-{number:08}", customer_id="customer-42", cents=number)


def a_broker(chosen: argparse.Namespace) -> RabbitBroker:
    """A client; closing it lets handlers finish."""
    channel = Channel(prefetch_count=PREFETCH, on_return_raises=True)
    return RabbitBroker(chosen.broker, default_channel=channel, graceful_timeout=30, logger=None)


def the_queue(chosen: argparse.Namespace) -> RabbitQueue:
    return RabbitQueue(chosen.queue, queue_type=QueueType.QUORUM, durable=True)


async def send_all(broker: RabbitBroker, chosen: argparse.Namespace) -> None:
    await many(chosen.messages, lambda number: broker.publish(an_order(number), chosen.queue, persist=True))


async def publish(chosen: argparse.Namespace) -> None:
    """Send orders, each confirmed."""
    async with a_broker(chosen) as broker:
        await broker.declare_queue(the_queue(chosen))
        watch = Stopwatch(chosen.messages)
        await send_all(broker, chosen)
        watch.stop()


async def consume(chosen: argparse.Namespace) -> None:
    """Handle orders that wait in the queue, until the last is acknowledged."""
    broker, left, done = a_broker(chosen), chosen.messages, asyncio.Event()

    @broker.subscriber(the_queue(chosen))
    async def book(order: Book) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    async with broker:
        await broker.declare_queue(the_queue(chosen))
        await send_all(broker, chosen)
        watch = Stopwatch(chosen.messages)
        await broker.start()
        await done.wait()
    watch.stop()


async def request(chosen: argparse.Namespace) -> None:
    """Ask and be answered."""

    async def ask(number: int) -> Booked:
        reply = await broker.request(an_order(number), chosen.queue, persist=True, timeout=None)
        return Booked.model_validate(await reply.decode())

    async with a_broker(chosen) as broker:
        with echo_running(chosen):
            await ask(0)
            watch = Stopwatch(chosen.messages)
            await many(chosen.messages, ask)
            watch.stop()


async def echo(chosen: argparse.Namespace) -> None:
    """Answer until killed."""
    broker = a_broker(chosen)

    @broker.subscriber(the_queue(chosen))
    async def book(order: Book) -> Booked:
        return Booked(booking=order.order_id)

    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    chosen = options()
    asyncio.run({"publish": publish, "consume": consume, "request": request, "echo": echo}[chosen.task](chosen))
