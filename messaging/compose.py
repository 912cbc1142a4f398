"""Envelopes for commands, events and replies, as the wire format has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS, Limits, encode_body
from messaging.envelope import Destination, Envelope, ExchangeKind, HeaderValue, to_queue
from messaging.errors import OutboxRefused, UnencodableMessage
from messaging.ids import new_id
from messaging.messages import Command, Event, Message
from messaging.transport import Outgoing

_TRACE: Final = (wire.TRACEPARENT, wire.TRACESTATE)
_FLOW: Final = (wire.SAGA_ID, *_TRACE)


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes what one sender sends."""

    app_id: str
    limits: Limits

    def order(
        self,
        command: Command[Any],
        to: str | Destination,
        *,
        reply_to: str = "",
        idempotency_key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> Outgoing:
        """A command on its way to a service; see `compose_command`."""
        envelope = compose_command(
            command,
            reply_to=reply_to,
            idempotency_key=idempotency_key,
            headers=headers,
            app_id=self.app_id,
            limits=self.limits,
        )
        return Outgoing(envelope, to if isinstance(to, Destination) else to_queue(to), ordering_key=ordering_key)

    def news(
        self,
        event: Event,
        exchange: str,
        kind: ExchangeKind,
        key: str,
        headers: Mapping[str, HeaderValue] | None,
        ordering_key: str = "",
    ) -> Outgoing:
        """An event on its way to its subscribers; see `compose_event`."""
        envelope = compose_event(event, headers=headers, app_id=self.app_id, limits=self.limits)
        destination = Destination(key or event.wire_name, exchange, mandatory=False, kind=kind)
        return Outgoing(envelope, destination, ordering_key=ordering_key)


def compose_command(
    command: Command[Any],
    *,
    reply_to: str = "",
    message_id: str = "",
    idempotency_key: str = "",
    headers: Mapping[str, HeaderValue] | None = None,
    app_id: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> Envelope:
    """Wrap a command; without a key of its own, its message id is its idempotency key.

    Args:
        command: what to send.
        reply_to: the full name of the queue for the reply.
        message_id: also the correlation id; a new one when empty.
        idempotency_key: the same for every try of one order.
        headers: more of them; they win over ours.
        app_id: who sends.
        limits: what the body may be at most.

    Raises:
        UnencodableMessage: it is no command, or no reader could take it.
    """
    _held_to(Command, command)
    message_id = message_id or new_id()
    return Envelope(
        message_id,
        encode_body(command, limits),
        command.wire_name,
        correlation_id=message_id,
        reply_to=reply_to,
        timestamp=datetime.now(UTC),
        app_id=app_id,
        headers={
            wire.IDEMPOTENCY_KEY: idempotency_key or message_id,
            wire.SCHEMA_VERSION: command.schema_version,
            **(headers or {}),
        },
    )


def compose_event(
    event: Event,
    *,
    message_id: str = "",
    correlation_id: str = "",
    headers: Mapping[str, HeaderValue] | None = None,
    app_id: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> Envelope:
    """Wrap an event.

    Raises:
        UnencodableMessage: it is no event, or no reader could take it.
    """
    _held_to(Event, event)
    return Envelope(
        message_id or new_id(),
        encode_body(event, limits),
        event.wire_name,
        correlation_id=correlation_id,
        timestamp=datetime.now(UTC),
        app_id=app_id,
        headers={wire.SCHEMA_VERSION: event.schema_version, **(headers or {})},
    )


def compose_reply(
    command: Envelope,
    *,
    outcome: str,
    body: bytes = b"",
    wire_type: str = "",
    error_code: str = "",
    deadline_seconds: float | None = None,
) -> Envelope:
    """Answer a command: its correlation id copied unchanged, its trace too.

    A command that came without a correlation id is answered with its message id.
    """
    headers: dict[str, HeaderValue] = {wire.OUTCOME: outcome}
    if error_code:
        headers[wire.ERROR_CODE] = error_code
    if deadline_seconds is not None:
        headers[wire.DEADLINE_SECONDS] = deadline_seconds
    headers.update(_copied(command, _TRACE))
    return Envelope(
        new_id(),
        body,
        wire_type,
        correlation_id=command.correlation_id or command.message_id,
        headers=headers,
    )


def flow_headers(received: Envelope) -> dict[str, HeaderValue]:
    """What a message published while handling another takes over from it: its saga's id, its trace, its cause."""
    headers = _copied(received, _FLOW)
    if received.message_id:
        headers[wire.CAUSATION_ID] = received.message_id
    return headers


def only_from_an_outbox(outgoing: Outgoing) -> None:
    """Refuse an ordering key where messages leave at once.

    Raises:
        OutboxRefused: it has one.
    """
    if outgoing.ordering_key:
        raise OutboxRefused(
            f"message {outgoing.envelope.type!r} has the ordering key {outgoing.ordering_key!r}, and only an outbox "
            "keeps an order: say session=, or give the service its sessions"
        )


def _held_to(base: type[Message], message: object) -> None:
    """Refuse what is no message of a class of its own: nobody handles it, and as an event nobody would say so."""
    cls = type(message)
    if not isinstance(message, base) or base in (cls, message.__pydantic_generic_metadata__["origin"]):
        raise UnencodableMessage(
            str(getattr(message, "wire_name", cls.__name__)),
            f"it must be of a subclass of messaging.{base.__name__}, and is of {cls.__module__}.{cls.__qualname__}",
        )


def _copied(received: Envelope, names: tuple[str, ...]) -> dict[str, HeaderValue]:
    return {name: value for name in names if (value := received.headers.get(name)) is not None}
