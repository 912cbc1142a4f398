"""Parents and children on every store: each decision a transaction of its own, orders and ends as signals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from messaging.envelope import FAILURE
from messaging.messages import Command, Reply
from orchestrator import Parallel, Saga, SagaStatus, Step, SubSaga
from orchestrator.instance import StepStatus
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import AbandonRequested, ActionRequested, CancelRequested
from orchestrator.store_records import NewSignal
from tests.conformance.replicas import Replica
from tests.conformance.stores import MovableClock, make_store, opened, sqlite_url


class Trip(BaseModel):
    number: int = 0
    taxis: int = 0


class Booked(Reply): ...


class Book(Command[Booked]):
    what: str


class Cancel(Command[Booked]):
    what: str


class Booking(Step[Trip, Booked]):
    participant = "agency"

    def command(self, state: Trip) -> Book:
        return Book(what=self.name)

    def compensation(self, state: Trip) -> Cancel:
        return Cancel(what=self.name)


class Taxi(Booking): ...


class Flight(Booking): ...


class Hotel(Booking): ...


class BookTaxi(Saga[Trip]):
    steps = (Taxi(),)


class WithTaxi(SubSaga[Trip, Trip]):
    saga = BookTaxi

    def child_state(self, state: Trip) -> Trip:
        return Trip(number=state.number, taxis=1)

    def on_completed(self, state: Trip, child: Trip) -> None:
        state.taxis += child.taxis


class BookTrip(Saga[Trip]):
    steps = (Parallel(Flight(), WithTaxi()), Hotel())


class Agency(Replica):
    """An engine on a store, and whoever answers its commands."""

    def __init__(self, store: Any, clock: MovableClock) -> None:
        super().__init__(store, BookTrip)
        self.clock = clock

    async def start_trip(self) -> tuple[UUID, UUID]:
        saga_id = await self.start(BookTrip, Trip(number=7))
        parent = await self.saga(saga_id)
        (child,) = (row.awaited_key for row in parent.steps.values() if row.wire_name == "saga")
        return saga_id, UUID(child)

    async def ask(self, saga_id: UUID, asked: ActionRequested) -> None:
        kind, body = signal_to_row(asked) or ("", "")
        async with self.store.transaction() as tx:
            await tx.add_signals([NewSignal(saga_id, kind, body)])
        await self.settle()

    async def statuses(self, *saga_ids: UUID) -> list[str]:
        return [(await self.saga(saga_id)).status.value for saga_id in saga_ids]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def agency(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Agency]:
    where, clock = "", MovableClock()
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Agency(store, clock)


async def test_a_parent_starts_its_child_and_goes_on_when_it_completes(agency: Agency) -> None:
    parent, child = await agency.start_trip()
    found = (await agency.saga(child)).parent
    assert found is not None and (found.id, found.root, found.step) == (parent, parent, "WithTaxi")

    await agency.answer(child, Taxi)
    await agency.answer(parent, Flight)
    await agency.answer(parent, Hotel)

    assert await agency.statuses(parent, child) == ["completed", "completed"]
    assert Trip.model_validate_json((await agency.saga(parent)).state).taxis == 1


async def test_a_child_that_fails_turns_its_parent_back(agency: Agency) -> None:
    parent, child = await agency.start_trip()
    await agency.answer(parent, Flight)
    await agency.answer(child, Taxi, FAILURE)
    await agency.answer(parent, Flight, undo=True)

    assert await agency.statuses(parent, child) == ["compensated", "compensated"]


async def test_a_completed_child_goes_back_before_its_parent_does(agency: Agency) -> None:
    parent, child = await agency.start_trip()
    await agency.answer(child, Taxi)
    await agency.answer(parent, Flight)
    await agency.answer(parent, Hotel, FAILURE)
    assert await agency.statuses(parent, child) == ["compensating", "compensating"]
    assert (await agency.saga(child)).ended_at is None

    await agency.answer(parent, Flight, undo=True)
    assert await agency.statuses(parent) == ["compensating"]
    await agency.answer(child, Taxi, undo=True)

    assert await agency.statuses(parent, child) == ["compensated", "compensated"]
    assert (await agency.saga(child)).ended_at is not None


async def test_a_parent_that_is_cancelled_cancels_its_child_and_waits(agency: Agency) -> None:
    parent, child = await agency.start_trip()
    await agency.ask(parent, CancelRequested("no longer wanted"))
    await agency.answer(parent, Flight, FAILURE)
    assert await agency.statuses(parent, child) == ["compensating", "compensating"]

    await agency.answer(child, Taxi, FAILURE)

    assert await agency.statuses(parent, child) == ["compensated", "compensated"]


async def test_an_operator_who_abandons_a_child_is_asked_about_its_parent(agency: Agency) -> None:
    parent, child = await agency.start_trip()
    await agency.ask(child, AbandonRequested("settled by phone"))

    assert await agency.statuses(parent, child) == ["blocked", "abandoned"]
    assert (await agency.saga(parent)).blocked_step == "WithTaxi"


async def test_an_ended_childs_parent_is_told_once_however_often_the_engine_looks(agency: Agency) -> None:
    parent, child = await agency.start_trip()
    await agency.answer(child, Taxi)
    revision = (await agency.saga(parent)).revision
    await agency.settle()
    await agency.answer(child, Taxi)

    assert (await agency.saga(parent)).revision == revision
    rows = (await agency.saga(parent)).steps.values()
    assert [r.status for r in rows if r.wire_name == "saga"] == [StepStatus.SUCCEEDED]
    assert (await agency.saga(child)).status is SagaStatus.COMPLETED
