"""Sagas as a whole, read alike on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.failures import failures
from orchestrator.ids import earliest_id, new_saga_id
from orchestrator.instance import BlockedReason, Pin, SagaStatus, StepStatus
from orchestrator.sql import SqlStore
from orchestrator.sql.search import saga_names
from orchestrator.status import get_saga
from orchestrator.store_records import AuditEntry
from orchestrator.web.surveys import Pace, audits, ended_by_hour, pace_of, survey
from tests.conformance.stores import PIN, MovableClock, command, make_store, new_saga, opened, sqlite_url, started

BLOCKED: dict[str, Any] = {"status": SagaStatus.BLOCKED, "blocked_reason": BlockedReason.CODE_ERROR, "wake_at": None}


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        assert isinstance(store, SqlStore)
        yield store


async def read(store: SqlStore, work: Any) -> Any:
    async with store.engine.connect() as connection:
        return await connection.run_sync(work)


async def ended(store: SqlStore, status: SagaStatus, at: datetime, saga_id: UUID | None = None) -> None:
    saga = new_saga(id=saga_id or new_saga_id(), status=status, wake_at=None, ended_at=at)
    async with store.transaction() as tx:
        await tx.start(replace(saga, ended_at=at))


async def test_what_is_where_and_what_is_stuck(store: SqlStore) -> None:
    for _ in range(2):
        await started(store, current_step="Sending", wake_at=datetime.now(UTC) + timedelta(hours=1))
    blocked = await started(store, **BLOCKED, blocked_step="Paying", current_step="Paying", business_key="42")
    await started(store, status=SagaStatus.COMPLETED, wake_at=None)

    found = await read(store, lambda c: survey(c, [], Pace([], {})))

    assert [(one.saga, one.status.value, one.step, one.count) for one in found.places] == [
        ("create-order", "running", "Sending", 2),
        ("create-order", "blocked", "Paying", 1),
    ]
    assert (found.live, found.blocked, found.compensating) == (3, 1, 0)
    assert [(one.saga_id, one.business_key, one.why) for one in found.stuck] == [
        (blocked.id, "42", "blocked: code_error at Paying")
    ]


async def test_ends_are_counted_by_the_hour_in_utc(store: SqlStore) -> None:
    now = datetime.now(UTC).replace(minute=30)
    await ended(store, SagaStatus.COMPLETED, now)
    await ended(store, SagaStatus.COMPLETED, now)
    await ended(store, SagaStatus.COMPENSATED, now - timedelta(hours=3))
    await ended(store, SagaStatus.COMPLETED, now - timedelta(hours=30))
    await ended(store, SagaStatus.COMPLETED, now, earliest_id(now - timedelta(days=9)))

    hours = await read(store, lambda c: ended_by_hour(c, now=now))

    assert len(hours) == 24
    assert hours[-1].begins == now.replace(minute=0, second=0, microsecond=0)
    assert [hour.ended for hour in hours if hour.ended] == [{"compensated": 1}, {"completed": 2}]


async def test_how_long_sagas_took_is_told_with_the_slowest_of_the_last_day(store: SqlStore) -> None:
    now = datetime.now(UTC)
    for hours in (2, 5, 1):
        await ended(store, SagaStatus.COMPLETED, now + timedelta(hours=hours))
    await ended(store, SagaStatus.COMPLETED, now + timedelta(days=9), earliest_id(now - timedelta(days=9)))

    pace = await read(store, lambda c: pace_of(c, now=now))

    (one,) = pace.latencies
    slowest = await read(store, lambda c: get_saga(c, pace.slowest[one.saga]))
    assert one.count == 3
    assert slowest is not None and slowest.ended_at == now + timedelta(hours=5)


async def test_failures_alike_are_one_group_with_its_ids(store: SqlStore) -> None:
    ids: list[UUID] = []
    for text in (f"order {uuid4()} is gone", f"order {uuid4()} is gone", "closed"):
        record = command(status=StepStatus.REFUSED, send_after=None, error_code="gone", error_text=text)
        ids.append((await started(store, record, **BLOCKED, blocked_step="ReservingCredit")).id)

    largest, other = await read(store, lambda c: failures(c))

    assert (largest.count, set(largest.saga_ids)) == (2, set(ids[:2]))
    assert (other.count, other.error_text, other.saga_ids) == (1, "closed", [ids[2]])
    assert largest.id != other.id


async def test_requests_of_operators_are_read_from_the_newest_on(store: SqlStore) -> None:
    saga = await started(store)
    async with store.transaction() as tx:
        for reason in ("one", "two", "three"):
            await tx.add_audit([AuditEntry(saga.id, "pause", "ann", reason, "running", "paused", "", None)])

    first = await read(store, lambda c: audits(c, after=None, limit=2))
    rest = await read(store, lambda c: audits(c, after=first[-1].id, limit=2))

    assert [row.reason for row in (*first, *rest)] == ["three", "two", "one"]


async def test_each_name_is_found_once(store: SqlStore) -> None:
    for name in ("b", "a", "b"):
        await started(store, pin=Pin(name, PIN.version, PIN.fingerprint))

    assert await read(store, lambda c: saga_names(c)) == ["a", "b"]
