"""What is in flight is counted the same on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from orchestrator.instance import SagaStatus
from orchestrator.sql import SqlStore
from orchestrator.sql.in_flight import InFlight, in_flight
from tests.conformance.stores import NOON, PSYCOPG, MovableClock, make_store, opened, sqlite_url, started


@pytest.fixture(params=["sqlite", "postgresql", PSYCOPG])
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


_HALF_OF_THEM_ENDED = """
    INSERT INTO saga_instance (id, name, version, fingerprint, status, state, revision, wake_at, started_at, updated_at)
    SELECT md5('saga' || n)::uuid, 'create-order', 1, 'f1', CASE WHEN n % 2 = 0 THEN 'running' ELSE 'completed' END,
           '{}', 1, CASE WHEN n % 2 = 0 THEN now() END, now(), now()
    FROM generate_series(1, 3000) n
"""


async def test_of_what_has_ended_nothing_is_read_and_plans_of_others_stay_as_they_are(migrated_database: str) -> None:
    async with opened(SqlStore(migrated_database, runs_engine=False)) as store:
        assert isinstance(store, SqlStore)
        async with store.engine.connect() as connection:
            for statement in (_HALF_OF_THEM_ENDED, "ANALYZE saga_instance"):
                await connection.execute(text(statement))
            plans, (flying,) = await connection.run_sync(planned)
            after = (await connection.execute(text("SHOW enable_seqscan"))).scalar_one()

    assert flying.count == 1500
    assert any("ix_saga_instance_status_name" in line for line in plans)
    assert not any("Seq Scan" in line for line in plans)
    assert after == "on"


def planned(connection: Connection) -> tuple[list[str], list[InFlight]]:
    """What is in flight, and how the database found it."""
    plans: list[str] = []

    def explained(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
        if "GROUP BY" in statement:
            cursor.execute(f"EXPLAIN {statement}", values)
            plans.extend(row[0] for row in cursor.fetchall())

    event.listen(connection, "before_cursor_execute", explained)
    found = in_flight(connection)
    event.remove(connection, "before_cursor_execute", explained)
    return plans, found
