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
from messaging.messages import Command, Reply
from messaging.transport import Delivery
from orchestrator import Saga, Step
from orchestrator.engine import Engine
from orchestrator.incoming import Reply as ReplyItem
from orchestrator.incoming import read_reply
from orchestrator.instance import Direction, SagaInstance, StepKey
from orchestrator.registry import SagaRegistry, pin_of
from orchestrator.sender import Sender
from orchestrator.signal_codec import signal_to_row, upgrade_kind
from orchestrator.signals import ActionRequested
from orchestrator.start import new_instance
from orchestrator.store import NewSignal
from orchestrator.upgrading import UpgradeRequested
from orchestrator.version_keeper import VersionKeeper
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


@dataclass
class Process:
    """An engine that has some definitions, without its loop: a test makes each transaction itself."""

    store: Any
    clock: MovableClock
    sagas: tuple[type[Saga[Any]], ...]

    def __post_init__(self) -> None:
        registry = SagaRegistry(self.sagas)
        self.engine = Engine(registry, self.store, Sender(MemoryTransport(), "replies", timeout=MINUTE))
        self.keeper = VersionKeeper(self.engine, self.store, registry, MINUTE)

    async def start(self, saga: type[Saga[Any]]) -> UUID:
        instance = new_instance(saga, Trip(), None, "", self.clock.now())
        async with self.store.transaction() as tx:
            await tx.start(instance)
        return instance.id

    async def settle(self) -> None:
        """Do what is due, and tell what there is to tell, until there is nothing."""
        while await self.engine.wake(10, deadlines=True) or await self.engine.signals(10):
            pass

    async def take_answer(self, saga_id: UUID, step: type[Booking], *, undo: bool = False) -> None:
        """Take the participant's answer to a step off the queue, and settle."""
        key = StepKey(step.name, Direction.COMPENSATION if undo else Direction.ACTION)
        command = (await load(self.store, saga_id)).steps[key].command_id
        envelope = Envelope("", b"{}", correlation_id=str(command), headers={OUTCOME: SUCCESS})
        item = read_reply(Delivery(envelope, "replies", tag=1, epoch=1), DEFAULT_LIMITS)
        assert isinstance(item, ReplyItem)
        await self.engine.replies([item])
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
        request = UpgradeRequested(pin.version, fingerprint or pin.fingerprint, "new code", "ann")
        await self.tell(saga_id, upgrade_kind(pin.version), request.body)
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
