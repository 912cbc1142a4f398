"""The contract between the bus and a broker.

A broker of one's own is a class with these methods that passes `messaging.testing.transports`. The bus takes
deliveries in batches and settles them in batches, because everything above it commits in batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Protocol, TypeAlias

from messaging.envelope import Destination, Envelope, ExchangeKind
from messaging.errors import PublishError

# Headers of a dead letter: why, more about it, when (ISO 8601), how often it was tried; the full name of the queue it
# died in, and the exchange and routing key it was published with. A message to a queue has no exchange, and the
# queue's full name as its key.
DEAD_LETTER_REASON: Final = "dead-letter-reason"
DEAD_LETTER_DETAIL: Final = "dead-letter-detail"
DEAD_LETTER_TIME: Final = "dead-letter-time"
DEAD_LETTER_ATTEMPTS: Final = "dead-letter-attempts"
DEAD_LETTER_QUEUE: Final = "dead-letter-queue"
DEAD_LETTER_EXCHANGE: Final = "dead-letter-exchange"
DEAD_LETTER_ROUTING_KEY: Final = "dead-letter-routing-key"

QueueType: TypeAlias = Literal["quorum", "classic"]


@dataclass(frozen=True, slots=True)
class Promises:
    """What a transport keeps; users of the transport and the conformance suite adapt to it."""

    survives_restart: bool
    """A confirmed message outlives the broker's restart. Where false, see `Outgoing.until_handled`."""
    keeps_order: bool
    """A queue gives its only consumer what one sender published to one place, in that order; redeliveries aside."""
    broadcasts: bool
    """An event reaches every queue whose binding takes it; where false, `declare` refuses bindings."""
    delays: bool
    """`Subscription.retry_later` delays durably; where false, only as long as the process lives."""
    detects_unroutable: bool
    """A mandatory message to nowhere ends as `Unroutable`."""
    dead_letters: bool
    """What is dead-lettered can be read from the queue `dead_letter_queue(name)`."""
    parts: bool = False
    """A part of a delivery (`Delivery.part`) is put off and dead-lettered alone; where false, there are no batches."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Events of this routing key (wildcards `*` and `#` by words) from this exchange reach the queue."""

    routing_key: str
    exchange: str = "events"
    kind: ExchangeKind = "topic"
    absolute: bool = False
    """The exchange is somebody else's: named as it stands, without the transport's prefix, and never declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How a service's queue is to be on RabbitMQ; other brokers heed the delivery limit alone."""

    type: QueueType | None = None
    """`quorum` or `classic`; what `MESSAGING_QUEUE_TYPE` says when None. A classic queue has no delivery limit."""
    delivery_limit: int = 20
    """Redeliveries after which the broker dead-letters a message that kills its consumers."""
    consumer_timeout: timedelta | None = None
    """How long a delivery may take to be settled before the broker closes the channel and delivers it again:
    30 minutes unless said, here or in the broker's configuration. RabbitMQ 3.12 and newer."""


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A durable queue, declared by whoever consumes it."""

    name: str
    bindings: tuple[Binding, ...] = ()
    delivery_limit: int = 20
    """Redeliveries after which the broker dead-letters a message that kills its consumers."""
    expires_after: timedelta | None = None
    """Goes away, with what is in it, once nobody has consumed it for so long; then it has no dead letters.
    Transports that die with the process ignore it."""
    owner: str = ""
    """Who may consume it: declaring a queue that has another owner raises `TopologyMismatch`."""
    queue_type: QueueType | None = None
    """What kind of RabbitMQ queue; the transport's own default when None. Others ignore it."""
    consumer_timeout: timedelta | None = None
    """How long RabbitMQ 3.12 and newer waits for a delivery to be settled; others ignore it."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published."""

    envelope: Envelope
    destination: Destination
    until_handled: bool = False
    """Confirm only when every consumer it was routed to has settled it (transports that do not
    survive a restart; others ignore it). For messages whose only durable copy is the sender's outbox."""
    may_join: bool = False
    """May share one message of the broker with others to the same queue, where its consumers are known to take
    batches (`messaging.coalescing`). Only a first send may: what was refused, or may have been sent, goes alone."""
    ordering_key: str = ""
    """An outbox sends the messages of one key one after the other, in the order they were written.
    Transports ignore it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which item of a batch a delivery is, counted from 1."""

    number: int
    of: int

    @property
    def is_last(self) -> bool:
        """Whether none comes after it."""
        return self.number == self.of


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message received. Must be settled exactly once through the subscription it came from."""

    envelope: Envelope
    queue: str
    """The queue as it was subscribed to, without the transport's prefix."""
    tag: int
    """Rises within one connection of the subscription."""
    epoch: int
    """The connection it came on; settling a delivery of a past one does nothing (it will come again)."""
    attempt: int = 1
    """1, plus the times it was put off by `retry_later`."""
    redelivered: bool = False
    problem: str = ""
    """Why it cannot be read at all, else empty."""
    part: Part | None = None
    """Set on one message of a batch: tag and epoch are the batch's, the envelope is its own."""


class Subscription(Protocol):
    """One consumer of one queue: a bounded buffer that fills itself and survives reconnects."""

    @property
    def queue(self) -> str:
        """The queue's full name."""
        ...

    @property
    def epoch(self) -> int:
        """Rises with every (re)connection: what was unsettled before comes again."""
        ...

    async def take(self, limit: int) -> list[Delivery]:
        """Wait until something is there, then return at most `limit` of it, without waiting for more.

        Cancelling loses nothing. Survives a lost connection or a deleted queue: it goes on waiting.

        Raises:
            TransportError: the subscription is closed.
        """
        ...

    def take_nowait(self, limit: int) -> list[Delivery]:
        """Return at most `limit` of what is in the buffer right now."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle as handled. On a dead connection: logged and dropped, since they come again."""
        ...

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """Have it delivered again to this queue, not before `after`, with `attempt` one higher.

        Of a part, its envelope alone; the delivery that it came with stays unsettled.

        Raises:
            PublishError: it could not be put off. The delivery is as unsettled as before.
        """
        ...

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        """Move it to the queue's dead letters with its raw body, its properties and the notes of `dead_letter_notes`.

        Settled only after the dead letter is stored. Killed in between, it is in both places. Of a part, its
        envelope alone; the delivery that it came with stays unsettled.

        Raises:
            PublishError: it could not be stored. The delivery is as unsettled as before.
        """
        ...

    async def backlog(self) -> int:
        """How many messages are ready in the broker or in the buffer and not yet taken.

        Raises:
            TransportError: the broker is away.
        """
        ...

    async def close(self) -> None:
        """Stop receiving.

        What was not taken goes back to the queue; what was taken may still be settled until the
        transport closes.
        """
        ...


class Transport(Protocol):
    """A broker, as much of it as the bus needs."""

    @property
    def promises(self) -> Promises:
        """What this broker keeps."""
        ...

    def full_name(self, queue: str) -> str:
        """The queue's name on the wire, for an `Envelope.reply_to`."""
        ...

    async def open(self) -> None:
        """Connect, with bounded patience.

        Raises:
            TransportError: the broker cannot be reached or refuses us; the text has no password in it.
        """
        ...

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Create queues, exchanges and bindings as described, also again after a reconnect. Idempotent.

        Raises:
            TopologyMismatch: one exists with another definition.
            TopologyMissing: this process is to declare nothing, and something is not there.
        """
        ...

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish all, pipelined, and return one outcome per message in order; None means confirmed.

        `NotConfirmed` leaves open whether it arrived; after any other outcome it did not. Two messages
        with one id are never under way at the same time: the second leaves when the first is settled.
        Never raises for a broker that is away: that is an outcome, reached within `timeout`.
        """
        ...

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> Subscription:
        """Consume a declared queue; at most `prefetch_messages` are unsettled at a time."""
        ...

    async def close(self) -> None:
        """Disconnect; what was not settled goes back to its queue. Idempotent, and bounded in time."""
        ...


def dead_letter_queue(queue: str) -> str:
    """The queue that keeps what was dead-lettered from `queue`."""
    return f"{queue}.dead"
