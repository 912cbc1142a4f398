"""A bus in memory, to ask a service things."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from messaging.codec import decode_body
from messaging.compose import compose_command, compose_event
from messaging.consumer import ServiceRunner
from messaging.envelope import Destination, Envelope, HeaderValue, to_queue, to_subscribers
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event
from messaging.service import Service
from messaging.transport import Outgoing, QueueSpec, Subscription, Transport, dead_letter_queue

REPLIES = "replies"
SECOND = timedelta(seconds=1)


@dataclass
class Asking:
    """Sends to a running service and reads what it answers."""

    transport: Transport
    service: Service
    replies: Subscription
    dead: Subscription
    runner: ServiceRunner
    seen: list[Envelope] = field(default_factory=list)

    async def send(
        self, command: Command[Any], headers: dict[str, HeaderValue] | None = None, reply_to: str = REPLIES
    ) -> Envelope:
        envelope = compose_command(command, reply_to=reply_to, headers=headers)
        await self.send_raw(envelope)
        return envelope

    async def send_raw(self, envelope: Envelope, destination: Destination | None = None) -> None:
        outgoing = Outgoing(envelope, destination or to_queue(self.service.name))
        assert await self.transport.publish([outgoing], timeout=SECOND) == [None]

    async def publish(self, event: Event) -> Envelope:
        envelope = compose_event(event)
        await self.send_raw(envelope, to_subscribers(event.wire_name))
        return envelope

    async def reply(self) -> Envelope:
        (delivery,) = await self.replies.take(1)
        await self.replies.ack([delivery])
        return delivery.envelope

    async def ask(self, command: Command[Any], **options: Any) -> Envelope:
        sent = await self.send(command, **options)
        reply = await self.reply()
        assert reply.correlation_id == sent.correlation_id
        return reply

    async def dead_letter(self) -> Envelope:
        (delivery,) = await self.dead.take(1)
        await self.dead.ack([delivery])
        return delivery.envelope


@asynccontextmanager
async def running(service: Service, transport: Transport | None = None, **options: Any) -> AsyncIterator[Asking]:
    """Run a service until the block ends."""
    transport = transport or MemoryTransport()
    await transport.open()
    await transport.declare([QueueSpec(REPLIES)])
    runner = ServiceRunner(service, transport, **options)
    await runner.start()
    replies = await transport.subscribe(REPLIES, prefetch_messages=100)
    dead = await transport.subscribe(dead_letter_queue(service.name), prefetch_messages=100)
    try:
        yield Asking(transport, service, replies, dead, runner)
    finally:
        await runner.stop()
        await transport.close()


@contextmanager
def noticing(logger: str, text: str) -> Iterator[asyncio.Event]:
    """Give an event that is set when this logger says something with this text."""
    noticed = asyncio.Event()

    class Notice(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                noticed.set()

    handler = Notice()
    logging.getLogger(logger).addHandler(handler)
    try:
        yield noticed
    finally:
        logging.getLogger(logger).removeHandler(handler)


__all__ = ["REPLIES", "SECOND", "Asking", "decode_body", "noticing", "running"]
