"""Local steps on real databases: what a function writes is committed with its saga's row, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.memory import MemoryTransport
from messaging.messages import Failure
from messaging.retry import Retry
from orchestrator import LocalStep, Saga, SagaStatus
from orchestrator.engine import Engine
from orchestrator.instance import BlockedReason, SagaInstance, StepKey, StepStatus
from orchestrator.local_runner import LocalRunner
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import RetryRequested
from orchestrator.start import new_instance
from orchestrator.store_records import NewSignal
from tests.conformance.stores import MovableClock, load, make_store, opened, sqlite_url

SECOND = timedelta(seconds=1)


class Seats(BaseModel):
    number: int
    does: str = "book"
    booked: bool = False


async def book(session: AsyncSession, number: int) -> None:
    await session.execute(text("INSERT INTO seat (number) VALUES (:number)"), {"number": number})


class BookingSeat(LocalStep[Seats]):
    retry = Retry(max_attempts=2, backoff=SECOND, jitter=0)
    timeout = timedelta(milliseconds=300)

    async def run(self, state: Seats, session: AsyncSession) -> Failure | None:
        await book(session, state.number)
        state.booked = True
        match state.does:
            case "raise":
                raise ValueError("no such seat")
            case "refuse":
                return Failure(reason="sold out")
            case "twice":
                await book(session, state.number)
            case "commit":
                await session.commit()
                raise ValueError("after a commit of its own")
            case "roll back":
                await session.rollback()
            case "dawdle":
                await asyncio.sleep(30)
            case _:
                pass
        return None

    async def undo(self, state: Seats, session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM seat WHERE number = :number"), {"number": state.number})


hooks_raise: set[int] = set()


class Telling(LocalStep[Seats]):
    nothing_to_undo = True

    def when(self, state: Seats) -> bool:
        if state.number in hooks_raise:
            raise KeyError("broken")
        return True

    async def run(self, state: Seats, session: AsyncSession) -> Failure | None:
        return Failure(reason="nobody listens") if state.does == "tell nobody" else None


class BookSeat(Saga[Seats]):
    steps = (BookingSeat(), Telling())


class Desk:
    """An engine on a store, whose transactions a test makes one by one."""

    def __init__(self, store: Any, clock: MovableClock) -> None:
        self.store, self.clock = store, clock
        self.registry = SagaRegistry([BookSeat])
        self.engine = Engine(self.registry, store, Sender(MemoryTransport(), "replies", timeout=SECOND))
        self.due: list[tuple[UUID, StepKey]] = []
        self.engine.local_due = self.due.extend

    async def start(self, number: int = 1, does: str = "book") -> UUID:
        saga = new_instance(BookSeat, Seats(number=number, does=does), None, "", self.clock.now())
        async with self.store.transaction() as tx:
            await tx.start(saga)
        await self.engine.wake(10, deadlines=True)
        return saga.id

    async def run_due(self) -> None:
        due, self.due[:] = list(self.due), []
        for one in due:
            await self.engine.run_local(*one)

    async def saga(self, saga_id: UUID) -> SagaInstance:
        return await load(self.store, saga_id)

    async def status(self, saga_id: UUID, step: type[LocalStep[Seats]] = BookingSeat) -> StepStatus:
        return (await self.saga(saga_id)).steps[StepKey(step.name)].status

    async def seats(self) -> list[int]:
        async with self.store.transaction() as tx:
            return list((await tx.connection.execute(text("SELECT number FROM seat ORDER BY number"))).scalars())


@pytest.fixture(params=["sqlite", "postgresql"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    clock = MovableClock()
    hooks_raise.clear()
    async with opened(make_store(request.param, where, clock)) as store:
        async with store.transaction() as tx:
            for statement in ("DROP TABLE IF EXISTS seat", "CREATE TABLE seat (number integer PRIMARY KEY)"):
                await tx.connection.execute(text(statement))  # type: ignore[attr-defined]
        yield Desk(store, clock)


async def test_what_a_function_writes_is_committed_with_its_sagas_row(desk: Desk) -> None:
    saga_id = await desk.start(7)
    assert await desk.seats() == []

    await desk.run_due()

    assert await desk.seats() == [7]
    assert await desk.status(saga_id) is StepStatus.SUCCEEDED
    assert Seats.model_validate_json((await desk.saga(saga_id)).state).booked
    await desk.run_due()
    assert (await desk.saga(saga_id)).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("does", ["raise", "twice", "commit", "dawdle"])
async def test_what_raises_is_rolled_back_whole_and_run_again_by_the_policy(desk: Desk, does: str) -> None:
    saga_id = await desk.start(does=does)
    await desk.run_due()
    assert await desk.seats() == []
    assert await desk.status(saga_id) is StepStatus.WAITING

    desk.clock.move(SECOND)
    await desk.engine.wake(10, deadlines=True)
    await desk.run_due()

    assert await desk.seats() == []
    saga = await desk.saga(saga_id)
    assert (saga.status, saga.first_cause and saga.first_cause.code) == (SagaStatus.COMPENSATED, "raised")
    assert not Seats.model_validate_json(saga.state).booked


async def test_what_refuses_is_rolled_back_and_turns_the_saga_back(desk: Desk) -> None:
    saga_id = await desk.start(does="refuse")

    await desk.run_due()

    assert await desk.seats() == []
    cause = (await desk.saga(saga_id)).first_cause
    assert cause is not None and cause.text == "sold out"


async def test_a_rollback_of_its_own_stays_inside(desk: Desk) -> None:
    saga_id = await desk.start(does="roll back")

    await desk.run_due()

    assert await desk.seats() == []
    assert await desk.status(saga_id) is StepStatus.SUCCEEDED


async def test_what_was_done_is_undone_by_the_other_function(desk: Desk) -> None:
    saga_id = await desk.start(does="tell nobody")
    await desk.run_due()
    assert await desk.seats() == [1]
    await desk.run_due()
    await desk.run_due()

    assert await desk.seats() == []
    assert (await desk.saga(saga_id)).status is SagaStatus.COMPENSATED


async def test_two_processes_that_have_it_in_hand_run_it_once(desk: Desk) -> None:
    saga_id = await desk.start()
    ((_, key),) = desk.due

    await asyncio.gather(*(desk.engine.run_local(saga_id, key) for _ in range(3)))

    assert await desk.seats() == [1]
    assert (await desk.saga(saga_id)).steps[key].attempt == 1


async def test_a_function_that_nobody_ran_is_due_again(desk: Desk) -> None:
    await desk.start()
    desk.due.clear()  # the process died after its commit

    desk.clock.move(5 * SECOND)
    await desk.engine.wake(10, deadlines=True)
    await desk.run_due()

    assert await desk.seats() == [1]


async def test_when_the_next_step_raises_the_function_has_not_happened_and_a_retry_runs_it(desk: Desk) -> None:
    hooks_raise.add(1)
    saga_id = await desk.start()
    await desk.run_due()
    saga = await desk.saga(saga_id)
    assert (saga.blocked_reason, saga.blocked_step) == (BlockedReason.CODE_ERROR, "Telling")
    assert await desk.seats() == []

    hooks_raise.clear()
    kind, body = signal_to_row(RetryRequested("mended")) or ("", "")
    async with desk.store.transaction() as tx:
        await tx.add_signals([NewSignal(saga_id, kind, body)])
    await desk.engine.signals(10)
    desk.clock.move(5 * SECOND)
    await desk.engine.wake(10, deadlines=True)
    await desk.run_due()

    assert await desk.seats() == [1]


async def test_the_runner_runs_what_it_is_given_beside_its_caller_and_stops_in_time(desk: Desk) -> None:
    runner = LocalRunner(desk.engine.run_local, at_once=2)
    sagas = [await desk.start(number) for number in range(5)]
    runner.take(desk.due)
    runner.take(desk.due)

    await runner.stop(timedelta(seconds=20))

    assert await desk.seats() == [0, 1, 2, 3, 4]
    assert [await desk.status(saga_id) for saga_id in sagas] == [StepStatus.SUCCEEDED] * 5


async def test_what_a_function_wrote_is_gone_when_its_saga_cannot_be_written(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    async with opened(make_store("sqlite", url, MovableClock())) as store, store.transaction() as tx:
        await tx.connection.execute(text("CREATE TABLE seat (number integer PRIMARY KEY)"))

    async def written_in_vain(store: Any) -> None:
        async with store.transaction() as tx:
            async with tx.session(timeout=SECOND) as session:
                await book(session, 7)
            raise KeyError("the row")

    async with opened(make_store("sqlite", url, MovableClock())) as store:  # whose first transaction it is
        with pytest.raises(KeyError):
            await written_in_vain(store)
        async with store.transaction() as tx:
            assert (await tx.connection.execute(text("SELECT number FROM seat"))).all() == []
