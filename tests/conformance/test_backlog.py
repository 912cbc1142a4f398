"""What waits in the database is read the same on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from messaging.compose import compose_event
from messaging.envelope import to_subscribers
from messaging.messages import Event
from messaging.transport import Outgoing
from orchestrator.backlog import Backlog
from orchestrator.instance import BlockedReason, SagaStatus
from orchestrator.sql import SqlStore
from orchestrator.sql.backlog import backlog
from orchestrator.workers import this_process
from tests.conformance.stores import NOON, MovableClock, command, make_store, opened, sqlite_url, started


class Paid(Event):
    pass


@pytest.fixture(params=["sqlite", "postgresql", "psycopg"])
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
