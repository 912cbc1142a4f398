"""Faults that other saga engines are known for, looked for here on each database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from messaging import Command, Reply, Retry
from messaging.envelope import FAILURE
from messaging.errors import PublishError
from messaging.memory import MemoryTransport
from messaging.transport import Outgoing
from orchestrator import BlockedReason, Parallel, Saga, SagaStatus, Step
from orchestrator.instance import Direction, StepKey, StepStatus
from tests.conformance.replicas import Replica
from tests.conformance.stores import MovableClock, make_store, opened, sqlite_url

ONCE = Retry(max_attempts=1)


class Trip(BaseModel):
    answered: int = 0


class Booked(Reply): ...


class Book(Command[Booked]):
    what: str


class Cancel(Command[Booked]):
    what: str


class Booking(Step[Trip, Booked]):
    participant = "agency"
    compensation_retry = ONCE

    def command(self, state: Trip) -> Book:
        return Book(what=self.name)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.answered += 1

    def compensation(self, state: Trip) -> Cancel:
        return Cancel(what=self.name)


class Insuring(Booking): ...


class Flight(Booking): ...


class Hotel(Booking): ...


class Car(Booking): ...


class OneByOne(Saga[Trip]):
    steps = (Flight(), Hotel(), Car())


class Late(Booking):
    retry = ONCE


class Impatient(Saga[Trip]):
    steps = (Late(),)


class Insured(Saga[Trip]):
    """The same saga, deployed with one more step before the others."""

    name = OneByOne.name
    version = 2
    steps = (Insuring(), Flight(), Hotel(), Car())


class Together(Saga[Trip]):
    steps = (Parallel(Flight(), Hotel()), Car())


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> AsyncIterator[list[Any]]:
    """What two replicas have of one database: two stores, or for a file, which has one engine, twice the same."""
    if request.param == "sqlite":
        async with opened(make_store("sqlite", sqlite_url(tmp_path), clock)) as store:
            yield [store, store]
        return
    where = request.getfixturevalue("migrated_database")
    async with (
        opened(make_store("postgresql", where, clock)) as one,
        opened(make_store("psycopg", where, clock)) as two,
    ):
        yield [one, two]


class Noting(MemoryTransport):
    """Notes what leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        self.left += [message.envelope.type for message in messages]
        return await super().publish(messages, timeout=timeout)


async def replica(store: Any, *sagas: type[Saga[Any]], transport: MemoryTransport | None = None) -> Replica:
    made = Replica(store, *sagas, transport=transport)
    await made.declare("agency")
    return made


async def undoing_the_flight(at: Replica) -> UUID:
    """A trip whose flight is booked and whose hotel is refused: the flight's cancellation is out."""
    trip = await at.start(OneByOne, Trip())
    await at.answer(trip, Flight)
    await at.answer(trip, Hotel, FAILURE)
    return trip


async def test_a_copy_of_a_forward_reply_is_not_taken_for_the_undos_reply(stores: list[Any]) -> None:
    at = await replica(stores[0], OneByOne)
    trip = await undoing_the_flight(at)

    await at.answer(trip, Flight)

    saga = await at.saga(trip)
    undo = saga.steps[StepKey("Flight", Direction.COMPENSATION)]
    assert (saga.status, undo.status) == (SagaStatus.COMPENSATING, StepStatus.OUTSTANDING)
    await at.answer(trip, Flight, undo=True)
    assert (await at.saga(trip)).status is SagaStatus.COMPENSATED


async def test_a_second_reply_to_a_finished_saga_sends_nothing(stores: list[Any]) -> None:
    transport = Noting()
    at = await replica(stores[0], OneByOne, transport=transport)
    trip = await at.start(OneByOne, Trip())
    for step in (Flight, Hotel, Car):
        await at.answer(trip, step)
    await at.sender.publish_batch()
    ended, left = await at.saga(trip), list(transport.left)
    assert ended.status is SagaStatus.COMPLETED and left

    for step in (Flight, Hotel, Car):
        await at.answer(trip, step)
        await at.answer(trip, step, FAILURE)
    await at.sender.publish_batch()

    assert transport.left == left
    after = await at.saga(trip)
    assert (after.status, after.state, after.steps) == (ended.status, ended.state, ended.steps)


async def test_a_failing_undo_never_ends_as_compensated(stores: list[Any]) -> None:
    at = await replica(stores[0], OneByOne)
    trip = await undoing_the_flight(at)

    await at.answer(trip, Flight, FAILURE, undo=True)

    saga = await at.saga(trip)
    assert (saga.status, saga.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.COMPENSATION_FAILED)
    assert saga.blocked_step == "Flight"


class Hasty:
    """A store whose sender publishes as early as it can: what it has been handed when a commit begins."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.publish: Callable[[], Awaitable[None]]
        self.committing = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        await self.publish()
        async with self._inner.transaction() as tx:
            yield tx
            self.committing = True
            await self.publish()
            self.committing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class AnsweredAtOnce(MemoryTransport):
    """Each command is answered to another replica before the broker has even confirmed it."""

    def __init__(self, store: Hasty, other: Replica) -> None:
        super().__init__()
        self._store, self._other = store, other

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        assert not self._store.committing, "its reply would find no command"
        for message in messages:
            await self._other.reply(UUID(message.envelope.message_id))
        return await super().publish(messages, timeout=timeout)


async def test_a_reply_that_comes_at_once_finds_its_command_committed(stores: list[Any]) -> None:
    other, hasty = await replica(stores[1], OneByOne), Hasty(stores[0])
    transport = AnsweredAtOnce(hasty, other)
    at = Replica(hasty, OneByOne, transport=transport)
    hasty.publish = at.sender.publish_batch
    await at.declare("agency")

    trip = await at.start(OneByOne, Trip())
    await at.sender.publish_batch()

    saga = await at.saga(trip)
    assert [(key.step, record.status) for key, record in saga.steps.items()] == [
        ("Flight", StepStatus.SUCCEEDED),
        ("Hotel", StepStatus.OUTSTANDING),
    ]


async def test_a_step_that_succeeds_after_its_timeout_is_undone(stores: list[Any], clock: MovableClock) -> None:
    at = await replica(stores[0], Impatient)
    trip = await at.start(Impatient, Trip())
    await at.sender.publish_batch()
    await at.engine.flush_marks()
    booked = await at.command(trip, Late)
    clock.move(Late.timeout)
    await at.settle()

    await at.reply(booked)
    await at.settle()

    saga = await at.saga(trip)
    assert saga.status is SagaStatus.COMPENSATING
    await at.answer(trip, Late, undo=True)
    saga = await at.saga(trip)
    assert (saga.status, Trip.model_validate_json(saga.state).answered) == (SagaStatus.COMPENSATED, 0)


async def test_a_first_step_that_is_inserted_while_sagas_wait_re_runs_nothing(stores: list[Any]) -> None:
    old = await replica(stores[0], OneByOne)
    trip = await old.start(OneByOne, Trip())
    await old.answer(trip, Flight)

    new_alone, both = await replica(stores[0], Insured), await replica(stores[1], OneByOne, Insured)
    await new_alone.answer(trip, Hotel)
    assert set((await old.saga(trip)).steps) == {StepKey("Flight"), StepKey("Hotel")}, "nobody here knows it"
    await both.settle()
    await both.answer(trip, Car)

    saga = await old.saga(trip)
    assert saga.status is SagaStatus.COMPLETED
    assert {(key.step, record.attempt) for key, record in saga.steps.items()} == {
        ("Flight", 1),
        ("Hotel", 1),
        ("Car", 1),
    }
    assert Trip.model_validate_json(saga.state).answered == 3


async def two_branches_finish_at_once(stores: list[Any], trips: int) -> None:
    one, two = [await replica(store, Together) for store in stores]
    begun: Counter[str] = Counter()
    for _ in range(trips):
        trip = await one.start(Together, Trip())
        flight, hotel = await one.command(trip, Flight), await one.command(trip, Hotel)

        await asyncio.gather(one.reply(flight), two.reply(hotel))

        saga = await one.saga(trip)
        begun.update(f"{key.step} {record.status} {record.attempt}" for key, record in saga.steps.items())
        assert Trip.model_validate_json(saga.state).answered == 2
    assert begun == dict.fromkeys(("Flight succeeded 1", "Hotel succeeded 1", "Car outstanding 1"), trips)


async def test_two_branches_that_finish_at_once_on_two_replicas_lose_nothing(stores: list[Any]) -> None:
    await two_branches_finish_at_once(stores, 25)


@pytest.mark.torture
async def test_a_thousand_times_two_branches_that_finish_at_once_lose_nothing(stores: list[Any]) -> None:
    await two_branches_finish_at_once(stores, 1000)
