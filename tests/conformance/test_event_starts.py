"""Sagas that events start, on every store: once for each key, whoever looks first, and not lost when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from messaging.codec import DEFAULT_LIMITS
from messaging.contracts import Received
from messaging.envelope import Envelope
from messaging.memory import MemoryTransport
from messaging.messages import Event
from messaging.transport import Binding, Delivery
from orchestrator import Delay, Saga, SagaStatus, StartOnEvent, WaitForEvent
from orchestrator.contracts import party_of_sagas
from orchestrator.engine import Engine
from orchestrator.event_starts import STARTS
from orchestrator.incoming import Events, Unmatched, read_event
from orchestrator.instance import SagaInstance
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.service import Queues
from orchestrator.start import new_instance
from orchestrator.store_records import ReceivedEvent
from tests.conformance.stores import NOON, PSYCOPG, MovableClock, load, make_store, opened, sqlite_url


class Parcel(BaseModel):
    number: str
    weight: int = 0


class Posted(Event):
    number: str
    weight: int = 1


class OnPosted(StartOnEvent[Parcel, Posted]):
    def event_key(self, event: Posted) -> str:
        return event.number

    def state(self, event: Posted) -> Parcel:
        if event.weight < 0:
            raise ValueError("lighter than air")
        return Parcel(number=event.number)


class BeingPosted(WaitForEvent[Parcel, Posted]):
    """The very event that starts the saga."""

    timeout = timedelta(days=1)

    def awaited_key(self, state: Parcel) -> str:
        return state.number

    def event_key(self, event: Posted) -> str:
        return event.number

    def on_event(self, state: Parcel, event: Posted) -> None:
        state.weight = event.weight


class Waiting(Delay[Parcel]):
    def until(self, state: Parcel) -> timedelta:
        return timedelta(hours=1)


class DeliverParcel(Saga[Parcel]):
    starts_on = (OnPosted(),)
    steps = (BeingPosted(),)


class DeliverAgain(Saga[Parcel]):
    """Started by the same event, and once more when it has ended."""

    starts_on = (OnPosted(),)
    reuse_key_after_end = True
    steps = (BeingPosted(),)


class PostOffice:
    """An engine on a store, and the events that come."""

    def __init__(self, store: Any, *sagas: type[Saga[Any]]) -> None:
        self.store = store
        self.registry = SagaRegistry(sagas or [DeliverParcel])
        self.engine = Engine(self.registry, store, Sender(MemoryTransport(), "x", timeout=timedelta(1)))

    def read(self, number: str, message_id: str, weight: int = 1) -> Any:
        body = Posted(number=number, weight=weight).model_dump_json().encode()
        delivery = Delivery(Envelope(message_id, body, "posted"), "events", tag=1, epoch=1)
        return read_event(delivery, self.registry.events, DEFAULT_LIMITS, timedelta(hours=1))

    async def keep(self, number: str, message_id: str = "m1", weight: int = 1) -> list[UUID]:
        item = self.read(number, message_id, weight)
        assert isinstance(item, Events)
        return await self.engine.keep_events([item])

    async def settle(self) -> None:
        while await self.engine.start_by_events() or await self.engine.wake(10, deadlines=True):
            pass

    async def who_has(self, key: str, saga: type[Saga[Any]] = DeliverParcel) -> SagaInstance | None:
        """The saga with this key, if there is one; found as a second start finds it."""
        holder = None
        try:
            async with self.store.transaction() as tx:
                holder, created = await tx.start(new_instance(saga, Parcel(number=key), key, "", NOON))
                if created:
                    holder = None
                    raise LookupError
        except LookupError:
            return None
        assert holder is not None
        return await load(self.store, holder)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> AsyncIterator[Any]:
    where = ""
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield store


async def test_an_event_starts_a_saga_and_satisfies_its_wait_as_well(store: Any) -> None:
    office = PostOffice(store)

    new = await office.keep("p1", weight=7)
    assert await office.engine.start_by_events(new) == 1
    await office.settle()

    saga = await office.who_has("p1")
    assert saga is not None
    assert (saga.status, saga.state) == (SagaStatus.COMPLETED, '{"number":"p1","weight":7}')


async def test_an_event_that_comes_again_or_another_with_its_key_starts_no_second_saga(store: Any) -> None:
    office = PostOffice(store)

    await office.keep("p1")
    await office.settle()
    first = await office.who_has("p1")
    assert await office.keep("p1") == []
    await office.keep("p1", "m2")
    assert await office.engine.start_by_events() == 1
    assert await office.engine.start_by_events() == 0

    again = await office.who_has("p1")
    assert first is not None and again is not None
    assert again.id == first.id


async def test_an_event_whose_saga_was_started_by_a_caller_starts_none_but_is_taken_by_its_wait(store: Any) -> None:
    office = PostOffice(store)
    started = new_instance(DeliverParcel, Parcel(number="p1"), "p1", "", NOON)
    async with store.transaction() as tx:
        await tx.start(started)

    await office.keep("p1", weight=3)
    await office.settle()

    saga = await load(store, started.id)
    assert (saga.status, saga.state) == (SagaStatus.COMPLETED, '{"number":"p1","weight":3}')


async def test_an_event_that_was_kept_and_not_looked_at_is_found_by_the_sweep(store: Any) -> None:
    await PostOffice(store).keep("p1")  # and the process ends here

    other = PostOffice(store)
    assert await other.engine.start_by_events() == 1

    assert await other.who_has("p1") is not None


async def test_one_event_starts_a_saga_of_each_kind_that_says_so(store: Any) -> None:
    office = PostOffice(store, DeliverParcel, DeliverAgain)

    await office.keep("p1")
    await office.settle()

    for saga in (DeliverParcel, DeliverAgain):
        assert await office.who_has("p1", saga) is not None


async def test_a_key_that_may_be_used_again_starts_another_saga_after_the_end(store: Any) -> None:
    office = PostOffice(store, DeliverAgain)
    await office.keep("p1")
    await office.settle()
    first = await office.who_has("p1", DeliverAgain)

    await office.keep("p1", "m2")
    await office.settle()

    second = await office.who_has("p1", DeliverAgain)
    assert first is not None and second is not None
    assert first.id != second.id


async def test_an_event_that_can_start_nothing_is_put_aside_and_the_others_go_on(store: Any) -> None:
    office = PostOffice(store)
    unreadable = ReceivedEvent("m1", "posted", f"{STARTS}deliver-parcel/p1", '{"weight":1}', timedelta(hours=1))
    of_another_key = ReceivedEvent("m2", "posted", f"{STARTS}deliver-parcel/p3", '{"number":"p2"}', timedelta(hours=1))
    async with store.transaction() as tx:
        await tx.add_events([unreadable, of_another_key])
    await office.keep("p4", "m4")

    assert await office.engine.start_by_events() == 3
    assert await office.engine.start_by_events() == 0

    assert [await office.who_has(key) is not None for key in ("p1", "p2", "p3", "p4")] == [False, False, False, True]


async def test_an_event_that_this_process_starts_nothing_by_stays_for_one_that_does(store: Any) -> None:
    await PostOffice(store, DeliverParcel, DeliverAgain).keep("p1")

    assert await PostOffice(store, DeliverParcel).engine.start_by_events() == 1
    assert await PostOffice(store, DeliverAgain).engine.start_by_events() == 1


async def test_expired_events_start_nothing(store: Any, clock: MovableClock) -> None:
    office = PostOffice(store)
    await office.keep("p1")

    clock.move(timedelta(hours=2))

    assert await office.engine.start_by_events() == 0


async def test_ten_processes_that_look_at_once_start_one_saga_for_each_key(store: Any) -> None:
    offices = [PostOffice(store) for _ in range(10)]
    for number in range(30):
        await offices[0].keep(f"p{number % 3}", f"m{number}")

    taken = await asyncio.gather(*(office.engine.start_by_events() for office in offices))

    assert sum(taken) == 30
    assert len({saga.id for n in range(3) if (saga := await offices[0].who_has(f"p{n}"))}) == 3


def test_the_orchestrators_queue_hears_of_events_that_start_sagas() -> None:
    class OnlyStarted(Saga[Parcel]):
        starts_on = (OnPosted(),)
        steps = (Waiting(),)

    registry = SagaRegistry([OnlyStarted])
    _, events = Queues("main").specs(registry)

    assert events.bindings == (Binding("posted"),)
    assert party_of_sagas(registry).receives == (Received(Posted, Binding("posted")),)


@pytest.mark.parametrize(("number", "weight"), [("", 1), ("x" * 300, 1), ("p1", -1)])
def test_an_event_whose_key_or_state_is_no_good_is_kept_whole_with_why(number: str, weight: int) -> None:
    item = PostOffice(None).read(number, "m1", weight)

    assert isinstance(item, Unmatched)
    assert "a hook for events raised" in item.reason
