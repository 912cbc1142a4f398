"""Two releases on one database and one reply queue, each with a version of its own, while code is deployed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import Bus, Service
from messaging.memory import MemoryTransport
from messaging.settings import MessagingSettings
from orchestrator import Orchestrator, OrchestratorSettings, SagaClient, SagaStatus, running
from tests.conformance.versions import (
    Book,
    Booked,
    BookTripV1,
    BookTripV2,
    BookTripV4,
    Trip,
    TripPaid,
)

TRIPS = 30
PATIENCE = timedelta(seconds=30)


def agency() -> Service:
    service = Service("agency")

    @service.handles(Book)
    async def book(command: Book) -> Booked:
        return Booked()

    return service


async def test_a_rolling_deploy_loses_no_reply_and_no_event_and_blocks_no_saga(migrated_database: str) -> None:
    settings = OrchestratorSettings.model_validate({"database_url": migrated_database, "poll_seconds": 0.02})
    transport, engine = MemoryTransport(), create_async_engine(migrated_database)
    client, sagas = SagaClient(engine), (BookTripV1, BookTripV2, BookTripV4)
    async with AsyncExitStack() as stack, Bus(transport) as bus:
        for part in (Orchestrator([BookTripV1]), Orchestrator([BookTripV2, BookTripV4]), agency()):
            running_part = running(part, settings=settings, messaging=MessagingSettings(), transport=transport)
            await stack.enter_async_context(running_part)
        trips = [(await client.start(saga, Trip(number=number))).id for number in range(TRIPS) for saga in sagas]
        for number in range(TRIPS):
            await bus.publish(TripPaid(number=number))

        ended = [await client.wait(trip, timeout=PATIENCE) for trip in trips]

        assert {row.status for row in ended} == {SagaStatus.COMPLETED}
        async with engine.connect() as connection:
            blocked = await connection.execute(text("SELECT count(*) FROM saga_history WHERE kind = 'blocked'"))
            unmatched = await connection.execute(text("SELECT count(*) FROM saga_unmatched"))
            assert (blocked.scalar_one(), unmatched.scalar_one()) == (0, 0)
    await engine.dispose()
