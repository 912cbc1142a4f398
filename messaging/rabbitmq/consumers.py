"""A consuming channel, in two makes: straight from the socket, or through aiormq."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeAlias

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from messaging.rabbitmq import wire
from messaging.rabbitmq.connection import RPC_SECONDS, Session, close_channel, when_closed
from messaging.rabbitmq.losses import unharmed
from messaging.rabbitmq.properties import from_aiormq
from messaging.rabbitmq.wire import LONGLONG, Properties

RawProperties: TypeAlias = bytes | Basic.Properties


class Arrival(NamedTuple):
    """A delivery as it came in: nothing is decoded before somebody takes it."""

    tag: int
    redelivered: bool
    properties: RawProperties
    body: bytes
    address: bytes = b""
    """The exchange and routing key it was published with; see `wire.read_address`."""


def taken_apart(raw: RawProperties) -> Properties:
    """The properties of an arrival."""
    return wire.read_properties(raw) if isinstance(raw, bytes) else from_aiormq(raw)


class Consumer(Protocol):
    """One consumer on a channel of its own, until the channel is lost."""

    lost: asyncio.Future[str]

    async def start(self, queue: str) -> None:
        """Ask for deliveries. The first ones may come before this returns."""
        ...

    async def acknowledge(self, acks: Iterable[tuple[int, bool]]) -> None:
        """Send acknowledgements, as (tag, multiple)."""
        ...

    async def give_back(self, nacks: Iterable[tuple[int, bool]]) -> None:
        """Have deliveries go back to the queue, as (tag, multiple)."""
        ...

    async def cancel(self) -> None:
        """Receive no more; the channel stays open for what is unsettled."""
        ...

    async def close(self) -> None:
        """Close the channel."""
        ...


async def opened_consumer(session: Session, prefetch_messages: int, arrived: Callable[[Arrival], None]) -> Consumer:
    """A consumer on a new channel, to be started; `arrived` is called for each delivery and must only note it."""
    channel = await session.channel()
    try:
        await unharmed(channel.basic_qos(prefetch_count=prefetch_messages, timeout=RPC_SECONDS))
    except BaseException:
        await close_channel(channel)
        raise
    if session.tap is None:
        return _PlainConsumer(channel, arrived)
    return _FastConsumer(session, channel, arrived)


class _PlainConsumer:
    """Deliveries come and acknowledgements leave through aiormq."""

    def __init__(self, channel: AbstractChannel, arrived: Callable[[Arrival], None]) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._arrived = arrived
        self._consumer_tag = ""
        when_closed(channel, self._lose)
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)

    async def start(self, queue: str) -> None:
        """Ask for deliveries."""
        started = await unharmed(self._channel.basic_consume(queue, self._on_message, timeout=RPC_SECONDS))
        self._consumer_tag = started.consumer_tag or ""

    async def acknowledge(self, acks: Iterable[tuple[int, bool]]) -> None:
        """Send acknowledgements."""
        for tag, multiple in acks:
            await unharmed(self._channel.basic_ack(tag, multiple=multiple, wait=False))

    async def give_back(self, nacks: Iterable[tuple[int, bool]]) -> None:
        """Have deliveries go back to the queue."""
        for tag, multiple in nacks:
            await unharmed(self._channel.basic_nack(tag, multiple=multiple, requeue=True, wait=False))

    async def cancel(self) -> None:
        """Receive no more."""
        await unharmed(self._channel.basic_cancel(self._consumer_tag, timeout=RPC_SECONDS))
        await asyncio.sleep(0)  # aiormq starts a task per delivery: let the last ones run

    async def close(self) -> None:
        """Close the channel."""
        await close_channel(self._channel)

    async def _on_message(self, message: DeliveredMessage) -> None:
        if not self.lost.done():
            self._arrived(
                Arrival(
                    message.delivery_tag or 0,
                    bool(message.redelivered),
                    message.header.properties,
                    message.body,
                    wire.publish_address(message.exchange or "", message.routing_key or ""),
                )
            )

    def _on_cancel(self, _: Basic.Cancel) -> None:
        self._lose("consumer cancelled by the broker; was its queue deleted?")

    def _lose(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)


class _FastConsumer(_PlainConsumer):
    """Deliveries come straight from the socket and acknowledgements leave in one write."""

    def __init__(self, session: Session, channel: AbstractChannel, arrived: Callable[[Arrival], None]) -> None:
        super().__init__(channel, arrived)
        assert session.tap is not None
        self._tap, self._number = session.tap, channel.number
        self._tap.listen(self._number, self)

    async def acknowledge(self, acks: Iterable[tuple[int, bool]]) -> None:
        """Send acknowledgements."""
        self._write(wire.ack_frame(self._number, tag, multiple) for tag, multiple in acks)

    async def give_back(self, nacks: Iterable[tuple[int, bool]]) -> None:
        """Have deliveries go back to the queue."""
        self._write(wire.requeue_frame(self._number, tag, multiple) for tag, multiple in nacks)

    def _write(self, frames: Iterable[bytes]) -> None:
        if not self.lost.done():
            self._tap.write(frames)

    def delivered(self, method: bytes, properties: bytes, body: bytes) -> None:
        """A whole message has come."""
        if not self.lost.done():
            at = 5 + method[4]
            tag, redelivered = LONGLONG.unpack_from(method, at)[0], method[at + 8] & 1 == 1
            self._arrived(Arrival(tag, redelivered, properties, body, method[at + 9 :]))

    def returned(self, method: bytes, properties: bytes) -> None:
        """Nothing is published on this channel."""

    def confirmed(self, tag: int, *, multiple: bool, positive: bool) -> None:
        """Nothing is published on this channel."""

    def gone(self, reason: str) -> None:
        """The channel or its connection is gone."""
        self._lose(reason)
