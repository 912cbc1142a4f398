"""What stands around sending and handling: middleware, put together once when a service or a bus starts.

    broker ── around_delivery ── transaction: claim ── around_handler ── handler
                                                   └── around_publish ── what the handler publishes
    bus.send, publish, request ── around_publish ── broker, or outbox

The one registered first is outermost. Where there is none, nothing stands in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from messaging.context import Context
from messaging.envelope import Envelope
from messaging.errors import NotPassedOn
from messaging.messages import Failure, Message, Reply
from messaging.transport import Delivery, Outgoing


class Outcome(StrEnum):
    """What may become of a delivery."""

    SUCCESS = "success"
    FAILURE = "failure"
    """The handler refused; that is an answer, stored and sent as any other."""
    RETRY = "retry"
    """The handler raised; its sender is told to try again."""
    PUT_OFF = "put-off"
    """The handler raised and nobody waits; it comes again by the service's policy."""
    DEAD_LETTERED = "dead-lettered"
    """The handler raised and the policy is used up."""
    UNUSABLE = "unusable"
    """Nobody here could read or handle it; it is dead-lettered, and its sender is told to try again."""
    BUSY = "busy"
    """Another delivery of the same order is under way; it comes again."""
    LEFT = "left"
    """The service stops; it is left as it was and comes again."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a delivery."""

    outcome: Outcome
    error: Exception | None = None
    """What the handler raised, or why it could not be used."""
    by_inbox: bool = False
    """Answered without running the handler: a repeated order, or an undo with nothing to undo."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message on its way to its handler."""

    message: Message
    envelope: Envelope
    context: Context[Any]
    """The handler's own, with the session of its transaction."""
    service: str
    handler: str


Result: TypeAlias = Reply | Failure | None
"""What a handler returns; None for an event."""
PublishNext: TypeAlias = Callable[[Outgoing], Awaitable[None]]
HandleNext: TypeAlias = Callable[[Received], Awaitable[Result]]
DeliverNext: TypeAlias = Callable[[Delivery], Awaitable[Settled]]


class Middleware:
    """Stands around what a service or a bus does. Override what you need; the rest costs nothing.

        class Audited(Middleware):
            async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
                result = await call_next(received)
                await received.context.session.execute(insert(audit).values(...))
                return result

        customers.use(Audited())

    One object serves many messages at a time, all in the event loop of the service or bus, also where
    handlers are plain functions in threads. What it sets in a `ContextVar` the handler sees.
    """

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        """Stand around sending one message: of a bus, or one that a handler publishes through its context.

        `call_next` returns when the broker has confirmed; with a session, when it is written to the outbox;
        in a handler, when it is written down, to leave with the handler's success. What is raised reaches
        the sender: in a handler it counts as the handler's error. Replies do not come by here.

        Args:
            outgoing: the message. Pass on another with `dataclasses.replace`; its ids must stay.
            call_next: sends it; not to call it and return is an error, `NotPassedOn`.
        """
        await call_next(outgoing)

    async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
        """Stand around the handler, inside the transaction of a service with sessions.

        The order is claimed, so each is seen once, and again only when it was rolled back. What is returned
        is the answer and stored with the claim; without `call_next` the handler does not run. What is
        raised, before or after, counts as raised by the handler: rolled back, and tried again.
        """
        return await call_next(received)

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        """Stand around everything that becomes of one delivery, outside of any transaction.

        It sees what cannot be read, and repeated orders too, and is told what became of each. What is
        raised before `call_next` counts as raised by the handler; after it, it is logged and changes nothing.

        Args:
            delivery: as it came. What is passed on instead is what is read, handled and answered;
                put off and dead-lettered is the one that came.
            call_next: sees it through, and raises nothing of the handler's. To be called once.
        """
        return await call_next(delivery)


V = TypeVar("V")
R = TypeVar("R")
Next: TypeAlias = Callable[[V], Awaitable[R]]
Around: TypeAlias = Callable[[V, Callable[[V], Awaitable[R]]], Awaitable[R]]


@dataclass(frozen=True, slots=True)
class Composed:
    """Middleware put together; what nobody overrides is None."""

    publish: Around[Outgoing, None] | None
    handler: Around[Received, Result] | None
    delivery: Around[Delivery, Settled] | None


def composed(middleware: Iterable[Middleware]) -> Composed:
    """Put middleware together, the first outermost."""
    every = tuple(middleware)
    return Composed(
        _linked(m.around_publish for m in every if type(m).around_publish is not Middleware.around_publish),
        _linked(m.around_handler for m in every if type(m).around_handler is not Middleware.around_handler),
        _linked(m.around_delivery for m in every if type(m).around_delivery is not Middleware.around_delivery),
    )


def _linked(arounds: Iterable[Around[V, R]]) -> Around[V, R] | None:
    chain: Around[V, R] | None = None
    for around in reversed(tuple(arounds)):
        chain = around if chain is None else _around(around, chain)
    return chain


def _around(outer: Around[V, R], inner: Around[V, R]) -> Around[V, R]:
    async def both(value: V, end: Next[V, R]) -> R:
        return await outer(value, lambda passed: inner(passed, end))

    return both


async def passed_on(around: Around[Outgoing, None], outgoing: Outgoing, end: PublishNext) -> None:
    """Send a message through middleware.

    Raises:
        NotPassedOn: the middleware returned and did not send it.
    """
    sent = False

    async def send(passed: Outgoing) -> None:
        nonlocal sent
        await end(passed)
        sent = True

    await around(outgoing, send)
    if not sent:
        raise NotPassedOn(f"message {outgoing.envelope.message_id} to {outgoing.destination}")


def passed_on_here(around: Around[Outgoing, None], outgoing: Outgoing, end: Callable[[Outgoing], None]) -> None:
    """As `passed_on`, from a thread without a loop; `end` is called in this thread.

    Raises:
        NotPassedOn: the middleware returned and did not send it.
    """
    from messaging.crossing import Here, through_own_loop

    async def work(here: Here) -> None:
        await passed_on(around, outgoing, lambda passed: here(lambda: end(passed)))

    through_own_loop(work)
