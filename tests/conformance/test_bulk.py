"""Many sagas are asked the same, on each database, from coroutines and from threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging.memory import MemoryTransport
from orchestrator import BlockingSagaClient, SagaClient, SagaStatus
from orchestrator.app import running
from orchestrator.bulk import BulkOutcome, BulkResult
from orchestrator.settings import OrchestratorSettings
from orchestrator.status import SagaFilter
from tests.unit.cli.walls import PaintWallSaga, Wall, app, painter

DRYING = SagaFilter(saga="paint-wall", step="Drying", ended=False)


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def sagas(engine: AsyncEngine, url: str) -> AsyncIterator[SagaClient]:
    """A client beside an orchestrator, on which five walls are drying and one is done."""
    client = SagaClient(engine)
    settings = OrchestratorSettings.model_validate({"database_url": url, "poll_seconds": 0.02})
    async with running(app, painter, settings=settings, transport=MemoryTransport()), asyncio.timeout(40):
        for number in range(5):
            await client.start(PaintWallSaga, Wall(name=str(number), ends="waiting"))
        over = await client.start(PaintWallSaga, Wall(name="done"))
        await client.wait(over.id, timeout=timedelta(seconds=20))
        while len(await client.ids(DRYING)) < 5:  # noqa: ASYNC110 - another's doing
            await asyncio.sleep(0.02)
        yield client


def blocking(url: str) -> BlockingSagaClient:
    drivers = {"sqlite+aiosqlite": "sqlite+pysqlite", "postgresql+asyncpg": "postgresql+psycopg"}
    made = make_url(url)
    return BlockingSagaClient(create_engine(made.set(drivername=drivers[made.drivername])))


def outcomes(results: list[BulkResult]) -> dict[UUID, str]:
    return {result.saga_id: result.outcome.value for result in results}


async def test_a_frozen_list_is_cancelled_with_one_result_each(sagas: SagaClient) -> None:
    drying = await sagas.ids(DRYING)
    [over] = await sagas.ids(SagaFilter(ended=True))
    nobody = uuid4()

    results = [one async for one in sagas.bulk("cancel", [*drying, over, nobody], reason="strike", by="ann")]

    assert outcomes(results) == {**dict.fromkeys(drying, "done"), over: "refused", nobody: "unknown"}
    assert len(results) == 7
    for saga_id in drying:
        row = await sagas.wait(saga_id, timeout=timedelta(seconds=20))
        assert (row.status, row.error_text) == (SagaStatus.COMPENSATED, "strike")


async def test_threads_do_the_same(sagas: SagaClient, url: str) -> None:
    client = blocking(url)
    drying = await asyncio.to_thread(client.ids, DRYING, limit=2)

    paused = await asyncio.to_thread(lambda: list(client.bulk("pause", drying, reason="strike")))
    again = await asyncio.to_thread(lambda: list(client.bulk("pause", drying, reason="strike")))

    assert outcomes(paused) == dict.fromkeys(drying, "done")
    assert outcomes(again) == dict.fromkeys(drying, "refused")
    assert "it is paused already" in str(again[0].error)
    assert len(await sagas.ids(DRYING)) == 5


async def test_without_an_engine_what_was_asked_is_kept_and_the_rest_is_left_alone(engine: AsyncEngine) -> None:
    client = SagaClient(engine)
    started = [(await client.start(PaintWallSaga, Wall(name=name))).id for name in ("north", "south", "west")]

    asked = client.bulk("cancel", started, reason="strike", per_second=1, within=timedelta(milliseconds=50))
    results = [one async for one in asked]

    assert [one.outcome for one in results] == [BulkOutcome.NOT_TAKEN, BulkOutcome.NOT_ASKED, BulkOutcome.NOT_ASKED]


async def test_sagas_are_chosen_at_one_moment_oldest_first(sagas: SagaClient) -> None:
    every = await sagas.ids(SagaFilter())
    assert len(every) == 6 and list(every) == sorted(every)
    third = await sagas.get(every[2])

    assert await sagas.ids(SagaFilter(ended=False)) == every[:5]
    assert await sagas.ids(SagaFilter(ended=True)) == every[5:]
    assert await sagas.ids(SagaFilter(saga="paint-wall", step="Drying"), limit=4) == every[:4]
    assert await sagas.ids(SagaFilter(started_before=third.started_at)) == every[:2]
    assert await sagas.ids(SagaFilter(saga="another")) == await sagas.ids(SagaFilter(error="cancelled")) == []
    await sagas.cancel(every[0], reason="strike")
    assert await sagas.ids(SagaFilter(error="cancelled")) == every[:1]
