"""Every kind of store, each fresh, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import make_url

from orchestrator.ids import new_saga_id
from orchestrator.instance import Pin, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.memory import MemoryStore
from orchestrator.signals import Decision
from orchestrator.sql.store import SqlStore
from orchestrator.store import SagaStore
from tests.support.databases import new_sqlite

NOON = datetime(2031, 2, 3, 12, 0, 0, 789, tzinfo=UTC)
PIN = Pin("create-order", 1, "f1")
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
PSYCOPG = pytest.param("psycopg", marks=pytest.mark.torture)
"""The second driver of PostgreSQL: always held against stores, inbox and outbox, elsewhere in the torture."""


class MovableClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.instant = NOON

    def now(self) -> datetime:
        return self.instant

    def move(self, by: timedelta) -> None:
        self.instant += by


@dataclass(frozen=True)
class Kept:
    """A store under test with its clock."""

    store: Any  # SagaStore; typed as Any so that a test may reach for what only SQL has
    clock: MovableClock


@asynccontextmanager
async def opened(store: SagaStore) -> AsyncIterator[SagaStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def sqlite_url(directory: Path) -> str:
    return f"sqlite:///{directory / 'sagas.db'}"


def make_store(kind: str, where: str, clock: MovableClock | None) -> SagaStore:
    """Make a store; a database on PostgreSQL is migrated already."""
    if kind == "memory":
        return MemoryStore(clock)
    if kind == "psycopg":
        where = make_url(where).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if kind == "sqlite":
        new_sqlite(where)
    return SqlStore(where, clock=clock)


def new_saga(**changes: Any) -> SagaInstance:
    saga = SagaInstance(
        id=new_saga_id(),  # of now: readers that look for the last hours' sagas go by the ids
        pin=PIN,
        status=SagaStatus.RUNNING,
        state='{"order":42}',
        revision=1,
        started_at=NOON,
        updated_at=NOON,
        wake_at=NOON,
    )
    return replace(saga, **changes)


def command(step: str = "ReservingCredit", *, seq: int = 1, **changes: Any) -> StepRecord:
    record = StepRecord(
        key=StepKey(step),
        seq=seq,
        status=StepStatus.OUTSTANDING,
        started_at=NOON,
        wire_name="reserve-credit",
        participant="customers",
        command_id=uuid4(),
        body='{"amount_cents":900}',
        send_after=NOON,
        deadline=NOON + HOUR,
    )
    return replace(record, **changes)


def wait(key: str = "42", *, step: str = "AwaitingPayment", seq: int = 1, **changes: Any) -> StepRecord:
    record = StepRecord(
        key=StepKey(step),
        seq=seq,
        status=StepStatus.WAITING,
        started_at=NOON,
        wire_name="payment-captured",
        awaited_key=key,
        deadline=NOON + HOUR,
    )
    return replace(record, **changes)


def adding(saga: SagaInstance, *records: StepRecord, **changes: Any) -> Decision:
    """A decision that adds these records."""
    steps = {**saga.steps, **{record.key: record for record in records}}
    seq = max([saga.seq, *(record.seq for record in records)])
    after = replace(saga, **{"seq": seq, **changes}, steps=steps)
    return Decision(after, added=tuple(record.key for record in records))


def changing(saga: SagaInstance, *records: StepRecord, **changes: Any) -> Decision:
    """A decision that changes these records."""
    steps = {**saga.steps, **{record.key: record for record in records}}
    return Decision(replace(saga, **changes, steps=steps), changed=tuple(record.key for record in records))


async def started(store: SagaStore, *records: StepRecord, **changes: Any) -> SagaInstance:
    """Start a saga and give it these records; return it as loaded."""
    saga = new_saga(**changes)
    async with store.transaction() as tx:
        await tx.start(saga)
    if records:
        async with store.transaction() as tx:
            loaded = (await tx.lock([saga.id])).sagas[saga.id]
            await tx.save([adding(loaded, *records)])
    return await load(store, saga.id)


async def load(store: SagaStore, saga_id: UUID) -> SagaInstance:
    async with store.transaction() as tx:
        return (await tx.lock([saga_id])).sagas[saga_id]
