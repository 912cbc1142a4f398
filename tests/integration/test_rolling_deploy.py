"""A rolling deployment: two processes with two releases of one module, on one database and one reply queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging import Bus, Service, ServiceRunner
from messaging.rabbitmq import RabbitTransport
from messaging.transport import QueueSpec
from orchestrator import SagaClient, SagaStatus
from tests.integration.releases.new import trips as new
from tests.integration.releases.old import trips as old
from tests.support.broker import Broker
from tests.support.programs import ROOT, Program, Programs, until

TRIPS = 20
PATIENCE = timedelta(seconds=60)
RELEASES = Path(__file__).parent / "releases"


def agency(asked: Counter[str]) -> Service:
    """Books whatever it is asked to, and counts that."""
    service = Service("agency")

    @service.handles(new.Book)
    async def book(command: new.Book) -> new.Booked:
        asked[f"{command.what} {command.number}"] += 1
        return new.Booked()

    return service


@dataclass
class Deployment:
    """Where it takes place."""

    programs: Programs
    engine: AsyncEngine
    transport: RabbitTransport

    def release(self, folder: str) -> Program:
        """Begin a process with the code of a release; both know it by the same name."""
        paths = f"{RELEASES / folder}:{ROOT}"
        return self.programs.saga("run", "trips:app", PYTHONPATH=paths)

    async def value(self, query: str) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(text(query))).scalar_one()

    async def becomes(self, wanted: int, query: str) -> None:
        async def look() -> bool:
            return bool(await self.value(query) >= wanted)

        await until(look, within=PATIENCE.total_seconds())


@pytest.fixture
async def deployment(broker: Broker, prefix: str, migrated_database: str) -> AsyncIterator[Deployment]:
    for queue in ("agency", "orchestrator.main.replies", "orchestrator.main.events"):
        broker.service_queue(f"{prefix}{queue}")
    broker.exchange(f"{prefix}events")
    surroundings = {
        "ORCHESTRATOR_DATABASE_URL": migrated_database,
        "MESSAGING_BROKER_URL": broker.url,
        "MESSAGING_PREFIX": prefix,
    }
    engine, transport = create_async_engine(migrated_database), RabbitTransport(broker.url, prefix=prefix)
    async with AsyncExitStack() as stack:
        programs = stack.enter_context(Programs(surroundings))
        stack.push_async_callback(engine.dispose)
        await transport.open()
        await transport.declare([QueueSpec("agency")])
        stack.push_async_callback(transport.close)
        yield Deployment(programs, engine, transport)


async def test_a_rolling_deploy_loses_no_reply_and_no_event_and_blocks_no_saga(deployment: Deployment) -> None:
    at, client = deployment, SagaClient(deployment.engine)
    asked: Counter[str] = Counter()

    async def start(saga: Any, trips: Iterable[Any]) -> list[Any]:
        return [(await client.start(saga, trip)).id for trip in trips]

    before = at.release("old")
    in_flight = await start(old.BookTrip, (old.Trip(number=n) for n in range(TRIPS)))
    # Nobody answers yet, so each trip of the old release is under way when the new one comes.
    await at.becomes(TRIPS, "SELECT count(*) FROM saga_step WHERE sent_at IS NOT NULL")
    after = at.release("new")
    after.wait_until_it_says("Running orchestrator")
    in_flight += await start(new.BookTrip, (new.Trip(number=n) for n in range(TRIPS, 2 * TRIPS)))

    runner = ServiceRunner(agency(asked), at.transport)
    async with AsyncExitStack() as stack, Bus(at.transport) as bus:
        await runner.start()
        stack.push_async_callback(runner.stop)
        for number in range(TRIPS, 2 * TRIPS):
            await bus.publish(new.TripPaid(number=number))
        # The old release has taken replies off the queue that only the new one can read.
        await at.becomes(1, "SELECT count(*) FROM saga_signal WHERE kind = 'reply'")
        before.interrupt()
        in_flight += await start(new.BookTrip, (new.Trip(number=n) for n in range(2 * TRIPS, 3 * TRIPS)))
        for number in range(2 * TRIPS, 3 * TRIPS):
            await bus.publish(new.TripPaid(number=number))
        at.programs.done(before)
        ended = [await client.wait(trip, timeout=PATIENCE) for trip in in_flight]

    assert {row.status for row in ended} == {SagaStatus.COMPLETED}, at.programs.tails()
    added = [f"Insurance {number}" for number in range(TRIPS, 3 * TRIPS)]
    booked = [f"{what} {number}" for what in ("Flight", "Hotel") for number in range(3 * TRIPS)]
    assert asked == Counter(booked + added), "each step was carried out, and none twice"
    assert await at.value("SELECT count(*) FROM saga_history WHERE kind = 'blocked'") == 0
    assert await at.value("SELECT count(*) FROM saga_unmatched") == 0
    after.interrupt()
    at.programs.done(after)
