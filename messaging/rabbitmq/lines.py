"""A publishing channel, in two makes: through aiormq message by message, or a whole batch in one write."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiormq.abc import AbstractChannel
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic

from messaging.rabbitmq import wire
from messaging.rabbitmq.connection import RPC_SECONDS, Session, close_channel, when_closed
from messaging.rabbitmq.losses import BROKER_ERRORS, told, unharmed
from messaging.rabbitmq.tap import FrameTap

RETURNED: Final = "returned"
"""The outcome of a message that no queue takes."""
_NACKED: Final = "the broker refused it, because the queue is full or lost its majority; send it again later"


@dataclass(slots=True, eq=False)
class Parcel:
    """A message ready to be sent: where to, and its properties as bytes."""

    message_id: bytes
    exchange: str
    routing_key: str
    mandatory: bool
    properties: bytes
    body: bytes


class Batch:
    """Parcels under way together, and what became of each: None, `RETURNED`, or a problem."""

    __slots__ = ("_left", "done", "outcomes")

    def __init__(self, size: int) -> None:
        self.outcomes: list[str | None] = ["not confirmed in time"] * size
        self._left = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, index: int, outcome: str | None) -> None:
        """One has its outcome; the last one makes the batch done."""
        self.outcomes[index] = outcome
        self._left -= 1
        if self._left == 0 and not self.done.done():
            self.done.set_result(None)


class Line(Protocol):
    """One channel with publisher confirms. Nothing but publishing happens on it."""

    lost: asyncio.Future[str]
    """Done with the reason when the channel is gone."""

    def in_flight(self, message_id: bytes) -> bool:
        """Whether a message of this id waits for its confirm: a return could not be told from the other's."""
        ...

    async def freed(self) -> None:
        """Wait until one more is settled, or the line is lost."""
        ...

    async def clear(self) -> None:
        """Wait until the broker takes messages and the socket has room."""
        ...

    def send(self, parcels: Sequence[Parcel]) -> Batch:
        """Send all; no two with one id, none that is in flight."""
        ...


class _Freed:
    """Wakes whoever waits for an id to become free; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def tell(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)


class FastLine:
    """What is sent in one turn of the loop is one write; confirms and returns come straight from the socket.

    Open confirms stand in the order of their tags, so a multiple acknowledgement costs what it settles.
    """

    def __init__(self, tap: FrameTap, channel: AbstractChannel, frame_max: int) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._tap, self._number, self._frame_max = tap, channel.number, frame_max
        self._channel = channel  # aiormq's half of it lives as long as the line
        self._last_tag = 0
        self._open: dict[int, tuple[Batch, int, bytes]] = {}
        self._tags: dict[bytes, int] = {}
        self._returned: set[int] = set()
        self._freed = _Freed()
        self._unwritten: list[bytes] = []
        self._write_soon = asyncio.get_running_loop().call_soon
        tap.listen(channel.number, self)

    @classmethod
    async def opened(cls, session: Session) -> FastLine:
        """Open a channel of a tapped session and see with an unroutable message that all works as expected.

        Raises:
            NotAsExpected: it was confirmed, but not returned.
            TimeoutError: neither came.
        """
        assert session.tap is not None
        line = cls(session.tap, await session.channel(confirms=True), session.frame_max)
        probe = f"sagasmith-probe-{uuid.uuid4()}"
        batch = line.send([Parcel(probe.encode(), "", probe, True, _bare_properties(probe), b"")])
        try:
            async with asyncio.timeout(RPC_SECONDS):
                await line._answer_to(batch)
        except TimeoutError:
            await close_channel(line._channel)
            raise
        if line.lost.done():
            raise ConnectionError(line.lost.result())
        if batch.done.done() and batch.outcomes != [RETURNED]:
            raise NotAsExpected(f"a message to nowhere ended as {batch.outcomes}")
        return line

    async def _answer_to(self, batch: Batch) -> None:
        """Wait for the probe; not while the broker blocks publishers, because consumers must start to relieve it."""
        while not batch.done.done() and not self._tap.blocked:
            await asyncio.wait([batch.done], timeout=0.1)

    def in_flight(self, message_id: bytes) -> bool:
        """Whether a message of this id waits for its confirm."""
        return message_id in self._tags

    async def freed(self) -> None:
        """Wait until one more is settled, or the line is lost."""
        await self._freed.wait()

    async def clear(self) -> None:
        """Wait until the broker takes messages and the socket has room."""
        if self._tap.blocked:
            await self._tap.unblocked.wait()
        await self._tap.writable.wait()

    def send(self, parcels: Sequence[Parcel]) -> Batch:
        """Write all frames at once, with those of whoever else sends in this turn of the loop."""
        batch = Batch(len(parcels))
        if self.lost.done():
            for index in range(len(parcels)):
                batch.settle(index, f"not sent: {self.lost.result()}")
            return batch
        number, tag, frames = self._number, self._last_tag, list[bytes]()
        for index, parcel in enumerate(parcels):
            tag += 1
            self._open[tag] = (batch, index, parcel.message_id)
            self._tags[parcel.message_id] = tag
            frames.append(wire.publish_method(number, parcel.exchange, parcel.routing_key, parcel.mandatory))
            frames += wire.content_frames(number, parcel.properties, parcel.body, self._frame_max)
        self._last_tag = tag
        if not self._unwritten:
            self._write_soon(self._write)
        self._unwritten += frames
        return batch

    def _write(self) -> None:
        frames, self._unwritten = self._unwritten, []
        if not self.lost.done():  # on a channel that was closed meanwhile they would end the connection
            self._tap.write(frames)

    def confirmed(self, tag: int, *, multiple: bool, positive: bool) -> None:
        """The broker answers for one message, or for all up to it."""
        outcome = None if positive else _NACKED
        if multiple:
            while self._open and (oldest := next(iter(self._open))) <= tag:
                self._settle(oldest, outcome)
        elif tag in self._open:
            self._settle(tag, outcome)
        self._freed.tell()

    def _settle(self, tag: int, outcome: str | None) -> None:
        batch, index, message_id = self._open.pop(tag)
        del self._tags[message_id]
        if self._returned and tag in self._returned:
            self._returned.remove(tag)
            outcome = RETURNED
        batch.settle(index, outcome)

    def returned(self, method: bytes, properties: bytes) -> None:
        """A mandatory message has come back; its confirm follows."""
        message_id = wire.read_properties(properties).fields.get(wire.MESSAGE_ID, b"")
        tag = self._tags.get(message_id)
        if tag is not None:
            self._returned.add(tag)

    def delivered(self, method: bytes, properties: bytes, body: bytes) -> None:
        """Nothing is consumed on this channel."""

    def gone(self, reason: str) -> None:
        """End the line: whatever is open may have arrived."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        for tag in list(self._open):
            self._settle(tag, f"{reason}; it may have arrived")
        self._freed.tell()


def _bare_properties(message_id: str) -> bytes:
    return wire.Properties({wire.MESSAGE_ID: message_id.encode()}).encoded()


class NotAsExpected(Exception):
    """The libraries beneath behave otherwise than the fast line needs."""


class _Encoded(Basic.Properties):
    """Properties that are encoded already, in the shape in which aiormq takes them.

    aiormq knows a returned message by its id only, so one without gets an id here.
    """

    def __init__(self, raw: bytes, message_id: bytes) -> None:
        if not message_id:
            message_id = str(uuid.uuid4()).encode()
            properties = wire.read_properties(raw)
            properties.fields[wire.MESSAGE_ID] = message_id
            raw = properties.encoded()
        super().__init__(message_id=message_id.decode(errors="replace"))
        self._raw = raw

    def marshal(self) -> bytes:
        """The bytes as they are."""
        return self._raw


class PlainLine:
    """Publishes through aiormq's own channel: a task per message, and the library's own bookkeeping."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._in_flight: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = _Freed()
        when_closed(channel, self._closed)

    @classmethod
    async def opened(cls, session: Session) -> PlainLine:
        """Open a channel with confirms."""
        return cls(await session.channel(confirms=True))

    def in_flight(self, message_id: bytes) -> bool:
        """Whether a message of this id waits for its confirm."""
        return message_id in self._in_flight

    async def freed(self) -> None:
        """Wait until one more is settled, or the line is lost."""
        await self._freed.wait()

    async def clear(self) -> None:
        """Nothing to wait for: aiormq waits itself, message by message."""

    def send(self, parcels: Sequence[Parcel]) -> Batch:
        """Start a task for each."""
        batch = Batch(len(parcels))
        for index, parcel in enumerate(parcels):
            self._in_flight.add(parcel.message_id)
            task = asyncio.create_task(self._send(batch, index, parcel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return batch

    async def _send(self, batch: Batch, index: int, parcel: Parcel) -> None:
        outcome: str | None = None
        try:
            await unharmed(
                self._channel.basic_publish(
                    parcel.body,
                    exchange=parcel.exchange,
                    routing_key=parcel.routing_key,
                    properties=_Encoded(parcel.properties, parcel.message_id),
                    mandatory=parcel.mandatory,
                )
            )
        except PublishError:
            outcome = RETURNED
        except DeliveryError:
            outcome = _NACKED
        except BROKER_ERRORS as problem:
            outcome = f"{told(problem)}; it may have arrived"
        finally:
            self._in_flight.discard(parcel.message_id)
            self._freed.tell()
        batch.settle(index, outcome)

    def _closed(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        self._freed.tell()
