"""Raw aio-pika with our guarantees: quorum queues, confirms, mandatory, persistent, acknowledged after handling."""

from __future__ import annotations

import argparse
import asyncio
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from benchmarks.bus.measuring import PREFETCH, Stopwatch, echo_running, many, options
from benchmarks.bus.orders import Book, Booked, an_order

_QUORUM = {"x-queue-type": "quorum"}


class Raw:
    """A connection each for publishing and consuming, as the bus has them."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen

    async def open(self) -> None:
        """Connect and declare."""
        self.connections = [await aio_pika.connect_robust(self.chosen.broker) for _ in range(2)]
        self.publishing = await self.connections[0].channel(on_return_raises=True)
        self.consuming: AbstractChannel = await self.connections[1].channel(publisher_confirms=False)
        await self.consuming.set_qos(prefetch_count=PREFETCH)
        self.queue = await self.consuming.declare_queue(self.chosen.queue, durable=True, arguments=_QUORUM)

    async def close(self) -> None:
        """Disconnect."""
        for connection in self.connections:
            await connection.close()

    async def send(self, number: int, reply_to: str = "") -> str:
        """Publish an order, confirmed; returns its id."""
        message_id = str(uuid4())
        message = aio_pika.Message(
            an_order(number).model_dump_json().encode(),
            delivery_mode=2,
            message_id=message_id,
            content_type="application/json",
            type="book",
            reply_to=reply_to or None,
        )
        await self.publishing.default_exchange.publish(message, self.chosen.queue, mandatory=True)
        return message_id

    async def publish(self) -> None:
        """Send orders, each confirmed."""
        watch = Stopwatch(self.chosen.messages)
        await many(self.chosen.messages, self.send)
        watch.stop()

    async def consume(self) -> None:
        """Handle orders that wait in the queue, until the last is acknowledged."""
        await many(self.chosen.messages, self.send)
        left, done = self.chosen.messages, asyncio.Event()

        async def book(message: AbstractIncomingMessage) -> None:
            nonlocal left
            Book.model_validate_json(message.body)
            await message.ack()
            left -= 1
            if left == 0:
                done.set()

        watch = Stopwatch(self.chosen.messages)
        await self.queue.consume(book)
        await done.wait()
        await self.consuming.close()
        watch.stop()

    async def request(self) -> None:
        """Ask and be answered."""
        waiting: dict[str, asyncio.Future[Booked]] = {}
        replies = await self.consuming.declare_queue(f"{self.chosen.queue}.replies", durable=True, arguments=_QUORUM)

        async def answered(message: AbstractIncomingMessage) -> None:
            waiting[message.correlation_id or ""].set_result(Booked.model_validate_json(message.body))
            await message.ack()

        async def ask(number: int) -> Booked:
            message_id = str(uuid4())
            reply = waiting[message_id] = asyncio.get_running_loop().create_future()
            message = aio_pika.Message(
                an_order(number).model_dump_json().encode(),
                delivery_mode=2,
                message_id=message_id,
                correlation_id=message_id,
                content_type="application/json",
                type="book",
                reply_to=replies.name,
            )
            await self.publishing.default_exchange.publish(message, self.chosen.queue, mandatory=True)
            try:
                return await reply
            finally:
                del waiting[message_id]

        await replies.consume(answered)
        with echo_running(self.chosen):
            await ask(0)
            watch = Stopwatch(self.chosen.messages)
            await many(self.chosen.messages, ask)
            watch.stop()

    async def echo(self) -> None:
        """Answer until killed: the reply is confirmed before the order is acknowledged."""

        async def book(message: AbstractIncomingMessage) -> None:
            booked = Booked(booking=Book.model_validate_json(message.body).order_id)
            reply = aio_pika.Message(
                booked.model_dump_json().encode(),
                delivery_mode=2,
                message_id=str(uuid4()),
                correlation_id=message.correlation_id,
                content_type="application/json",
            )
            await self.publishing.default_exchange.publish(reply, message.reply_to or "", mandatory=True)
            await message.ack()

        await self.queue.consume(book)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def main() -> None:
    """Do the task that is asked for."""
    raw = Raw(options())
    await raw.open()
    await {"publish": raw.publish, "consume": raw.consume, "request": raw.request, "echo": raw.echo}[raw.chosen.task]()
    await raw.close()


if __name__ == "__main__":
    asyncio.run(main())
