"""PikaBus: confirmed, mandatory and persistent like ours; it has no requests, so replies are matched here."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from PikaBus.abstractions.AbstractPikaBus import AbstractPikaBus
from PikaBus.PikaBusSetup import PikaBusSetup

from benchmarks.bus.measuring import PREFETCH, Stopwatch, echo_running, many, options

Payload = dict[str, Any]


def an_order(number: int) -> Payload:
    return {"order_id": f"order-{number:08}", "customer_id": "customer-42", "cents": number}


def a_setup(chosen: argparse.Namespace, listens_to: str) -> PikaBusSetup:
    """A client whose exchanges are of this run alone."""
    return PikaBusSetup(
        chosen.broker,
        defaultListenerQueue=listens_to,
        defaultListenerQueueSettings={"arguments": {"x-queue-type": "quorum"}},
        defaultDirectExchange=f"{chosen.queue}.direct",
        defaultTopicExchange=f"{chosen.queue}.topic",
        defaultPrefetchCount=PREFETCH,
        defaultConcurrency=PREFETCH // 2,
        stopConsumersAtExit=False,
    )


async def send_all(setup: PikaBusSetup, chosen: argparse.Namespace) -> None:
    bus = await setup.CreateBus()
    await many(chosen.messages, lambda number: bus.Send(an_order(number), queue=chosen.queue))
    await bus.Close()


async def publish(chosen: argparse.Namespace) -> None:
    """Send orders, each confirmed."""
    async with a_setup(chosen, chosen.queue) as setup:
        await setup.Init()
        watch = Stopwatch(chosen.messages)
        await send_all(setup, chosen)
        watch.stop()


async def consume(chosen: argparse.Namespace) -> None:
    """Handle orders that wait in the queue, until the last is acknowledged."""
    left, done = chosen.messages, asyncio.Event()

    async def book(payload: Payload, **_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    async with a_setup(chosen, chosen.queue) as setup:
        await setup.Init()
        await send_all(setup, chosen)
        setup.AddMessageHandler(book)
        watch = Stopwatch(chosen.messages)
        await setup.StartConsumers()
        await done.wait()
    watch.stop()


async def request(chosen: argparse.Namespace) -> None:
    """Ask and be answered: who asks listens to a queue of its own."""
    waiting: dict[str, asyncio.Future[str]] = {}

    async def answered(payload: Payload, **_: object) -> None:
        waiting.pop(payload["booking"]).set_result(payload["booking"])

    async with a_setup(chosen, f"{chosen.queue}.replies") as setup:
        setup.AddMessageHandler(answered)
        await setup.StartConsumers()
        bus = await setup.CreateBus()

        async def ask(number: int) -> str:
            order = an_order(number)
            reply = waiting[order["order_id"]] = asyncio.get_running_loop().create_future()
            await bus.Send(order, queue=chosen.queue)
            return await reply

        with echo_running(chosen):
            await ask(chosen.messages)
            watch = Stopwatch(chosen.messages)
            await many(chosen.messages, ask)
            watch.stop()
        await bus.Close()


async def echo(chosen: argparse.Namespace) -> None:
    """Answer until killed: the reply is confirmed before the order is acknowledged."""

    async def book(payload: Payload, bus: AbstractPikaBus, **_: object) -> None:
        await bus.Reply({"booking": payload["order_id"]})

    setup = a_setup(chosen, chosen.queue)
    setup.AddMessageHandler(book)
    await setup.StartConsumers()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    chosen = options()
    asyncio.run({"publish": publish, "consume": consume, "request": request, "echo": echo}[chosen.task](chosen))
