"""Two versions of one saga, and processes that have one of them, or both, on one store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from messaging.codec import DEFAULT_LIMITS
from messaging.envelope import OUTCOME, SUCCESS, Envelope
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Reply
from messaging.transport import Delivery
from orchestrator import Saga, Step, SubSaga, WaitForEvent
from orchestrator.engine import Engine
from orchestrator.incoming import Reply as ReplyItem
from orchestrator.incoming import Undecodable, read_event, read_reply
from orchestrator.instance import Direction, SagaInstance, StepKey
from orchestrator.registry import SagaRegistry, pin_of
from orchestrator.sender import Sender
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import ActionRequested, UpgradeRequested
from orchestrator.start import new_instance
from orchestrator.store_records import NewSignal
from orchestrator.version_keeper import VersionKeeper
from orchestrator.workers import this_process
from tests.conformance.stores import MovableClock, load

MINUTE = timedelta(minutes=1)


class Trip(BaseModel):
    number: int = 7
    booked: list[str] = []


class Booked(Reply): ...


class Book(Command[Booked]):
    what: str


class Cancel(Command[Booked]):
    what: str


class Booking(Step[Trip, Booked]):
    participant = "agency"
    timeout = timedelta(minutes=10)

    def command(self, state: Trip) -> Book:
        return Book(what=self.name)

    def compensation(self, state: Trip) -> Cancel:
        return Cancel(what=self.name)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.booked.append(self.name)


class Insurance(Booking): ...


class Flight(Booking): ...


class Car(Booking): ...


class Hotel(Booking): ...


class BookTripV1(Saga[Trip]):
    name = "book-trip"
    steps = (Flight(), Hotel())


class BookTripV2(Saga[Trip]):
    name = "book-trip"
    version = 2
    steps = (Insurance(), Flight(), Car(), Hotel())

    @classmethod
    def upcast(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        return {**state, "number": state["number"] + 100}


class BookTripV3(Saga[Trip]):
    """It has no flight."""

    name = "book-trip"
    version = 3
    steps = (Insurance(), Hotel())


class TripPaid(Event, version=2):
    """In version 1 the number had a longer name."""

    number: int

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
        return {"number": body["trip_number"]}


class AwaitingPayment(WaitForEvent[Trip, TripPaid]):
    timeout = timedelta(hours=1)

    def awaited_key(self, state: Trip) -> str:
        return str(state.number)

    def event_key(self, event: TripPaid) -> str:
        return str(event.number)


class BookTripV4(Saga[Trip]):
    """It waits for an event that earlier versions know nothing of."""

    name = "book-trip"
    version = 4
    steps = (AwaitingPayment(), Flight())


class BookTripV5(Saga[Trip]):
    """It waits for that event too."""

    name = "book-trip"
    version = 5
    steps = (AwaitingPayment(), Hotel())


class Journey(BaseModel):
    """What a parent knows."""


class BookingTrip(SubSaga[Journey, Trip]):
    saga = BookTripV1

    def child_state(self, state: Journey) -> Trip:
        return Trip()


class Paying(Step[Journey, Booked]):
    participant = "bank"

    def command(self, state: Journey) -> Book:
        return Book(what="payment")

    def compensation(self, state: Journey) -> Cancel:
        return Cancel(what="payment")


class SellJourney(Saga[Journey]):
    """It has a trip booked before it is paid."""

    name = "sell-journey"
    steps = (BookingTrip(), Paying())


class BookingTripV2(SubSaga[Journey, Trip]):
    saga = BookTripV2
    name = BookingTrip.name

    def child_state(self, state: Journey) -> Trip:
        return Trip()


class SellJourneyNow(Saga[Journey]):
    """The same saga, in a release that has no longer the version in which its trips in flight were booked."""

    name = SellJourney.name
    steps = (BookingTripV2(), Paying())


@dataclass
class Process:
    """An engine that has some definitions, without its loop: a test makes each transaction itself."""

    store: Any
    clock: MovableClock
    sagas: tuple[type[Saga[Any]], ...]

    def __post_init__(self) -> None:
        registry = self.registry = SagaRegistry(self.sagas)
        self.engine = Engine(registry, self.store, Sender(MemoryTransport(), "replies", timeout=MINUTE))
        worker = this_process(registry.pins, registry.events)
        self.keeper = VersionKeeper(self.engine, self.store, registry, worker)

    async def start(self, saga: type[Saga[Any]], state: BaseModel | None = None) -> UUID:
        instance = new_instance(saga, state or Trip(), None, "", self.clock.now())
        async with self.store.transaction() as tx:
            await tx.start(instance)
        return instance.id

    async def settle(self) -> None:
        """Do what is due, and tell what there is to tell, until there is nothing."""
        while await self.engine.wake(10, deadlines=True) or await self.engine.signals(10):
            pass

    async def take_answer(self, saga_id: UUID, step: type[Step[Any, Any]], *, undo: bool = False) -> None:
        """Take the participant's answer to a step off the queue, and settle."""
        key = StepKey(step.name, Direction.COMPENSATION if undo else Direction.ACTION)
        command = (await load(self.store, saga_id)).steps[key].command_id
        envelope = Envelope("", b"{}", correlation_id=str(command), headers={OUTCOME: SUCCESS})
        item = read_reply(Delivery(envelope, "replies", tag=1, epoch=1), DEFAULT_LIMITS)
        assert isinstance(item, ReplyItem)
        await self.engine.replies([item])
        await self.settle()

    async def take_event(self, message_id: str = "paid-1") -> None:
        """Take a payment of trip 7 off the queue, from a sender who has the first version of the event."""
        envelope = Envelope(message_id, b'{"trip_number": 7}', "trip-paid")
        delivery = Delivery(envelope, "events", tag=1, epoch=1)
        item = read_event(delivery, self.registry.events, DEFAULT_LIMITS, timedelta(hours=24))
        assert not isinstance(item, Undecodable)
        await self.engine.match_events(await self.engine.keep_events([item]))
        await self.settle()

    async def asked(self, saga_id: UUID, asked: ActionRequested) -> None:
        """Leave an operator's request, and take it."""
        row = signal_to_row(asked)
        assert row is not None
        await self.tell(saga_id, *row)
        await self.settle()

    async def upgraded(self, saga_id: UUID, to: type[Saga[Any]], *, fingerprint: str | None = None) -> None:
        """Ask for another version, and take it."""
        pin = pin_of(to)
        row = signal_to_row(UpgradeRequested(pin.version, fingerprint or pin.fingerprint, "new code", "ann"))
        assert row is not None
        await self.tell(saga_id, *row)
        await self.keeper.upgrade()
        await self.settle()

    async def tell(self, saga_id: UUID, kind: str, body: str) -> None:
        async with self.store.transaction() as tx:
            await tx.add_signals([NewSignal(saga_id, kind, body)])

    async def saga(self, saga_id: UUID) -> SagaInstance:
        return await load(self.store, saga_id)

    async def pending(self, saga_id: UUID) -> list[str]:
        """The kinds of what the saga has yet to be told."""
        async with self.store.transaction() as tx:
            return [signal.kind for signal in await tx.pending_signals([saga_id])]
