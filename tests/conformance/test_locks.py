"""Locks on every store: who is granted what, who is denied, and when all of it is free again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.envelope import FAILURE
from messaging.memory import MemoryTransport
from messaging.messages import Command, Reply
from orchestrator import (
    Orchestrator,
    OrchestratorSettings,
    Saga,
    SagaClient,
    SagaStatus,
    Step,
    SubSaga,
    running,
)
from orchestrator.alarms import locks_held_too_long
from orchestrator.evidence import read_evidence
from orchestrator.instance import LOCKS, StepKey, StepStatus
from orchestrator.metrics import SagaMetrics
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import AbandonRequested, ActionRequested, CancelRequested, CompensateRequested
from orchestrator.sql.store import SqlStore
from orchestrator.store_records import NewSignal
from orchestrator.watchdog import Alarm, Watchdog
from orchestrator.why import explain
from tests.conformance.replicas import Replica
from tests.conformance.stores import NOON, PSYCOPG, SECOND, MovableClock, make_store, opened, sqlite_url

HOUR = timedelta(hours=1)


class Transfer(BaseModel):
    payer: str = "a"
    payee: str = "b"


class Booked(Reply): ...


class Book(Command[Booked]):
    account: str


class Locking(Step[Transfer, Booked]):
    participant = "bank"
    lock_timeout = HOUR
    nothing_to_undo = False

    def command(self, state: Transfer) -> Book:
        return Book(account=state.payer)

    def compensation(self, state: Transfer) -> Book:
        return Book(account=state.payer)


class Debiting(Locking):
    def locks(self, state: Transfer) -> list[str]:
        return [f"account:{state.payer}"]


class Crediting(Locking):
    def locks(self, state: Transfer) -> list[str]:
        return [f"account:{state.payee}"]


class Impatient(Locking):
    on_locked = "fail"
    lock_timeout = None

    def locks(self, state: Transfer) -> list[str]:
        return [f"account:{state.payer}"]


class Noting(Locking): ...


class TransferMoney(Saga[Transfer]):
    """Takes the one account, then the other: two of them can wait in a circle."""

    steps = (Debiting(), Crediting())


class Peek(Saga[Transfer]):
    steps = (Impatient(),)


class TransferInParts(SubSaga[Transfer, Transfer]):
    saga = TransferMoney

    def child_state(self, state: Transfer) -> Transfer:
        return state


class Big(Saga[Transfer]):
    steps = (TransferInParts(), Noting())


class Bank(Replica):
    """An orchestrator, and what the tests ask of it."""

    def __init__(self, store: Any) -> None:
        super().__init__(store, TransferMoney, Peek, Big)

    async def settle(self) -> None:
        while (
            await self.engine.wake(10, deadlines=True)
            or await self.engine.settle_locks()
            or await self.engine.signals(10)
        ):
            pass

    async def transfer(self, payer: str, payee: str, saga: type[Saga[Any]] = TransferMoney) -> UUID:
        return await self.start(saga, Transfer(payer=payer, payee=payee))

    async def answer(
        self, saga_id: UUID, step: type[Step[Any, Any]], outcome: str = "success", *, undo: bool = False
    ) -> None:
        await self.reply(await self.command(saga_id, step, undo=undo), outcome=outcome)
        await self.settle()

    async def waits_for_locks(self, saga_id: UUID, step: type[Step[Any, Any]]) -> bool:
        record = (await self.saga(saga_id)).steps[StepKey(step.name)]
        return (record.status, record.wire_name) == (StepStatus.WAITING, LOCKS)

    async def ask(self, saga_id: UUID, asked: ActionRequested) -> None:
        row = signal_to_row(asked)
        assert row is not None
        async with self.store.transaction() as tx:
            await tx.add_signals([NewSignal(saga_id, *row)])
        await self.settle()

    async def status(self, saga_id: UUID) -> SagaStatus:
        return (await self.saga(saga_id)).status


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", PSYCOPG])
async def bank(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> AsyncIterator[Bank]:
    where = ""
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        bank = Bank(store)
        await bank.declare("bank")
        yield bank


async def test_a_step_waits_until_the_saga_that_holds_what_it_names_has_ended(bank: Bank) -> None:
    first = await bank.transfer("a", "b")
    second = await bank.transfer("a", "c")
    assert await bank.waits_for_locks(second, Debiting)

    await bank.answer(first, Debiting)
    assert await bank.waits_for_locks(second, Debiting), "the first saga goes on with what it holds"
    await bank.answer(first, Crediting)

    assert await bank.status(first) is SagaStatus.COMPLETED
    assert not await bank.waits_for_locks(second, Debiting)
    await bank.answer(second, Debiting)


async def test_what_waits_is_granted_in_order_of_asking(bank: Bank) -> None:
    first = await bank.transfer("a", "b")
    others = [await bank.transfer("a", "c") for _ in range(3)]

    for current, following in zip([first, *others], [*others, None], strict=True):
        for step in (Debiting, Crediting):
            await bank.answer(current, step)
        waiting = [other for other in others if (await bank.status(other)) is SagaStatus.RUNNING]
        assert [other for other in waiting if not await bank.waits_for_locks(other, Debiting)] == (
            [following] if following else []
        )


async def test_who_would_not_wait_is_refused_at_once(bank: Bank) -> None:
    await bank.transfer("a", "b")

    peek = await bank.transfer("a", "c", Peek)

    saga = await bank.saga(peek)
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.first_cause is not None and saga.first_cause.code == "locked"


async def test_who_waits_too_long_turns_back(bank: Bank, clock: MovableClock) -> None:
    first = await bank.transfer("a", "b")
    second = await bank.transfer("a", "c")

    clock.move(HOUR)
    await bank.settle()

    saga = await bank.saga(second)
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.first_cause is not None and saga.first_cause.code == "lock-timeout"
    assert await bank.status(first) is SagaStatus.RUNNING


async def test_two_that_wait_for_each_other_are_found_and_the_last_to_begin_turns_back(bank: Bank) -> None:
    first, second = await bank.transfer("a", "b"), await bank.transfer("b", "a")
    await bank.answer(first, Debiting)
    assert await bank.waits_for_locks(first, Crediting)

    await bank.answer(second, Debiting)

    saga = await bank.saga(second)
    assert saga.first_cause is not None and saga.first_cause.code == "lock-deadlock"
    assert saga.status is SagaStatus.COMPENSATING
    await bank.answer(second, Debiting, undo=True)
    assert not await bank.waits_for_locks(first, Crediting)


async def test_what_is_undone_is_free_before_its_saga_has_ended(bank: Bank) -> None:
    first = await bank.transfer("a", "b")
    await bank.answer(first, Debiting)
    second = await bank.transfer("b", "c")
    third = await bank.transfer("a", "c")

    await bank.answer(first, Crediting, FAILURE)
    assert await bank.waits_for_locks(second, Debiting), "refused, it is held until the saga has ended"
    assert await bank.waits_for_locks(third, Debiting)
    await bank.answer(first, Debiting, undo=True)

    assert await bank.status(first) is SagaStatus.COMPENSATED
    assert not await bank.waits_for_locks(second, Debiting)
    assert not await bank.waits_for_locks(third, Debiting)


@pytest.mark.parametrize("asked", [CancelRequested("no"), CompensateRequested("no"), AbandonRequested("no")])
async def test_an_operator_ends_a_wait_at_once_and_it_stands_in_nobodys_way(bank: Bank, asked: ActionRequested) -> None:
    first = await bank.transfer("a", "b")
    second, third = await bank.transfer("a", "c"), await bank.transfer("a", "d")

    await bank.ask(second, asked)
    assert (await bank.status(second)).terminal
    for step in (Debiting, Crediting):
        await bank.answer(first, step)

    assert not await bank.waits_for_locks(third, Debiting)


async def test_what_an_abandoned_saga_held_is_free(bank: Bank) -> None:
    first = await bank.transfer("a", "b")
    second = await bank.transfer("a", "c")

    await bank.ask(first, AbandonRequested("settled by hand"))

    assert not await bank.waits_for_locks(second, Debiting)


async def test_what_a_completed_child_holds_is_held_until_its_parent_has_ended(bank: Bank) -> None:
    parent = await bank.transfer("a", "b", Big)
    child = UUID((await bank.saga(parent)).steps[StepKey("TransferInParts")].awaited_key)
    for step in (Debiting, Crediting):
        await bank.answer(child, step)
    assert await bank.status(child) is SagaStatus.COMPLETED

    other = await bank.transfer("a", "c")
    assert await bank.waits_for_locks(other, Debiting)
    await bank.answer(parent, Noting)

    assert await bank.status(parent) is SagaStatus.COMPLETED
    assert not await bank.waits_for_locks(other, Debiting)


async def test_what_a_child_holds_outlives_its_abandoned_parent_until_its_own_end(bank: Bank) -> None:
    parent = await bank.transfer("a", "b", Big)
    child = UUID((await bank.saga(parent)).steps[StepKey("TransferInParts")].awaited_key)
    other = await bank.transfer("a", "c")

    await bank.ask(parent, AbandonRequested("settled by hand"))
    assert await bank.waits_for_locks(other, Debiting)
    for step in (Debiting, Crediting):
        await bank.answer(child, step)

    assert not await bank.waits_for_locks(other, Debiting)


async def test_replicas_that_settle_at_once_grant_a_resource_to_one(bank: Bank) -> None:
    """Ten sagas ask in transactions of their own while ten processes settle."""
    replicas = [Bank(bank.store) for _ in range(10)]
    sagas = await asyncio.gather(*(replica.transfer("a", f"p{n}") for n, replica in enumerate(replicas)))
    await asyncio.gather(*(replica.engine.settle_locks() for replica in replicas))
    await bank.settle()

    has_it = [saga for saga in sagas if not await bank.waits_for_locks(saga, Debiting)]
    assert len(has_it) == 1
    done = 0
    while has_it:
        for step in (Debiting, Crediting):
            await bank.answer(has_it[0], step)
        done += 1
        going = [saga for saga in sagas if await bank.status(saga) is SagaStatus.RUNNING]
        has_it = [saga for saga in going if not await bank.waits_for_locks(saga, Debiting)]
        assert len(has_it) == bool(going)
    assert done == 10


async def test_it_is_told_who_holds_what_a_saga_waits_for(bank: Bank) -> None:
    if not isinstance(bank.store, SqlStore):
        pytest.skip("there is nothing to ask of memory")
    first = await bank.transfer("a", "b")
    second = await bank.transfer("a", "c")

    async with bank.store.engine.connect() as connection:
        evidence = await connection.run_sync(read_evidence, second)
        holder = await connection.run_sync(read_evidence, first)
        (waits,) = (await connection.execute(text("SELECT * FROM saga_lock_wait"))).all()

    assert evidence is not None
    assert holder is not None
    of_the_holder = explain(holder, now=NOON + HOUR).paragraph
    assert "Debiting has held account:a for 1 h 0 min, and another saga waits for it." in of_the_holder
    told = explain(evidence, now=NOON)
    assert f"account:a is held by Debiting of saga {first}" in told.paragraph
    assert f"saga why {first}" in "".join(advice.do for advice in told.advice)
    assert (str(waits.saga_id), str(waits.held_by), waits.resource) == (str(second), str(first), "account:a")


async def test_a_lock_held_too_long_raises_the_alarm_once_until_it_is_free(bank: Bank, clock: MovableClock) -> None:
    alarms: list[Alarm] = []
    watchdog = Watchdog(bank.store, [locks_held_too_long(HOUR)], alarms.append)
    first = await bank.transfer("a", "b")
    await bank.transfer("a", "c")
    clock.move(HOUR)
    await watchdog.look()
    assert alarms == []

    clock.move(SECOND)
    for _ in range(2):
        await watchdog.look()

    (alarm,) = alarms
    assert (alarm.kind, alarm.facts["holder"], alarm.facts["waiters"]) == ("lock-held", str(first), 1)
    assert f"account:a is held by step Debiting of saga {first} for 1 h" in alarm.text
    assert "1 saga waits for it" in alarm.text and f"saga why {first}" in alarm.text
    await bank.answer(first, Debiting, FAILURE)
    await watchdog.look()
    assert alarms == [alarm]
    third = await bank.transfer("d", "e")
    clock.move(HOUR + SECOND)
    await watchdog.look()
    assert str(third) in {one.facts["holder"] for one in alarms[1:]}


async def test_an_application_is_told_of_alarms_and_they_are_counted(tmp_path: Path) -> None:
    app, registry, alarms = Orchestrator([TransferMoney]), CollectorRegistry(), list[Alarm]()
    told = asyncio.Event()

    async def take(alarm: Alarm) -> None:
        alarms.append(alarm)
        told.set()

    app.use(SagaMetrics(registry))
    app.on_alarm(take)
    url = f"sqlite+aiosqlite:///{tmp_path / 'sagas.db'}"
    given = {"database_url": url, "lock_alarm_seconds": 0.001, "alarm_every_seconds": 0.02, "poll_seconds": 0.02}
    settings = OrchestratorSettings.model_validate(given)
    async with running(app, settings=settings, transport=MemoryTransport()):
        engine = create_async_engine(url)
        started = await SagaClient(engine).start(TransferMoney, Transfer())
        await asyncio.wait_for(told.wait(), 30)
        await engine.dispose()

    assert [alarm.facts["holder"] for alarm in alarms] == [str(started.id)]
    assert registry.get_sample_value("saga_alarms_total", {"kind": "lock-held"}) == 1


async def test_an_hour_later_a_saga_that_waits_for_locks_is_looked_at(bank: Bank, clock: MovableClock) -> None:
    await bank.transfer("a", "b")
    second = await bank.transfer("a", "c")

    assert (await bank.saga(second)).wake_at == clock.now() + HOUR
