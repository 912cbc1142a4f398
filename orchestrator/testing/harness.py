"""The whole orchestrator in a test: the real engine, a store and a broker in memory, and time moved by hand.

    async def test_an_order_that_is_not_paid_is_undone() -> None:
        harness = SagaHarness(CreateOrderSaga)
        harness.participant("orders").on(CreateOrder).answers(OrderCreated())
        harness.participant("orders").on(RejectOrder).answers(OrderRejected())

        order = await harness.start(CreateOrderSaga, OrderState(order_id=ORDER))
        await harness.advance(hours=25)
        assert order.status is SagaStatus.COMPENSATED

Nothing runs beside the test: each call works until nothing is left to do at that instant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel

from messaging.compose import compose_event
from messaging.envelope import SAGA_ID, to_subscribers
from messaging.inbox import answer_of
from messaging.memory import MemorySubscription, MemoryTransport
from messaging.messages import Event, Failure, Reply
from messaging.transport import Outgoing, QueueSpec
from orchestrator.definition import Saga
from orchestrator.engine import Engine, EngineSettings
from orchestrator.errors import ActionRefused
from orchestrator.instance import BlockedReason, FirstCause, SagaInstance, SagaStatus, StepKey, StepStatus
from orchestrator.intake import Intake
from orchestrator.local_runner import Due
from orchestrator.loop import EngineLoop
from orchestrator.memory import MemoryStore
from orchestrator.plan import CommandLeaf
from orchestrator.registry import SagaRegistry
from orchestrator.reply_tokens import completed
from orchestrator.sender import Sender
from orchestrator.service import Queues
from orchestrator.signal_codec import ACTIONS, action_word, signal_to_row
from orchestrator.signals import ActionRequested
from orchestrator.start import new_instance
from orchestrator.steps import Leaf, Step
from orchestrator.store_records import CommandRef, NewSignal
from orchestrator.testing.participants import FakeParticipant, Said

S = TypeVar("S", bound=BaseModel)
E = TypeVar("E", bound=Event)
R = TypeVar("R", bound=Reply)

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_NO_TIME: Final = timedelta(0)
_TURNS: Final = 10_000
_BATCH: Final = 100
_PATIENCE: Final = timedelta(seconds=15)


class VirtualClock:
    """Time that passes only when it is told to."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def now(self) -> datetime:
        """The instant."""
        return self.instant


class StartedInHarness(Generic[S]):
    """A saga that the test has started."""

    def __init__(self, harness: SagaHarness, saga_id: UUID, states: type[S]) -> None:
        self._harness, self.id, self._states = harness, saga_id, states

    @property
    def instance(self) -> SagaInstance:
        """Its row, as committed."""
        return self._harness.store.saga(self.id)

    @property
    def state(self) -> S:
        """Its state."""
        return self._states.model_validate_json(self.instance.state)

    @property
    def status(self) -> SagaStatus:
        """Where it is."""
        return self.instance.status

    @property
    def current_step(self) -> str:
        """The step something is awaited from, or which blocks."""
        return self.instance.current_step

    @property
    def blocked_reason(self) -> BlockedReason | None:
        """Why it needs an operator."""
        return self.instance.blocked_reason

    @property
    def first_cause(self) -> FirstCause | None:
        """What made it turn back."""
        return self.instance.first_cause

    def step_status(self, step: type[Leaf[S]]) -> StepStatus | None:
        """Where a step is; None if it has not begun."""
        record = self.instance.steps.get(StepKey(step.name))
        return None if record is None else record.status

    async def ask(self, action: str, reason: str = "test") -> None:
        """Ask what an operator may ask: a word of `saga COMMAND`, such as `cancel`, `retry` or `pause`.

        Raises:
            ActionRefused: its state does not allow it.
        """
        await self._harness.ask(self.id, action, reason)

    async def complete(self, step: type[Step[S, R]], answer: R | Failure) -> None:
        """Redeem the reply token of the step's command, after its participant answered `Accepted`.

        Raises:
            ActionRefused: the saga does not await that answer.
        """
        record = self.instance.steps[StepKey(step.name)]
        attempt = CommandRef(self.id, record.key, record.round, record.attempt)
        await self._harness.ask_for(self.id, completed(attempt, answer_of(answer), "test", ""))


class SagaHarness:
    """An orchestrator for one test.

    Commands reach participants that the test describes, see `participant`; one that nothing was said about is
    an AssertionError. The store has no database: local steps may not use their session.

    Args:
        sagas: the classes it knows.
        now: the instant at which it begins; aware.
    """

    def __init__(self, *sagas: type[Saga[Any]], now: datetime = START) -> None:
        self.clock = VirtualClock(now)
        self.store = MemoryStore(self.clock)
        self.transport = MemoryTransport()
        self._registry, self._queues = SagaRegistry(sagas), Queues("test")
        self._sender = Sender(self.transport, self._queues.replies, timeout=_PATIENCE, now=self.clock.now)
        self._engine = Engine(self._registry, self.store, self._sender, EngineSettings(batch=_BATCH))
        self._local: list[Due] = []
        self._engine.local_due = self._local.extend
        self._participants: dict[str, FakeParticipant] = {
            name: FakeParticipant(name) for name in _participants(self._registry)
        }
        self._said: list[Said] = []
        self._relayed: set[UUID] = set()
        self._wired: tuple[EngineLoop, MemorySubscription, MemorySubscription] | None = None
        self._orders: dict[str, MemorySubscription] = {}

    # -- what the test does

    def participant(self, name: str) -> FakeParticipant:
        """A participant of these sagas, to be told what it answers.

        Raises:
            AssertionError: no step has a participant of this name.
        """
        if name not in self._participants:
            raise AssertionError(f"no step has the participant {name!r}. There are: {sorted(self._participants)}")
        return self._participants[name]

    async def start(self, saga: type[Saga[S]], state: S, *, key: str | None = None) -> StartedInHarness[S]:
        """Start a saga, and let it come as far as it comes at once."""
        instance = new_instance(saga, state, key, "", self.clock.now())
        async with self.store.transaction() as tx:
            saga_id, _ = await tx.start(instance, reuse_key_after_end=saga.reuse_key_after_end)
        await self.settle()
        return StartedInHarness(self, saga_id, type(state))

    async def publish(self, event: Event, *, of: StartedInHarness[Any] | None = None) -> None:
        """Have an event come; `of` a saga, it carries that saga's id."""
        headers = {} if of is None else {SAGA_ID: str(of.id)}
        await self._wire()
        await self._publish([Outgoing(compose_event(event, headers=headers), to_subscribers(event.wire_name))])
        await self.settle()

    async def advance(
        self, by: timedelta = _NO_TIME, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let time pass: what is due on the way happens at its instant."""
        until = self.clock.instant + by + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self.settle()
        while (due := self._next_due()) is not None and due <= until:
            self.clock.instant = max(due, self.clock.instant)
            await self.settle()
        self.clock.instant = until

    async def ask(self, saga_id: UUID, action: str, reason: str = "test") -> None:
        """Ask for an operator's action on a saga; see `StartedInHarness.ask`.

        Raises:
            ActionRefused: the saga's state does not allow it.
        """
        await self.ask_for(saga_id, ACTIONS[action](reason=reason, by="test"))

    async def ask_for(self, saga_id: UUID, asked: ActionRequested) -> None:
        """Ask something of a saga, and see what it answers.

        Raises:
            ActionRefused: the saga's state does not allow it.
        """
        row = signal_to_row(asked)
        assert row is not None
        async with self.store.transaction() as tx:
            await tx.add_signals([NewSignal(saga_id, *row)])
        await self.settle()
        answer = next(entry for _, entry in sorted(self.store.tables.audit.items(), reverse=True))
        if answer.refused:
            raise ActionRefused(saga_id, action_word(asked), answer.refused)

    async def settle(self) -> None:
        """Work until nothing is left to do at this instant.

        Raises:
            AssertionError: a participant got a command that nothing was said about, or it never ends.
        """
        for _ in range(_TURNS):
            if not await self._turn():
                return
        raise AssertionError(f"after {_TURNS} turns there is still something to do at {self.clock.instant}")

    # -- what the test reads

    def started(self, saga: type[Saga[S]]) -> list[StartedInHarness[S]]:
        """The sagas of this kind, oldest first: those that events or other sagas have started, too."""
        states: Any = saga.state_type
        of_kind = sorted(one for one, row in self.store.tables.sagas.items() if row.pin.name == saga.name)
        return [StartedInHarness(self, saga_id, states) for saga_id in of_kind]

    def published(self, event: type[E]) -> list[E]:
        """The events of this type that sagas have published, in order."""
        sent = [outgoing.envelope for _, outgoing in sorted(self.store.tables.outgoing.items())]
        return [event.model_validate_json(one.body) for one in sent if one.type == event.wire_name]

    @property
    def unmatched(self) -> list[str]:
        """Why messages were kept aside that fit no saga."""
        return [message.reason for message in self.store.tables.unmatched.values()]

    # -- how it works

    async def _turn(self) -> bool:
        """Let everybody do what there is; whether somebody did something."""
        loop, replies, events = await self._wire()
        worked = await self._participate()
        if taken := replies.take_nowait(_BATCH):
            await loop.handle_replies(taken)
            worked = True
        if taken := events.take_nowait(_BATCH):
            await loop.handle_events(taken)
            worked = True
        for work in (
            self._engine.wake(_BATCH, deadlines=True),
            self._engine.signals(_BATCH),
            self._engine.settle_locks(),
            self._engine.claim_unsent(),
        ):
            worked = bool(await work) or worked
        while self._local:
            await self._engine.run_local(*self._local.pop(0))
            worked = True
        await self._sender.publish_batch()
        await self._engine.flush_marks()
        return await self._relay() or worked

    async def _wire(self) -> tuple[EngineLoop, MemorySubscription, MemorySubscription]:
        """Declare the queues and subscribe, the first time."""
        if self._wired is None:
            specs = [QueueSpec(name) for name in self._participants]
            await self.transport.declare([*self._queues.specs(self._registry), *specs])
            for name in self._participants:
                self._orders[name] = await self.transport.subscribe(name, prefetch_messages=_BATCH)
            replies = await self.transport.subscribe(self._queues.replies, prefetch_messages=_BATCH)
            events = await self.transport.subscribe(self._queues.events, prefetch_messages=_BATCH)
            wake = asyncio.Event()
            both = [Intake(one, wake, prefetch=_BATCH, catch_up_limit=_PATIENCE) for one in (replies, events)]
            self._wired = EngineLoop(self._engine, self._registry, both[0], both[1], wake), replies, events
        return self._wired

    async def _participate(self) -> bool:
        worked = False
        for name, subscription in self._orders.items():
            for delivery in subscription.take_nowait(_BATCH):
                await subscription.ack([delivery])
                said = self._participants[name].take(delivery.envelope, self.clock.instant)
                self._said += [said] if said else []
                worked = True
        due = [said for said in self._said if said.at <= self.clock.instant]
        self._said = [said for said in self._said if said.at > self.clock.instant]
        for said in due:
            await self._publish(said.messages)
        return worked or bool(due)

    async def _relay(self) -> bool:
        """Publish what sagas put into the outbox."""
        new = [(id_, one) for id_, one in sorted(self.store.tables.outgoing.items()) if id_ not in self._relayed]
        self._relayed.update(id_ for id_, _ in new)
        await self._publish([replace(one, until_handled=False) for _, one in new])
        return bool(new)

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        for outcome in await self.transport.publish(messages, timeout=_PATIENCE):
            if outcome is not None:
                raise outcome

    def _next_due(self) -> datetime | None:
        tables = self.store.tables
        sends = [
            record.send_after
            for saga in tables.sagas.values()
            if not saga.status.terminal and saga.paused_at is None
            for record in saga.steps.values()
            if record.send_after is not None
        ]
        return min([*sends, *tables.wakes.values(), *(said.at for said in self._said)], default=None)


def _participants(registry: SagaRegistry) -> list[str]:
    leaves = [leaf for saga in registry for leaf in saga.plan.leaves.values()]
    return sorted({leaf.step.participant for leaf in leaves if isinstance(leaf, CommandLeaf)})
