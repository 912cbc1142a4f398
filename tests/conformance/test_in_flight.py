"""What is in flight is counted the same on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.instance import SagaStatus
from orchestrator.sql import SqlStore
from orchestrator.sql.in_flight import InFlight, in_flight
from tests.conformance.stores import NOON, MovableClock, make_store, opened, sqlite_url, started


@pytest.fixture(params=["sqlite", "postgresql", "psycopg"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


async def test_sagas_that_have_not_ended_are_counted_by_definition_status_and_step(store: SqlStore) -> None:
    for step in ("ReservingCredit", "Shipping", "ReservingCredit"):
        saga = await started(store, current_step=step)
    ended = await started(store, status=SagaStatus.COMPLETED, wake_at=None, ended_at=NOON)

    async with store.engine.connect() as connection:
        counted = await connection.run_sync(in_flight)

    assert ended.pin == saga.pin
    assert counted == [
        InFlight(saga.pin, SagaStatus.RUNNING, "ReservingCredit", 2),
        InFlight(saga.pin, SagaStatus.RUNNING, "Shipping", 1),
    ]
