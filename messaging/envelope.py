"""A message with what travels around it: ids, addressing, headers, body bytes.

The words are those of the wire format (docs/wire-format.md); they map one to one onto AMQP properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

HeaderValue: TypeAlias = str | int | float | bool | None
ExchangeKind: TypeAlias = Literal["topic", "direct", "fanout"]

IDEMPOTENCY_KEY: Final = "idempotency-key"
COMPENSATES: Final = "compensates"
DEADLINE: Final = "deadline"
SAGA_ID: Final = "saga-id"
SAGA_NAME: Final = "saga-name"
SAGA_STEP: Final = "saga-step"
ATTEMPT: Final = "attempt"
OUTCOME: Final = "outcome"
ERROR_CODE: Final = "error-code"
DEADLINE_SECONDS: Final = "deadline-seconds"
REPLY_TOKEN: Final = "reply-token"
SCHEMA_VERSION: Final = "schema-version"
CAUSATION_ID: Final = "causation-id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

SUCCESS: Final = "success"
FAILURE: Final = "failure"
RETRY: Final = "retry"
ACCEPTED: Final = "accepted"

NOTHING_TO_UNDO: Final = "nothing-to-undo"
UNDONE: Final = "undone"

JSON: Final = "application/json"
EVENTS_EXCHANGE: Final = "events"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as it travels. `body` is the message itself: UTF-8 JSON, unless it cannot be read."""

    message_id: str
    body: bytes
    type: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    """The full name of the queue for the reply, as it stands on the wire: `Transport.full_name(queue)`
    when asking, `to_reply(envelope.reply_to)` when answering."""
    content_type: str = JSON
    timestamp: datetime | None = None
    app_id: str = ""
    headers: Mapping[str, HeaderValue] = field(default_factory=dict[str, HeaderValue])

    def text_header(self, name: str) -> str:
        """A header as text; empty when absent."""
        value = self.headers.get(name)
        return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a message goes. An empty exchange means: straight to the queue named by the routing key.

    A `mandatory` message must reach at least one queue, else publishing it fails as `Unroutable`;
    events are not mandatory, since nobody may be interested.

    Queues and exchanges are named as the code knows them; the transport puts its prefix before them. An
    `absolute` destination is a name read off the wire: it is taken as it stands, and its exchange is
    somebody else's, so it is never declared.
    """

    routing_key: str
    exchange: str = ""
    mandatory: bool = True
    absolute: bool = False
    kind: ExchangeKind = "topic"
    """What the exchange becomes if nobody has declared it yet."""

    def __str__(self) -> str:
        return (
            f"exchange {self.exchange!r} key {self.routing_key!r}" if self.exchange else f"queue {self.routing_key!r}"
        )


def to_queue(name: str) -> Destination:
    """Straight to one queue; unroutable if nobody has declared it."""
    return Destination(name)


def to_reply(reply_to: str) -> Destination:
    """Straight to the queue that a received command names in its `reply_to`."""
    return Destination(reply_to, absolute=True)


def to_subscribers(wire_name: str, exchange: str = EVENTS_EXCHANGE) -> Destination:
    """To every queue bound to this event type."""
    return Destination(wire_name, exchange, mandatory=False)
