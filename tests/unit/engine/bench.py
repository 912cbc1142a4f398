"""The engine on a workbench: memory store, memory broker, a clock that stands until it is moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS
from messaging.envelope import Envelope
from messaging.errors import PublishError
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Reply
from messaging.transport import Delivery, Outgoing, QueueSpec
from orchestrator.at_hand import AtHand
from orchestrator.definition import Saga
from orchestrator.engine import Engine, EngineSettings
from orchestrator.incoming import Events, read_event, read_reply
from orchestrator.incoming import Reply as ReplyItem
from orchestrator.instance import SagaInstance
from orchestrator.memory import MemoryStore
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.start import new_instance
from orchestrator.steps import Step, WaitForEvent
from orchestrator.watching import Watching

REPLIES = "replies"
START = datetime(2030, 1, 1, tzinfo=UTC)


class Trip(BaseModel):
    number: int
    log: str = ""
    hook_raises: bool = False


class Booked(Reply): ...


class BookFlight(Command[Booked], version=2):
    number: int


class CancelFlight(Command[Booked]):
    number: int


class BookHotel(Command[Booked]):
    number: int


class Paid(Event, version=2):
    """In version 1 the number had a longer name."""

    number: int

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
        """Shorten it."""
        return {"number": body["trip_number"]}


broken_hooks: set[int] = set()
"""Numbers of trips whose hooks raise at the moment: code that is to be mended."""


class BookingFlight(Step[Trip, Booked]):
    participant = "flights"
    timeout = timedelta(seconds=10)

    def command(self, state: Trip) -> BookFlight:
        return BookFlight(number=state.number)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        if state.number in broken_hooks:
            raise RuntimeError("this hook is broken")
        state.log += "flight "

    def compensation(self, state: Trip) -> CancelFlight:
        return CancelFlight(number=state.number)


class AwaitingPayment(WaitForEvent[Trip, Paid]):
    timeout = timedelta(minutes=5)

    def awaited_key(self, state: Trip) -> str:
        return str(state.number)

    def event_key(self, event: Paid) -> str:
        return str(event.number)


class BookingHotel(Step[Trip, Booked]):
    participant = "hotels"
    nothing_to_undo = True

    def command(self, state: Trip) -> BookHotel:
        return BookHotel(number=state.number)


class BookTrip(Saga[Trip]):
    steps = (BookingFlight(), AwaitingPayment(), BookingHotel())


class StandingClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.instant = START

    def now(self) -> datetime:
        """The instant."""
        return self.instant

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self.instant += by


class RecordingTransport(MemoryTransport):
    """The memory broker with a list of what was published; `refuse` says which messages it does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Outgoing] = []
        self.refuse: Callable[[Outgoing], PublishError | None] = lambda _: None

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish, and note it."""
        outcomes: list[PublishError | None] = []
        for message in messages:
            refused = self.refuse(message)
            if refused is None:
                (refused,) = await super().publish([message], timeout=timeout)
            if refused is None:
                self.sent.append(message)
            outcomes.append(refused)
        return outcomes


@dataclass
class Workbench:
    """Parts as the service wires them, without its loop: a test makes each transaction itself."""

    clock: StandingClock = field(default_factory=StandingClock)
    transport: RecordingTransport = field(default_factory=RecordingTransport)
    watching: Watching | None = None
    at_hand: int = 1_000_000
    """Bytes of sagas that are kept between their batches."""

    def __post_init__(self) -> None:
        self.on_store(MemoryStore(self.clock))

    def on_store(self, store: MemoryStore) -> None:
        """Wire the parts around a store."""
        self.store = store
        self.registry = SagaRegistry([BookTrip])
        self.sender = Sender(self.transport, REPLIES, timeout=timedelta(seconds=1), watching=self.watching)
        settings = EngineSettings(batch=50)
        sagas = AtHand(self.store, self.at_hand, self.clock)
        self.engine = Engine(self.registry, self.store, self.sender, settings, watching=self.watching, at_hand=sagas)

    async def open(self) -> Workbench:
        """Declare the participants' queues."""
        await self.transport.declare([QueueSpec("flights"), QueueSpec("hotels")])
        return self

    def another_process(self) -> Workbench:
        """Another orchestrator on the same database and broker."""
        other = Workbench(self.clock, self.transport, self.watching, self.at_hand)
        other.on_store(self.store)
        return other

    @property
    def sent(self) -> list[Outgoing]:
        """What was published and taken by the broker."""
        return self.transport.sent

    async def start(self, number: int, saga: type[Saga[Any]] = BookTrip) -> UUID:
        """Start a saga, as a client does."""
        instance = new_instance(saga, Trip(number=number), str(number), "", self.clock.now())
        async with self.store.transaction() as tx:
            saga_id, _ = await tx.start(instance)
        return saga_id

    def saga(self, saga_id: UUID) -> SagaInstance:
        """A saga as committed."""
        return self.store.saga(saga_id)

    async def publish(self) -> None:
        """Let the sender publish what it was handed."""
        await self.sender.publish_batch()

    def answer(self, command: Outgoing, outcome: str = wire.SUCCESS, body: bytes = b"{}") -> ReplyItem:
        """A participant's reply to a command."""
        envelope = Envelope("", body, correlation_id=command.envelope.correlation_id, headers={wire.OUTCOME: outcome})
        item = read_reply(Delivery(envelope, REPLIES, tag=1, epoch=1), DEFAULT_LIMITS)
        assert isinstance(item, ReplyItem)
        return item

    def event(self, number: int, message_id: str = "event-1", *, version: int = 2) -> Events:
        """A payment, as it is delivered."""
        body = b'{"%s": %d}' % (b"number" if version == 2 else b"trip_number", number)
        envelope = Envelope(message_id, body, "paid", headers={wire.SCHEMA_VERSION: version})
        delivery = Delivery(envelope, "events", tag=1, epoch=1)
        item = read_event(delivery, self.registry.events, DEFAULT_LIMITS, timedelta(hours=1))
        assert isinstance(item, Events)
        return item

    async def wake(self) -> int:
        """Take on what is due."""
        return await self.engine.wake(50, deadlines=True)

    async def answered_flight(self, number: int) -> UUID:
        """A saga whose first step has succeeded, and which waits for the payment."""
        saga_id = await self.start(number)
        await self.wake()
        await self.publish()
        await self.engine.replies([self.answer(self.sent[-1])])
        await self.wake()
        return saga_id
