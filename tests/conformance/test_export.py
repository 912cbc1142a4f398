"""What is stored of a saga, on each database, is a test that passes, and holds no secrets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.memory import MemoryTransport
from orchestrator import SagaClient, SagaStatus
from orchestrator.app import running
from orchestrator.recorded import Recorded, read_recorded
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.exported import as_test
from tests.conformance.bookings import BookTrip, Card, Trip, app, travel

ENDS = {
    "well": SagaStatus.COMPLETED,
    "after a fault": SagaStatus.COMPLETED,
    "refused": SagaStatus.COMPENSATED,
    "faulty": SagaStatus.COMPENSATED,
    "unpaid": SagaStatus.COMPENSATED,
    "cancelled": SagaStatus.COMPENSATED,
}


@pytest.fixture
async def stored(url: str) -> dict[str, Recorded]:
    """One saga for each end."""
    settings = OrchestratorSettings.model_validate({"database_url": url, "poll_seconds": 0.02})
    engine = create_async_engine(url)
    client = SagaClient(engine)
    transport = MemoryTransport()
    async with running(app, travel, settings=settings, transport=transport):
        ids: dict[str, UUID] = {}
        for number, ends in enumerate(ENDS):
            state = Trip(number=str(number), ends=ends, card=Card(holder="Ann Example"))
            ids[ends] = (await client.start(BookTrip, state)).id
        async with asyncio.timeout(20):
            while (await client.get(ids["cancelled"])).current_step != "AwaitingMoney":  # noqa: ASYNC110 - another's doing
                await asyncio.sleep(0.02)
        await client.cancel(ids["cancelled"], reason="no longer wanted")
        for ends, saga_id in ids.items():
            assert (await client.wait(saga_id, timeout=timedelta(seconds=20))).status is ENDS[ends]
    async with engine.connect() as connection:
        read = {
            ends: await connection.run_sync(lambda c, one=saga_id: read_recorded(c, one, states=1))
            for ends, saga_id in ids.items()
        }
        assert await connection.run_sync(read_recorded, UUID(int=1)) is None
    await engine.dispose()
    return {ends: recorded for ends, recorded in read.items() if recorded is not None}


async def test_what_a_saga_began_with_is_what_is_kept_of_it(stored: dict[str, Recorded]) -> None:
    kept = stored["well"]
    begun = json.loads(kept.states[0].state)
    assert (begun["seat"], json.loads(kept.state)["seat"]) == ("", "12A")
    odd = replace(kept.states[0], state=json.dumps(begun | {"seat": "none yet"}))

    assert "none yet" in as_test(BookTrip, replace(kept, states=[odd])).source
    assert "none yet" not in as_test(BookTrip, replace(kept, states=[replace(odd, version=2)])).source


async def test_each_stored_saga_is_a_test_that_passes_without_its_secrets(stored: dict[str, Recorded]) -> None:
    assert set(stored) == set(ENDS)
    guessed = {f"{ends}, of which no states are kept": replace(one, states=()) for ends, one in stored.items()}
    for ends, recorded in (stored | guessed).items():
        exported = as_test(BookTrip, recorded)
        assert not exported.problem, f"{ends}: {exported.problem}\n{exported.source}"
        assert f"assert probe.status is SagaStatus.{ENDS[ends.partition(',')[0]].name}" in exported.source
        assert "Example" not in exported.source
        assert "redacted-1" in exported.source

    refused = as_test(BookTrip, stored["refused"]).source
    assert "probe.reply(BookingHotel, Failure.model_validate_json(" in refused
    assert "probe.compensated(BookingFlight)" in refused
    assert "probe.answer_retry(BookingFlight, 'RuntimeError')" in as_test(BookTrip, stored["after a fault"]).source
    cancelled = as_test(BookTrip, stored["cancelled"]).source
    assert "probe.cancel('no longer wanted')" in cancelled
    assert "probe.child_completed(Insuring, " in cancelled and "probe.child_compensated(Insuring, " in cancelled

    otherwise = replace(stored["well"], status=SagaStatus.COMPENSATED)
    assert as_test(BookTrip, otherwise).problem == "AssertionError: an assertion fails", "what does not replay is told"
