"""The sending side: order, tell, ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS, Limits, decode_body
from messaging.compose import Composer, only_from_an_outbox
from messaging.envelope import EVENTS_EXCHANGE, Destination, Envelope, ExchangeKind, HeaderValue
from messaging.errors import CommandRefused, DecodeError, RequestTimeout
from messaging.ids import new_id
from messaging.messages import Command, Event, Reply
from messaging.middleware import Middleware, composed, passed_on
from messaging.replies import Replies
from messaging.retry import Retry, wait_before
from messaging.transport import Outgoing, QueueSpec, Transport

if TYPE_CHECKING:
    from messaging.outbox import Relay
    from messaging.sql.sessions import AnySession

R = TypeVar("R", bound=Reply)

_ASK_AGAIN: Final = Retry(max_attempts=None, backoff=timedelta(milliseconds=200), cap=timedelta(seconds=5), jitter=0.5)
_REPLIES_KEPT: Final = timedelta(hours=1)


class Bus:
    """Sends commands and events, and asks for replies.

        async with Bus(transport) as bus:
            await bus.publish(OrderPaid(order_id=order.id))
            reply = await bus.request(ReserveCredit(...), to="customers", timeout=timedelta(seconds=5))

    With `session=` a message is written to the outbox in that session's transaction and leaves when it has
    committed; a `Relay` over the same database sends it, at once if this bus was given it.

    Args:
        transport: open, and opened and closed by somebody else.
        name: who sends, as receivers see it; also the beginning of the reply queue's name.
        timeout: how long the broker may take to confirm.
        limits: what a body may be at most.
        relay: the one to nudge when a session with written messages has committed.
        schema: the database schema of the outbox.
        reply_queue: where this bus alone hears answers to its requests. When empty, a new one, which the
            broker forgets an hour after its last use.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        name: str = "bus",
        timeout: timedelta = timedelta(seconds=10),
        limits: Limits = DEFAULT_LIMITS,
        relay: Relay | None = None,
        schema: str | None = None,
        reply_queue: str = "",
    ) -> None:
        self._transport, self._timeout = transport, timeout
        self._compose = Composer(name, limits)
        self._relay, self._schema = relay, schema
        replies = (
            QueueSpec(reply_queue)
            if reply_queue
            else QueueSpec(f"{name}.{new_id()}.replies", expires_after=_REPLIES_KEPT)
        )
        self._replies = Replies(transport, replies)
        self._middleware: list[Middleware] = []
        self._around = composed(self._middleware).publish

    async def __aenter__(self) -> Bus:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def use(self, *middleware: Middleware) -> None:
        """Put middleware around what this bus sends; the first is outermost."""
        self._middleware += middleware
        self._around = composed(self._middleware).publish

    async def close(self) -> None:
        """Stop listening for replies. Idempotent."""
        await self._replies.close()

    async def send(
        self,
        command: Command[Any],
        *,
        to: str | Destination,
        session: AnySession | None = None,
        idempotency_key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> str:
        """Send an order that nobody waits for; return its message id.

        Args:
            command: the order.
            to: the service, by the name of its queue, or an exchange and key.
            session: write it to the outbox in this transaction instead.
            idempotency_key: the same when the same order is sent again; its message id when empty.
            ordering_key: with `session`: sent after what was written earlier with the same one is confirmed.
            headers: more of them.

        Raises:
            UnencodableMessage: no reader could take it. Nothing was sent.
            OutboxRefused: the outbox cannot take it; see `OutboxWriter.publish`. Nothing was written.
            Unroutable: nobody has declared the queue. It did not arrive.
            NotConfirmed: the broker is away. It may have arrived; sending it again with the same key is safe.
        """
        outgoing = self._compose.order(
            command, to, idempotency_key=idempotency_key, ordering_key=ordering_key, headers=headers
        )
        await self._dispatch(outgoing, session)
        return outgoing.envelope.message_id

    async def publish(
        self,
        event: Event,
        *,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        session: AnySession | None = None,
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> str:
        """Tell all subscribers; return the message id. That there are none is no error.

        Args:
            event: what happened.
            exchange: through which exchange.
            kind: what that exchange is: `topic`, `direct` or `fanout`.
            key: the routing key; the event's wire name when empty.
            session: write it to the outbox in this transaction instead.
            ordering_key: with `session`: sent after what was written earlier with the same one is confirmed.
            headers: more of them.

        Raises:
            UnencodableMessage: no reader could take it. Nothing was sent.
            OutboxRefused: the outbox cannot take it; see `OutboxWriter.publish`. Nothing was written.
            NotConfirmed: the broker is away. It may have arrived.
        """
        outgoing = self._compose.news(event, exchange, kind, key, headers, ordering_key)
        await self._dispatch(outgoing, session)
        return outgoing.envelope.message_id

    async def request(
        self,
        command: Command[R],
        *,
        to: str | Destination,
        timeout: timedelta = timedelta(seconds=30),
        idempotency_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> R:
        """Send an order and wait for its reply.

        When the service answers `retry` (its handler raised, say), the same order is sent again with the same
        idempotency key, until the time is up.

        Args:
            command: the order.
            to: the service, by the name of its queue, or an exchange and key.
            timeout: for everything together.
            idempotency_key: the same when the same order is asked again; a new one when empty.
            headers: more of them.

        Raises:
            CommandRefused: the service answered with a failure, which the error carries.
            RequestTimeout: no answer in time. The order may have been carried out.
            DecodeError: what was answered is not the command's reply. The order was carried out.
            UnencodableMessage: no reader could take it. Nothing was sent.
            Unroutable: nobody has declared the queue.
        """
        key = idempotency_key or new_id()
        asked = _Asked(command.wire_name, key)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                reply_to = await self._replies.listen()
                answer = await self._ask(command, to, reply_to, asked, headers)
        except TimeoutError:
            error = RequestTimeout(command.wire_name, asked.message_id or key, timeout)
            if asked.last_retry:
                error.add_note(
                    f"The service answered {asked.tries} times that it should be tried again, "
                    f"last with {asked.last_retry}."
                )
            raise error from None
        return _reply_of(command, answer, self._compose.limits)

    async def _ask(
        self,
        command: Command[Any],
        to: str | Destination,
        reply_to: str,
        asked: _Asked,
        headers: Mapping[str, HeaderValue] | None,
    ) -> Envelope:
        while True:
            outgoing = self._compose.order(command, to, reply_to=reply_to, idempotency_key=asked.key, headers=headers)
            asked.message_id = outgoing.envelope.message_id
            with self._replies.expected(asked.message_id) as reply:
                await self._dispatch(outgoing, None)
                answer = await reply
            if answer.text_header(wire.OUTCOME) != wire.RETRY:
                return answer
            asked.tries += 1
            asked.last_retry = answer.text_header(wire.ERROR_CODE) or wire.RETRY
            await asyncio.sleep(wait_before(_ASK_AGAIN, asked.tries, seed=asked.key).total_seconds())

    async def _dispatch(self, outgoing: Outgoing, session: AnySession | None) -> None:
        if self._around is None:
            await self._leave(outgoing, session)
        else:
            await passed_on(self._around, outgoing, lambda passed: self._leave(passed, session))

    async def _leave(self, outgoing: Outgoing, session: AnySession | None) -> None:
        if session is not None:
            await self._write(outgoing, session)
            return
        only_from_an_outbox(outgoing)
        (error,) = await self._transport.publish([outgoing], timeout=self._timeout)
        if error is not None:
            raise error

    async def _write(self, outgoing: Outgoing, session: AnySession) -> None:
        from messaging.sql.writing import after_commit, write_outgoing_async

        await write_outgoing_async(session, [outgoing], schema=self._schema)
        if self._relay is not None:
            after_commit(session, self._relay.nudge)


@dataclass(slots=True)
class _Asked:
    """How a request fares."""

    wire_name: str
    key: str
    message_id: str = ""
    tries: int = 0
    last_retry: str = ""


def _reply_of(command: Command[R], answer: Envelope, limits: Limits) -> R:
    outcome = answer.text_header(wire.OUTCOME) or wire.SUCCESS
    message_id = answer.correlation_id
    if outcome == wire.SUCCESS:
        reply: Any = decode_body(command.reply_type, answer.body or b"{}", limits, message_id=message_id)
        return reply  # type: ignore[no-any-return]
    if outcome == wire.FAILURE:
        code = answer.text_header(wire.ERROR_CODE)
        failure = decode_body(command.failure_type(code), answer.body or b"{}", limits, message_id=message_id)
        raise CommandRefused(failure, message_id)
    raise DecodeError(f"the reply has the unknown outcome {outcome!r}", message_id=message_id)
