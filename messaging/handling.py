"""One order or event: claimed, handled, its answer stored, in one transaction where there is a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from messaging import envelope as wire
from messaging.calling import Calling
from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.context import Context, idempotency_key_of
from messaging.dialects import in_our_words
from messaging.envelope import Envelope
from messaging.errors import DecodeError, MessagingError, UnknownMessageType
from messaging.evolution import decode_message
from messaging.failpoints import reached
from messaging.handlers import Handler, SessionKind
from messaging.inbox import MAX_KEY_CHARACTERS, Answer, answer_of, open_event, open_order
from messaging.messages import Accepted, Command, Failure, Message, Reply
from messaging.middleware import Composed
from messaging.printable import error_text
from messaging.service import Service
from messaging.transport import Delivery, Outgoing

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker


class HandlerRaised(MessagingError):
    """A handler raised; what it did was rolled back. The error itself is the cause."""

    def __init__(self, handler: str, error: Exception) -> None:
        self.handler, self.error = handler, error
        super().__init__(f"handler {handler} raised {error_text(error)}")


@dataclass(frozen=True, slots=True)
class Order:
    """A delivery that was read: a message and who handles it."""

    envelope: Envelope
    message: Message
    handler: Handler
    key: str
    compensates: str
    attempt: int

    @property
    def is_command(self) -> bool:
        """Whether it is to be answered; events are not."""
        return isinstance(self.message, Command)


@dataclass(frozen=True, slots=True)
class Handled:
    """What came of an order that was handled, now or before."""

    answer: Answer | None = None
    outgoing: Sequence[Outgoing] = field(default=())
    """What is still to be published. What went to the outbox is not among it."""
    wrote_outbox: bool = False
    by_inbox: bool = False
    """The handler did not run."""


class Handling:
    """Runs a service's handlers, each order once as far as the service's database allows."""

    def __init__(
        self,
        service: Service,
        threads: Executor,
        around: Composed,
        limits: Limits = DEFAULT_LIMITS,
        tell: Callable[[Envelope, Answer], None] | None = None,
    ) -> None:
        self._service, self._threads, self._tell = service, threads, tell
        self._calling = Calling(service.name, threads, around)
        self._limits = service.limits or limits
        if service.sessions is not None:
            from messaging.sql.inbox import SqlInbox

            self._inbox = SqlInbox(service.name, schema=service.schema)
        limited = {handler.message: handler.max_in_flight for handler in service.handlers if handler.max_in_flight}
        self._rooms = {message: asyncio.Semaphore(limit) for message, limit in limited.items()}

    def read(self, delivery: Delivery) -> Order:
        """Say what a delivery is and who handles it.

        Raises:
            DecodeError: nobody here can use it.
        """
        service = self._service
        if delivery.problem:
            raise DecodeError(delivery.problem, message_id=delivery.envelope.message_id, queue=service.name)
        envelope = in_our_words(delivery.envelope, self._limits)
        handler = service.handler_of(envelope.type)
        if handler is None:
            raise UnknownMessageType(envelope.type, message_id=envelope.message_id, queue=service.name)
        message = decode_message(handler.message, envelope, self._limits)
        key, compensates = idempotency_key_of(envelope), envelope.text_header(wire.COMPENSATES)
        if problem := _key_problem(key) or _key_problem(compensates):
            raise DecodeError(problem, message_id=envelope.message_id, queue=service.name)
        if compensates and compensates == key:
            problem = f"the command says it compensates itself ({key!r})"
            raise DecodeError(problem, message_id=envelope.message_id, queue=service.name)
        return Order(envelope, message, handler, key, compensates, delivery.attempt)

    async def run(self, order: Order) -> Handled:
        """Handle an order, or find what it was answered before; waits while its handler has enough to do.

        Raises:
            HandlerRaised: the handler did, or returned what it must not; nothing has happened.
            StillWorking: another delivery of it is under way.
            Exception: of the database, from our own statements; nothing has happened, or the commit did
                and its confirmation was lost: doing it again finds out.
        """
        async with self._rooms.get(order.handler.message) or nullcontext():
            return await self._run(order)

    async def _run(self, order: Order) -> Handled:
        kind = self._service.session_kind
        if kind is SessionKind.ASYNC:
            return await self._in_transaction(order)
        if kind is SessionKind.SYNC:
            loop = asyncio.get_running_loop()
            variables = copy_context()
            return await loop.run_in_executor(
                self._threads, lambda: variables.run(self._in_blocking_transaction, order, loop)
            )
        context = self._context(order, None)
        answer = await self._answer(order, context)
        return Handled(answer, context.outgoing)

    async def purge(self) -> None:
        """Delete the claims of this service that are too old to matter."""
        from messaging.sql.inbox import KEEP_CLAIMS
        from messaging.sql.sessions import in_transaction

        sessions = self._service.sessions
        before = datetime.now(UTC) - KEEP_CLAIMS
        batch = partial(self._inbox.purge, before=before, limit=1000)
        deleted = 1000
        while sessions is not None and deleted == 1000:
            deleted = await in_transaction(sessions, batch)

    async def _in_transaction(self, order: Order) -> Handled:
        sessions = cast("async_sessionmaker[AsyncSession]", self._service.sessions)
        async with sessions() as session, session.begin():
            stored = await session.run_sync(self._claim, order)
            if stored is not None:
                return stored
            setattr(session, "commit", _refuse_commit)  # noqa: B010 - the method is not ours to type
            context = self._context(order, session)
            answer = await self._answer(order, context)
            await session.run_sync(self._store, order, answer, context.outgoing)
        reached("participant.committed")
        return Handled(answer, wrote_outbox=bool(context.outgoing))

    def _in_blocking_transaction(self, order: Order, loop: asyncio.AbstractEventLoop) -> Handled:
        sessions = cast("sessionmaker[Session]", self._service.sessions)
        with sessions() as session, session.begin():
            stored = self._claim(session, order)
            if stored is not None:
                return stored
            setattr(session, "commit", _refuse_commit)  # noqa: B010 - the method is not ours to type
            context = self._context(order, session)
            answer = self._blocking_answer(order, context, loop)
            self._store(session, order, answer, context.outgoing)
        reached("participant.committed")
        return Handled(answer, wrote_outbox=bool(context.outgoing))

    def _context(self, order: Order, session: Any) -> Context[Any]:
        return Context(
            session,
            order.envelope,
            service=self._service.name,
            attempt=order.attempt,
            limits=self._limits,
            tell=self._tell if order.is_command else None,
        )

    def _claim(self, session: Session, order: Order) -> Handled | None:
        """Claim the order; None when its handler is to run."""
        if not order.key:
            return None
        rows = self._inbox.rows(session)
        if order.is_command:
            answer = open_order(rows, order.key, order.compensates)
            found = None if answer is None else Handled(answer, by_inbox=True)
        else:
            found = None if open_event(rows, order.key) else Handled(by_inbox=True)
        reached("participant.claimed")
        return found

    def _store(self, session: Session, order: Order, answer: Answer | None, outgoing: Sequence[Outgoing]) -> None:
        """Write down the answer and what the handler published, in its transaction."""
        from messaging.sql.writing import write_outgoing

        if order.key and answer is not None:
            self._inbox.rows(session).store(order.key, answer)
        if outgoing:
            write_outgoing(session, outgoing, schema=self._service.schema)
        reached("participant.handled")

    async def _answer(self, order: Order, context: Context[Any]) -> Answer | None:
        handler = order.handler
        try:
            return self._answer_of(order, await self._calling.call(handler, order.message, order.envelope, context))
        except Exception as error:
            raise HandlerRaised(handler.name, error) from error

    def _blocking_answer(self, order: Order, context: Context[Any], loop: asyncio.AbstractEventLoop) -> Answer | None:
        handler = order.handler
        try:
            result = self._calling.call_here(handler, order.message, order.envelope, context, loop)
            return self._answer_of(order, result)
        except Exception as error:
            raise HandlerRaised(handler.name, error) from error

    def _answer_of(self, order: Order, result: Any) -> Answer | None:
        if not order.is_command:
            return None
        if not isinstance(result, (*order.handler.replies, Accepted)):
            expected = " | ".join(cls.__name__ for cls in order.handler.replies)
            raise TypeError(f"it returned {type(result).__name__}, not {expected}")
        return answer_of(cast("Reply | Failure | Accepted", result), self._limits)


def _refuse_commit() -> None:
    """Stands in for the session's `commit` while a handler runs."""
    raise RuntimeError(
        "a handler must not commit: its work and the stored answer are committed together when it returns. "
        "Use session.begin_nested() for a savepoint, or a session of your own"
    )


def _key_problem(key: str) -> str:
    if len(key) > MAX_KEY_CHARACTERS:
        return f"an idempotency key has {len(key)} characters, more than {MAX_KEY_CHARACTERS}"
    return "an idempotency key holds a NUL character" if "\0" in key else ""
