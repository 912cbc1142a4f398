"""What a handler may know and do beside its message."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.compose import compose_command, compose_event, flow_headers, only_from_an_outbox
from messaging.envelope import EVENTS_EXCHANGE, Destination, Envelope, ExchangeKind, HeaderValue, to_queue
from messaging.errors import NoReplyToken
from messaging.ids import derived_id, new_id
from messaging.inbox import Answer
from messaging.messages import Command, Event
from messaging.transport import Outgoing

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

S = TypeVar("S", default="AsyncSession")


class Written:
    """A message that was written down; `await` it or leave it, there is nothing to wait for."""

    __slots__ = ("message_id",)

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id

    def __await__(self) -> Generator[None, None, str]:
        yield from ()
        return self.message_id


class Context(Generic[S]):
    """The delivery a handler works on, and the transaction it works in.

    `Context` (that is `Context[AsyncSession]`) and, for plain functions, `Context[Session]` have the
    session of the transaction that claims the command and stores its answer; they need a service with
    `sessions`. `Context[None]` asks for no session and goes with every service.

    What is published or sent leaves with the handler's success: from the outbox when the service has
    `sessions`, else after the handler has returned. It is written when the handler returns, so it
    need not be awaited, and plain functions just call.
    """

    __slots__ = ("_envelope", "_limits", "_outgoing", "_service", "_tell", "attempt", "session")

    def __init__(
        self,
        session: S,
        envelope: Envelope,
        *,
        service: str,
        attempt: int = 1,
        limits: Limits = DEFAULT_LIMITS,
        tell: Callable[[Envelope, Answer], None] | None = None,
    ) -> None:
        self.session, self._tell = session, tell
        self._envelope, self._service, self._limits = envelope, service, limits
        self._outgoing: list[Outgoing] = []
        told = envelope.headers.get(wire.ATTEMPT)
        self.attempt = told if isinstance(told, int) else attempt
        """Which try of this order it is, from 1; as its sender counts, else as the queue does."""

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this order: hand it to whom you call in turn, say a payment provider."""
        return idempotency_key_of(self._envelope)

    @property
    def message_id(self) -> str:
        """The id of this message."""
        return self._envelope.message_id

    @property
    def correlation_id(self) -> str:
        """What the reply carries; on an event, the flow it belongs to."""
        return self._envelope.correlation_id

    @property
    def headers(self) -> Mapping[str, HeaderValue]:
        """Everything that came with it."""
        return self._envelope.headers

    @property
    def deadline(self) -> datetime | None:
        """The instant after which nobody waits for the answer; None when it does not say."""
        try:
            instant = datetime.fromisoformat(self._envelope.text_header(wire.DEADLINE))
        except ValueError:
            return None
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)

    @property
    def reply_token(self) -> str:
        """What redeems this command's answer later: return `Accepted`, and hand the token to whoever will decide.

        Whoever has it may answer the command in your place, once: `saga complete TOKEN`, `SagaClient.complete`.
        Treat it as a password: it is signed and cannot be guessed or made up.

        Raises:
            NoReplyToken: the command has none: no saga sent it.
        """
        token = self._envelope.text_header(wire.REPLY_TOKEN)
        if not token:
            raise NoReplyToken(self._envelope.type, self.message_id)
        return token

    def accept(self, *, within: timedelta) -> None:
        """Tell whoever sent the command to wait so long from now, while the handler goes on; as often as need be.

        It is sent at once, whatever becomes of the handler, and nothing waits for it: a lost one is made good by the
        next. Where nobody waits for an answer nothing is sent.
        """
        if self._tell is not None:
            self._tell(self._envelope, Answer.accepted(within))

    @property
    def outgoing(self) -> list[Outgoing]:
        """What was published and sent so far, in order."""
        return self._outgoing

    def publish(
        self,
        event: Event,
        *,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        ordering_key: str = "",
    ) -> Written:
        """Tell all subscribers, once the handler has succeeded.

        Args:
            event: what happened.
            exchange: through which exchange.
            kind: what that exchange is: `topic`, `direct` or `fanout`.
            key: the routing key; the event's wire name when empty.
            ordering_key: sent after what was written earlier with the same one, and only when that is confirmed.

        Raises:
            UnencodableMessage: no reader could take it.
            OutboxRefused: an ordering key, in a service without `sessions`.
        """
        envelope = compose_event(
            event,
            message_id=self._next_id(),
            correlation_id=self._envelope.text_header(wire.SAGA_ID) or self._envelope.correlation_id,
            headers=flow_headers(self._envelope),
            app_id=self._service,
            limits=self._limits,
        )
        destination = Destination(key or event.wire_name, exchange, mandatory=False, kind=kind)
        return self._write(Outgoing(envelope, destination, ordering_key=ordering_key))

    def send(self, command: Command[Any], *, to: str | Destination, ordering_key: str = "") -> Written:
        """Order something from the service whose queue is `to`, once the handler has succeeded.

        Args:
            command: the order.
            to: the service, by the name of its queue, or an exchange and key.
            ordering_key: as in `publish`.

        Raises:
            UnencodableMessage: no reader could take it.
            OutboxRefused: an ordering key, in a service without `sessions`.
        """
        envelope = compose_command(
            command,
            message_id=self._next_id(),
            headers=flow_headers(self._envelope),
            app_id=self._service,
            limits=self._limits,
        )
        destination = to if isinstance(to, Destination) else to_queue(to)
        return self._write(Outgoing(envelope, destination, ordering_key=ordering_key))

    def _next_id(self) -> str:
        """An id that a second try of this handler gives again, so that receivers can tell the copy.

        A message without any id cannot be told from another, and so neither can what follows from it.
        """
        key = self.idempotency_key
        return derived_id(self._service, key, str(len(self._outgoing))) if key else new_id()

    def _write(self, outgoing: Outgoing) -> Written:
        if self.session is None:
            only_from_an_outbox(outgoing)
        self._outgoing.append(outgoing)
        return Written(outgoing.envelope.message_id)


def idempotency_key_of(envelope: Envelope) -> str:
    """What a message is deduplicated by: its idempotency key, else its own id; empty if it has neither."""
    key = envelope.text_header(wire.IDEMPOTENCY_KEY)
    return key or (envelope.message_id and f"message:{envelope.message_id}")
