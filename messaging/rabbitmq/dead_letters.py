"""Looking at dead letters, for which AMQP has no word.

They are consumed, and given back in the order in which they came. A quorum queue keeps that order for some thirty
messages of one consumer, and not when a channel is simply closed. So a consumer gets a small window, and
when all of that is in our hands the next one takes its place; in the end window after window is given back.
That a look counts as a delivery does no harm, because queues of dead letters have a delivery limit out of reach.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from typing import Final

from messaging.dead_letter_notes import DeadLetter, dead_letter
from messaging.errors import NotConfirmed, TransportError, UnknownQueue
from messaging.failpoints import reached
from messaging.rabbitmq import properties, wire
from messaging.rabbitmq.connection import CLOSE_SECONDS, RPC_SECONDS, Link
from messaging.rabbitmq.consumers import Arrival, Consumer, opened_consumer, taken_apart
from messaging.rabbitmq.lines import Parcel
from messaging.rabbitmq.losses import BROKER_ERRORS, told
from messaging.rabbitmq.publisher import Publisher, error_of
from messaging.rabbitmq.topology import Topology
from messaging.transport import dead_letter_queue

_WINDOW_MESSAGES: Final = 25
_QUIET_SECONDS: Final = 0.25
_WINDOWS_GIVEN_BACK_AT_ONCE: Final = 10
_TAKEN_BACK_WITHIN_SECONDS: Final = 2.0
_MOVE_TIMEOUT: Final = timedelta(seconds=30)


class RabbitLook:
    """The dead letters of one queue, held for as long as the look lasts."""

    def __init__(self, queue: str, topology: Topology, publisher: Publisher) -> None:
        self._queue, self._dead = queue, dead_letter_queue(queue)
        self._topology, self._publisher = topology, publisher
        self._left = 0
        self._buffer: deque[Arrival] = deque()
        self._in_hand: dict[int, None] = {}  # tags, oldest first
        self._began: list[int] = []  # the first tag that each consumer could have
        self._room = 0
        self._filled = asyncio.Event()
        self._consumer: Consumer | None = None

    async def begin(self, link: Link) -> None:
        """Begin to consume what is there now.

        Raises:
            UnknownQueue: there is no such queue of dead letters.
            TransportError: the broker went away.
        """
        there = await self._topology.state(self._dead)
        if there is None:
            raise UnknownQueue(self._queue, self._topology.full(self._dead), str(link.broker))
        self._left = there.ready
        try:
            self._consumer = await opened_consumer(await link.session(), _WINDOW_MESSAGES, self._arrived)
            self._consumer.lost.add_done_callback(lambda _: self._filled.set())
        except BROKER_ERRORS as problem:
            raise self._cut_short(told(problem)) from problem

    async def next(self) -> DeadLetter | None:
        """The next one, oldest first."""
        arrival = await self._next_arrival() if self._left > 0 else None
        if arrival is None:
            self._left = 0
            return None
        self._left -= 1
        envelope, _, problem = properties.decoded(taken_apart(arrival.properties), arrival.body)
        return dead_letter(envelope, self._queue, problem=problem, place=arrival)

    async def replay(self, letter: DeadLetter) -> None:
        """Publish the message to its queue; acknowledge the letter once that is confirmed."""
        arrival: Arrival = letter.place
        received = taken_apart(arrival.properties)
        message_id, target = received.fields.get(wire.MESSAGE_ID, b""), self._topology.full(self._queue)
        revived = properties.revived(received, letter.exchange, letter.routing_key)
        parcel = Parcel(message_id, "", target, True, revived, arrival.body)
        outcome = await self._publisher.move(parcel, _MOVE_TIMEOUT)
        if outcome is not None:
            raise error_of(letter.id, f"queue {target!r}", outcome)
        reached("dead_letters.replayed")
        try:
            await self.remove(letter)
        except TransportError as problem:
            twice = f"it is there, and among the dead letters as well: {problem}"
            raise NotConfirmed(letter.id, f"queue {target!r}", twice) from problem

    async def remove(self, letter: DeadLetter) -> None:
        """Acknowledge the letter."""
        arrival: Arrival = letter.place
        consumer = self._consuming()
        try:
            await consumer.acknowledge([(arrival.tag, False)])
        except BROKER_ERRORS as problem:
            raise self._cut_short(told(problem)) from problem
        del self._in_hand[arrival.tag]
        self._room += arrival.tag >= self._began[-1]

    async def end(self) -> None:
        """Give back what was not taken out, in order."""
        consumer = self._consumer
        if consumer is None:
            return
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._began and not consumer.lost.done():
                    await consumer.cancel()
                    await self._give_back(consumer)
        await consumer.close()

    async def _give_back(self, consumer: Consumer) -> None:
        """Give back in order, and return when the next look sees all of it.

        The queue is waited for, after the first window and then from time to time: of commands that it has no
        room for the broker makes fewer and larger ones, and loses their order.
        """
        ready = await self._topology.count(self._dead)
        windows = list(self._windows())
        for number, window in enumerate(windows, 1):
            await consumer.give_back([(window[-1], True)])
            ready += len(window)
            if number % _WINDOWS_GIVEN_BACK_AT_ONCE == 1 or number == len(windows):
                await self._taken_back(ready)

    def _windows(self) -> Iterator[list[int]]:
        """What is in our hands, by the consumer that was given it."""
        tags = list(self._in_hand)
        for begin, end in pairwise([*self._began, tags[-1] + 1 if tags else 0]):
            if window := tags[bisect_left(tags, begin) : bisect_left(tags, end)]:
                yield window

    async def _taken_back(self, ready: int) -> None:
        """Wait until so many are ready, unless others consume them meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_BACK_WITHIN_SECONDS):
                while await self._topology.count(self._dead) < ready:  # noqa: ASYNC110 - the broker tells nobody
                    await asyncio.sleep(0.005)

    async def _next_arrival(self) -> Arrival | None:
        """The next letter; None when it turns out that others have taken what was there."""
        began, looks = asyncio.get_running_loop().time(), 0
        while not self._buffer:
            if self._room == 0:
                await self._open_window()
                continue
            if await self._something_comes():
                continue
            looks = 0 if await self._topology.count(self._dead) else looks + 1
            if looks > 1:
                return None
            if asyncio.get_running_loop().time() - began > RPC_SECONDS:
                raise self._cut_short("the broker has dead letters and does not deliver them")
        return self._buffer.popleft()

    async def _something_comes(self) -> bool:
        self._filled.clear()
        self._consuming()
        try:
            async with asyncio.timeout(_QUIET_SECONDS):
                await self._filled.wait()
        except TimeoutError:
            return False
        self._consuming()
        return True

    async def _open_window(self) -> None:
        """Let another consumer come after the one that has been given all it may hold."""
        consumer = self._consuming()
        try:
            if self._began:
                await consumer.cancel()
            self._began.append(next(reversed(self._in_hand), 0) + 1)
            self._room = _WINDOW_MESSAGES
            await consumer.start(self._topology.full(self._dead))
        except BROKER_ERRORS as problem:
            raise self._cut_short(told(problem)) from problem

    def _arrived(self, arrival: Arrival) -> None:
        self._in_hand[arrival.tag] = None
        self._room -= 1
        self._buffer.append(arrival)
        self._filled.set()

    def _consuming(self) -> Consumer:
        consumer = self._consumer
        if consumer is None or consumer.lost.done():
            raise self._cut_short("it has ended" if consumer is None else consumer.lost.result())
        return consumer

    def _cut_short(self, why: str) -> TransportError:
        return TransportError(
            f"the look at queue {self._topology.full(self._dead)!r} was cut short: {why}. Nothing is lost; look again."
        )


@asynccontextmanager
async def looking(queue: str, link: Link, topology: Topology, publisher: Publisher) -> AsyncGenerator[RabbitLook]:
    """Look at the dead letters of a queue."""
    look = RabbitLook(queue, topology, publisher)
    try:
        await look.begin(link)
        yield look
    finally:
        await look.end()
