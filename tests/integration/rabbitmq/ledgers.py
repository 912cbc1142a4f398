"""A publisher and a service that write down what they were told and what they did, to be compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from messaging import Command, Reply, Service
from messaging.compose import compose_command
from messaging.consumer import ServiceRunner
from messaging.envelope import Envelope, to_queue
from messaging.rabbitmq import RabbitTransport
from messaging.transport import Outgoing
from tests.conformance.transport_backends import eventually

QUEUE = "ledger"
_AT_ONCE = 20
_PATIENCE = timedelta(seconds=3)
_AFTER_A_FAULT = timedelta(seconds=60)


class Note(Command[Reply]):
    number: int


@dataclass
class Ledgers:
    """Publishes numbers until each is accepted, and counts how often each was handled."""

    publisher: RabbitTransport
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """What publishing said, message by message, try by try."""
    accepted: set[int] = field(default_factory=set[int])
    handled: Counter[int] = field(default_factory=Counter[int])

    async def publish(self, numbers: Iterable[int]) -> None:
        """Publish all, and each again with its own id until the broker has confirmed it."""
        left = {number: compose_command(Note(number=number)) for number in numbers}
        while left:
            now = dict(list(left.items())[:_AT_ONCE])
            for number in await self._accepted_of(now):
                del left[number]

    async def _accepted_of(self, now: dict[int, Envelope]) -> list[int]:
        messages = [Outgoing(envelope, to_queue(QUEUE)) for envelope in now.values()]
        outcomes = await self.publisher.publish(messages, timeout=_PATIENCE)
        self.outcomes.update("accepted" if outcome is None else type(outcome).__name__ for outcome in outcomes)
        accepted = [number for number, outcome in zip(now, outcomes, strict=True) if outcome is None]
        self.accepted.update(accepted)
        if not accepted:
            await asyncio.sleep(0.05)
        return accepted

    async def compared(self) -> None:
        """Wait until all that was accepted is handled; fails telling what is lost."""
        try:
            await eventually(lambda: self.accepted <= self.handled.keys(), "all is handled", within=_AFTER_A_FAULT)
        except AssertionError:
            lost = sorted(self.accepted - self.handled.keys())
            raise AssertionError(f"accepted and not handled: {len(lost)}, {lost[:10]}") from None

    def __str__(self) -> str:
        again = self.handled.total() - len(self.handled)
        return f"publishing said {dict(self.outcomes)}; handled {len(self.handled)}, and again {again}"


@asynccontextmanager
async def opened(url: str, prefix: str, **options: Any) -> AsyncIterator[Ledgers]:
    """Ledgers over a broker: the publisher and the service have connections of their own."""
    heartbeat = timedelta(seconds=1)
    sides = [RabbitTransport(url, prefix=prefix, heartbeat=heartbeat, **options) for _ in range(2)]
    for side in sides:
        await side.open()
    ledgers = Ledgers(sides[0])
    service = Service(QUEUE)

    @service.handles(Note)
    async def note(command: Note) -> Reply:
        ledgers.handled[command.number] += 1
        return Reply()

    runner = ServiceRunner(service, sides[1])
    await runner.start()
    try:
        yield ledgers
    finally:
        await runner.stop()
        for side in sides:
            await side.close()
