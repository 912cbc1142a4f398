"""The broker of an exploration: two queues whose deliveries come from outside, and a list of what was published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

from messaging import failpoints
from messaging.envelope import Envelope
from messaging.errors import PublishError
from messaging.transport import Delivery, Outgoing, Promises, QueueSpec, Subscription

REPLIES, EVENTS = "replies", "events"
HANDED_OVER: Final = "broker.took"
"""A failpoint of our own: the broker has taken one message of a batch."""


class Commits(Protocol):
    """What the broker asks of the store."""

    commits: int


class Broker:
    """Takes what is published and hands over what it is told to; notes what is settled, and when."""

    def __init__(self, store: Commits) -> None:
        self._store = store
        self.taken: list[Outgoing] = []
        self.acked: set[int] = set()
        """Tags of deliveries that were settled as handled."""
        self.acked_too_early = False
        """Whether one was settled before anything was committed."""
        self.dead_letters: list[str] = []
        self.subscriptions: list[Subscription] = [_Queue(self, REPLIES), _Queue(self, EVENTS)]
        self.promises = Promises(
            survives_restart=True,
            keeps_order=True,
            broadcasts=True,
            delays=False,
            detects_unroutable=True,
            dead_letters=True,
        )

    def delivered(self, queue: str, envelopes: Sequence[Envelope]) -> list[Delivery]:
        """Messages as a consumer of the queue gets them; tags count from 0."""
        return [Delivery(envelope, queue, tag, epoch=1) for tag, envelope in enumerate(envelopes)]

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Take them, one after the other."""
        for message in messages:
            self.taken.append(message)
            failpoints.reached(HANDED_OVER)
        return [None] * len(messages)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Note what is settled."""
        self.acked.update(delivery.tag for delivery in deliveries)
        self.acked_too_early = self.acked_too_early or bool(deliveries and not self._store.commits)

    def full_name(self, queue: str) -> str:
        """The name itself."""
        return queue

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Every queue is there."""

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> Subscription:
        """One of the two queues."""
        return self.subscriptions[queue == EVENTS]


class _Queue:
    """A subscription that is handed its deliveries from outside."""

    epoch = 1

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker, self.queue = broker, name

    async def take(self, limit: int) -> list[Delivery]:
        return []

    def take_nowait(self, limit: int) -> list[Delivery]:
        return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._broker.settle(deliveries)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        """The engine never does."""

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        self._broker.dead_letters.append(f"{reason}: {detail}" if detail else reason)

    async def backlog(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing to end."""
