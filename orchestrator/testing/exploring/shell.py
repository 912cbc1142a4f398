"""One orchestrator process, in a world: the engine as it is shipped, run without an event loop.

Nothing is imitated here but the broker, which is two lists. Engine, loop, batch, sender, intake, the pure core
and the memory store are those of the package. Since the memory store and this broker never make them wait, their
coroutines run to the end in one go. Killing the process is an exception at one of its failpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from messaging import failpoints
from messaging.envelope import DEADLINE_SECONDS, ERROR_CODE, OUTCOME, Envelope
from messaging.transport import Outgoing
from orchestrator.engine import Engine, EngineSettings
from orchestrator.instance import SagaInstance
from orchestrator.intake import Intake
from orchestrator.local_runner import Due
from orchestrator.loop import EngineLoop
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.testing.exploring.broker import EVENTS, REPLIES, Broker
from orchestrator.testing.exploring.family import seated
from orchestrator.testing.exploring.functions import Running
from orchestrator.testing.exploring.store import ExploredStore
from orchestrator.testing.exploring.world import Answered, Seated, Sent, World

T = TypeVar("T")

GRACE: Final = timedelta(seconds=30)


class Killed(BaseException):
    """The process ended here, as by SIGKILL."""


class Shell:
    """An engine that has just been given the world's tables, and what its process remembers."""

    def __init__(self, registry: SagaRegistry, world: World) -> None:
        self._world = world
        self.store = ExploredStore(world)
        self.broker = Broker(self.store)
        self._sender = Sender(self.broker, REPLIES, timeout=GRACE / 2, now=lambda: world.now)
        self._sender.remember(world.marks)
        self.engine = Engine(registry, self.store, self._sender, EngineSettings(grace=GRACE))
        wake = asyncio.Event()
        replies, events = (Intake(q, wake, prefetch=1, catch_up_limit=GRACE) for q in self.broker.subscriptions)
        self.loop = EngineLoop(self.engine, registry, replies, events, wake)
        self._due: list[Due] = []
        self.engine.local_due = self._due.extend
        self.marks: tuple[UUID, ...] = ()
        self.local: tuple[Seated, ...] = ()
        self.killed = False

    def run(self, work: Callable[[Shell], Coroutine[Any, Any, Any]], *, kill_at: str = "") -> None:
        """Do some work and publish what it committed, or be killed the first time that place is reached."""

        def watch(name: str) -> None:
            if name == kill_at:
                raise Killed

        async def all_of_it() -> None:
            await work(self)
            await self._sender.publish_batch()

        with failpoints.watched(watch):
            try:
                finished(all_of_it())
                self.marks = tuple(self._sender.marks())
                self.local = self._in_hand()
            except Killed:
                self.killed = True

    def deliver_replies(self, replies: Sequence[Answered]) -> Coroutine[Any, Any, None]:
        """Hand replies to the loop in one batch."""
        return self.loop.handle_replies(self.broker.delivered(REPLIES, [_envelope_of(reply) for reply in replies]))

    def deliver_event(self, envelope: Envelope) -> Coroutine[Any, Any, None]:
        """Hand an event to the loop."""
        return self.loop.handle_events(self.broker.delivered(EVENTS, [envelope]))

    def saga_at(self, seat: str) -> SagaInstance:
        """A saga, as it was when this process began."""
        return self._world.sagas[seat]

    def run_local(self, due: Seated, running: Running) -> Coroutine[Any, Any, None]:
        """Run the function of a local step, with what becomes of it."""
        self.store.running = running
        return self.engine.run_local(self.saga_at(due.seat).id, due.step)

    @property
    def written(self) -> tuple[tuple[str, int], ...]:
        """How often functions of local steps have run, as committed."""
        return tuple(sorted((label, times) for label, times in self.store.written.items() if times))

    def _in_hand(self) -> tuple[Seated, ...]:
        """The functions this process is about to run, each once."""
        seats = {saga.id: seat for seat, saga in seated(self.store.tables.sagas).items()}
        due = (Seated(seats[saga_id], key) for saga_id, key in self._due)
        return tuple(dict.fromkeys((*self._world.local, *due)))

    def sent(self) -> list[Sent]:
        """What the broker took, with what the committed rows say about it.

        Raises:
            LookupError: no row knows one of them: it left before, or without, its commit.
        """
        seats = {saga.id: seat for seat, saga in seated(self.store.tables.sagas).items()}
        return [self._sent(outgoing, seats) for outgoing in self.broker.taken]

    def _sent(self, outgoing: Outgoing, seats: Mapping[UUID, str]) -> Sent:
        envelope = outgoing.envelope
        ref = self.store.tables.commands.get(UUID(envelope.message_id))
        if ref is None:
            raise LookupError(f"{envelope.type} left, and no committed row knows its message id {envelope.message_id}")
        return Sent(
            seats[ref.saga_id],
            ref.key,
            ref.round,
            ref.attempt,
            envelope.message_id,
            envelope.text_header("idempotency-key"),
            envelope.text_header("compensates"),
            outgoing.destination.routing_key,
            envelope.type,
            envelope.body.decode(),
        )


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, to its end.

    Raises:
        RuntimeError: it waits.
    """
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the engine waits for something that will not come in the explorer")


def _envelope_of(reply: Answered) -> Envelope:
    headers = {OUTCOME: reply.outcome, ERROR_CODE: reply.error_code}
    if reply.within:
        headers[DEADLINE_SECONDS] = str(reply.within)
    return Envelope("", reply.body.encode(), correlation_id=reply.to.message_id, headers=headers)
