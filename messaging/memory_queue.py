"""A queue inside the process: what waits, what is put off, and what has died."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol, TypeAlias

from messaging.dead_letter_notes import DeadLetter, Notes, dead_letter
from messaging.envelope import Destination, Envelope
from messaging.errors import Unroutable

Keep: TypeAlias = Callable[[str, Envelope], Awaitable[None]]
"""Keeps a dead letter of a queue, with the notes among its headers, or raises `PublishError`."""


class Consumer(Protocol):
    """Who takes from a queue."""

    def give_back(self) -> list[Entry]:
        """End with the transport and hand over what was not settled, oldest first."""
        ...


@dataclass(slots=True)
class Handling:
    """How many copies of a message are yet to be settled."""

    open: int = 0
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self) -> None:
        """One copy less."""
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Entry:
    """A message in one queue."""

    envelope: Envelope
    destination: Destination
    """Where it was published to."""
    handling: Handling | None = None
    attempt: int = 1
    redeliveries: int = 0

    def settle(self) -> None:
        """Tell who waits for it that it is handled."""
        if self.handling is not None:
            self.handling.settle()


@dataclass(slots=True, eq=False)
class Queue:
    """What waits, who waits for it, and what is put off."""

    name: str
    ready: deque[Entry] = field(default_factory=deque[Entry])
    subscriptions: list[Consumer] = field(default_factory=list[Consumer])
    delivery_limit: int = 20
    owner: str = ""
    dead: Queue | None = None
    keep: Keep | None = None
    """Who keeps dead letters instead."""
    _waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])
    _put_off: dict[Entry, tuple[float, asyncio.TimerHandle]] = field(
        default_factory=dict[Entry, tuple[float, asyncio.TimerHandle]]
    )

    def put(self, entry: Entry) -> None:
        """Append it, and wake who waits."""
        self.ready.append(entry)
        if self._waiting:
            self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed(self) -> None:
        """Wait until somebody wakes all that wait."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in self._waiting:
                self._waiting.remove(future)
            raise

    def put_later(self, entry: Entry, after: timedelta) -> None:
        """Append it when that time has passed, as the next attempt."""
        entry.attempt += 1
        self._start_timer(entry, time.monotonic() + after.total_seconds())

    def _start_timer(self, entry: Entry, due: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, due - time.monotonic()), self._put_now, entry)
        self._put_off[entry] = (due, timer)

    def _put_now(self, entry: Entry) -> None:
        self._put_off.pop(entry, None)
        self.put(entry)

    async def bury(self, entry: Entry, reason: str, detail: str) -> None:
        """Put it among the dead letters, with the notes.

        Raises:
            PublishError: whoever is to keep it could not.
        """
        letter = self._letter(entry, reason, detail, attempts=entry.attempt)
        if self.keep is None:
            self._lay_out(entry, letter)
        else:
            await self.keep(self.name, letter)

    def _letter(self, entry: Entry, reason: str, detail: str, *, attempts: int) -> Envelope:
        envelope, destination = entry.envelope, entry.destination
        notes = Notes(reason, detail, attempts, self.name, destination.exchange, destination.routing_key)
        return replace(envelope, headers={**envelope.headers, **notes.headers()})

    def _lay_out(self, entry: Entry, letter: Envelope) -> None:
        if self.dead is not None:
            self.dead.put(Entry(letter, entry.destination))

    def suspend(self) -> None:
        """Take back what is in flight and stop the timers."""
        returned = [entry for subscription in self.subscriptions for entry in subscription.give_back()]
        self.subscriptions.clear()
        self._return_to_head(returned)
        for _, timer in self._put_off.values():
            timer.cancel()
        self.wake()

    def resume(self) -> None:
        """Start the timers again, on the loop that runs now."""
        for entry, (due, timer) in list(self._put_off.items()):
            timer.cancel()
            self._start_timer(entry, due)

    def _return_to_head(self, entries: Iterable[Entry]) -> None:
        alive: list[Entry] = []
        for entry in entries:
            entry.redeliveries += 1
            if entry.redeliveries > self.delivery_limit:
                attempts = entry.attempt - 1 + entry.redeliveries
                detail = f"came back {entry.redeliveries} times"
                self._lay_out(entry, self._letter(entry, "delivery-limit", detail, attempts=attempts))
                entry.settle()
            else:
                alive.append(entry)
        self.ready.extendleft(reversed(alive))


class MemoryLook:
    """The dead letters of one queue as they were when the look began."""

    def __init__(self, name: str, dead: Queue, queues: Mapping[str, Queue]) -> None:
        self._name, self._dead, self._queues = name, dead, queues
        self._entries = iter(tuple(dead.ready))

    async def next(self) -> DeadLetter | None:
        """The next one, oldest first."""
        entry = next(self._entries, None)
        return None if entry is None else dead_letter(entry.envelope, self._name, place=entry)

    async def replay(self, letter: DeadLetter) -> None:
        """Move the message to its queue, unless somebody has taken the letter."""
        queue, entry = self._queues.get(self._name), letter.place
        if queue is None:
            raise Unroutable(letter.id, f"queue {self._name!r}")
        if entry in self._dead.ready:
            queue.put(Entry(letter.envelope, entry.destination))
            await self.remove(letter)

    async def remove(self, letter: DeadLetter) -> None:
        """Take the letter out."""
        with suppress(ValueError):
            self._dead.ready.remove(letter.place)
