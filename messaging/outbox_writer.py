"""Telling through an outbox alone: no broker is needed where something is written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.compose import Composer
from messaging.context import Written
from messaging.envelope import EVENTS_EXCHANGE, Destination, ExchangeKind, HeaderValue
from messaging.messages import Command, Event
from messaging.middleware import Middleware, composed, passed_on, passed_on_here
from messaging.transport import Outgoing

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from messaging.sql.sessions import AnySession, BlockingSession, CoroutineSession


class OutboxWriter:
    """Writes commands and events into the outbox of the transaction it is handed; they leave when that commits.

    Who sends them: a service over the same database, a bus with it as its outbox, or `saga relay`.

    Args:
        name: who sends, as receivers see it.
        limits: what a body may be at most.
        schema: the database schema of the outbox.
    """

    def __init__(self, name: str, *, limits: Limits | None = None, schema: str | None = None) -> None:
        self._compose = Composer(name, limits or DEFAULT_LIMITS)
        self._schema = schema
        self._nudges: list[Callable[[], None]] = []

    @overload
    def publish(
        self,
        event: Event,
        *,
        session: CoroutineSession,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Coroutine[Any, Any, str]: ...
    @overload
    def publish(
        self,
        event: Event,
        *,
        session: BlockingSession,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Written: ...
    def publish(
        self,
        event: Event,
        *,
        session: AnySession,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Coroutine[Any, Any, str] | Written:
        """Tell all subscribers when the transaction of `session` has committed. Handlers have their `Context` for it.

        With an `AsyncSession` or `AsyncConnection` it is to be awaited; with others it is done when it returns.
        A scoped session stands for that of this thread or task.

        Args:
            event: what happened.
            session: of SQLAlchemy, or a cursor of Django, `sqlite3` or psycopg; in the transaction of the work itself.
            exchange: through which exchange.
            kind: what that exchange is: `topic`, `direct` or `fanout`.
            key: the routing key; the event's wire name when empty.
            ordering_key: sent after what was written earlier with the same one, and only when that is confirmed.
            headers: more of them.

        Raises:
            UnencodableMessage: no reader could take it.
            OutboxRefused: the ordering key is no key, the cursor is in no transaction, or the session is none.
        """
        return self._written(self._compose.news(event, exchange, kind, key, headers, ordering_key), session)

    @overload
    def send(
        self,
        command: Command[Any],
        *,
        to: str | Destination,
        session: CoroutineSession,
        idempotency_key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Coroutine[Any, Any, str]: ...
    @overload
    def send(
        self,
        command: Command[Any],
        *,
        to: str | Destination,
        session: BlockingSession,
        idempotency_key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Written: ...
    def send(
        self,
        command: Command[Any],
        *,
        to: str | Destination,
        session: AnySession,
        idempotency_key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Coroutine[Any, Any, str] | Written:
        """Order something, when the transaction of `session` has committed; as `publish` tells.

        Args:
            command: the order; nobody waits for its reply.
            to: the service, by the name of its queue, or an exchange and key.
            session: see `publish`.
            idempotency_key: the same when the same order is sent again; its message id when empty.
            ordering_key: see `publish`.
            headers: more of them.

        Raises:
            UnencodableMessage: no reader could take it.
            OutboxRefused: the ordering key is no key, the cursor is in no transaction, or the session is none.
        """
        order = self._compose.order(
            command, to, idempotency_key=idempotency_key, ordering_key=ordering_key, headers=headers
        )
        return self._written(order, session)

    def nudges(self, nudge: Callable[[], None]) -> Callable[[], None]:
        """Have a relay in this process told of commits; returns what ends that."""
        self._nudges.append(nudge)
        return lambda: self._nudges.remove(nudge)

    @property
    def middleware(self) -> Sequence[Middleware]:
        """What stands around writing."""
        return ()

    def _written(self, outgoing: Outgoing, session: AnySession) -> Coroutine[Any, Any, str] | Written:
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

        from messaging.sql.sessions import meant

        current = meant(session)
        if isinstance(current, (AsyncSession, AsyncConnection)):
            return self._written_later(outgoing, current)
        around = composed(self.middleware).publish
        if around is None:
            self._write(outgoing, current)
        else:
            passed_on_here(around, outgoing, lambda passed: self._write(passed, current))
        return Written(outgoing.envelope.message_id)

    async def _written_later(self, outgoing: Outgoing, session: AsyncSession | AsyncConnection) -> str:
        async def write(passed: Outgoing) -> None:
            await session.run_sync(lambda blocking: self._write(passed, blocking))

        around = composed(self.middleware).publish
        await (write(outgoing) if around is None else passed_on(around, outgoing, write))
        return outgoing.envelope.message_id

    def _write(self, outgoing: Outgoing, session: BlockingSession) -> None:
        from messaging.sql.writing import after_commit, write_outgoing

        write_outgoing(session, [outgoing], schema=self._schema)
        for nudge in self._nudges:
            after_commit(session, nudge)
