"""What waits in the database is read the same on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from messaging.compose import compose_event
from messaging.envelope import to_subscribers
from messaging.messages import Event
from messaging.transport import Outgoing
from orchestrator.backlog import Backlog
from orchestrator.instance import BlockedReason, SagaStatus
from orchestrator.sql import SqlStore
from orchestrator.sql.backlog import backlog
from orchestrator.sql.hot import DUE, named
from orchestrator.workers import this_process
from tests.conformance.stores import NOON, PSYCOPG, MovableClock, command, make_store, opened, sqlite_url, started


class Paid(Event):
    pass


@pytest.fixture(params=["sqlite", "postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


async def test_blocked_sagas_overdue_commands_and_the_oldest_event_are_told(store: SqlStore) -> None:
    async with store.engine.connect() as connection:
        assert await connection.run_sync(backlog) == Backlog()

    blocked = {"status": SagaStatus.BLOCKED, "blocked_reason": BlockedReason.CODE_ERROR, "wake_at": None}
    for _ in range(2):
        saga = await started(store, **blocked, blocked_from=SagaStatus.RUNNING, blocked_at=NOON)
    await started(store, command(send_after=NOON - timedelta(days=36500)), wake_at=NOON - timedelta(days=36501))
    async with store.transaction() as tx:
        await tx.announce(this_process([saga.pin]), dead_after=timedelta(minutes=1))
        await tx.add_outgoing([Outgoing(compose_event(Paid()), to_subscribers("paid"))])
    async with store.engine.connect() as connection:
        told = await connection.run_sync(backlog)

    assert told.blocked == {(saga.pin.name, "code_error"): 2}
    assert told.command_overdue_seconds > 86400
    assert told.outbox_oldest_seconds >= 0
    assert told.wake_overdue_seconds >= told.command_overdue_seconds + 86400
    assert told.engines == 1


_MANY_ASLEEP = """
    INSERT INTO saga_instance (id, name, version, fingerprint, status, state, revision, wake_at, started_at, updated_at)
    SELECT md5('saga' || n)::uuid, 'create-order', 1, 'f1', 'running', '{}', 1, now() + interval '1 hour', now(), now()
    FROM generate_series(1, 3000) n
"""
_STEPS_TO_BE_SENT = """
    INSERT INTO saga_step (saga_id, step, direction, branch, seq, status, round, attempt, tries, unanswered,
                           send_after, started_at, updated_at)
    SELECT id, 'Booking', 'action', '', 1, 'outstanding', 1, 1, 1, 0, now() + interval '1 hour', now(), now()
    FROM saga_instance
"""


async def test_many_sagas_that_nothing_is_due_of_are_not_read_to_find_that_out(migrated_database: str) -> None:
    store = make_store("postgresql", migrated_database, None)
    async with opened(store), store.engine.connect() as connection:
        for statement in (_MANY_ASLEEP, _STEPS_TO_BE_SENT, "ANALYZE saga_instance, saga_step"):
            await connection.execute(text(statement))
        asked = named(None, DUE).replace(":now", "(SELECT clock_timestamp())")
        plan = "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {asked}"))

    assert "ix_saga_instance_due" in plan and "ix_saga_step_unsent" in plan
    assert "Seq Scan on saga_instance" not in plan and "Seq Scan on saga_step" not in plan
