"""Events that a wait refuses, on every store: looked at once by each wait, and left to others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from messaging.codec import DEFAULT_LIMITS
from messaging.envelope import Envelope
from messaging.memory import MemoryTransport
from messaging.messages import Event
from messaging.transport import Delivery
from orchestrator import Saga, SagaStatus, WaitForEvent
from orchestrator.engine import Engine, EngineSettings
from orchestrator.incoming import Events, read_event
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.start import new_instance
from tests.conformance.stores import MovableClock, load, make_store, opened, sqlite_url

MINUTE = timedelta(minutes=1)


class Trip(BaseModel):
    number: int = 7


class TripPaid(Event):
    number: int


class AwaitingPayment(WaitForEvent[Trip, TripPaid]):
    timeout = timedelta(hours=1)
    accepts_events_up_to = MINUTE

    def awaited_key(self, state: Trip) -> str:
        return str(state.number)

    def event_key(self, event: TripPaid) -> str:
        return str(event.number)


class BookTrip(Saga[Trip]):
    steps = (AwaitingPayment(),)


class Agency:
    """An engine that looks at one event at a time."""

    def __init__(self, store: Any, clock: MovableClock) -> None:
        self.store, self.clock, self.registry = store, clock, SagaRegistry([BookTrip])
        sender = Sender(MemoryTransport(), "replies", timeout=MINUTE)
        self.engine = Engine(self.registry, store, sender, EngineSettings(batch=1))

    async def keep(self, message_id: str) -> None:
        envelope = Envelope(message_id, b'{"number": 7}', TripPaid.wire_name)
        delivery = Delivery(envelope, "events", tag=1, epoch=1)
        item = read_event(delivery, self.registry.events, DEFAULT_LIMITS, timedelta(hours=24))
        assert isinstance(item, Events)
        await self.engine.keep_events([item])

    async def start(self) -> UUID:
        """Start a trip, and let it look for events that are kept."""
        instance = new_instance(BookTrip, Trip(), None, "", self.clock.now())
        async with self.store.transaction() as tx:
            await tx.start(instance)
        while await self.engine.wake(10, deadlines=True):
            pass
        return instance.id

    async def status(self, saga_id: UUID) -> SagaStatus:
        return (await load(self.store, saga_id)).status


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def agency(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Agency]:
    clock = MovableClock()
    where = sqlite_url(tmp_path) if request.param == "sqlite" else ""
    if request.param == "postgresql":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Agency(store, clock)


async def test_an_event_that_is_too_old_for_a_wait_is_looked_at_once_by_it_and_stands_in_nobodys_way(
    agency: Agency,
) -> None:
    await agency.keep("too-old")
    agency.clock.move(2 * MINUTE)
    first = await agency.start()

    assert await agency.engine.match_events() == 0, "it was looked at when the wait began"
    await agency.keep("in-time")
    assert await agency.engine.match_events() == 1
    assert await agency.status(first) is SagaStatus.COMPLETED

    second = await agency.start()
    assert await agency.engine.match_events() == 0
    assert await agency.status(second) is SagaStatus.RUNNING
    await agency.keep("another")
    assert await agency.engine.match_events() == 1
    assert await agency.status(second) is SagaStatus.COMPLETED
