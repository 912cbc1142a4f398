"""What a queue is like, for those who look from outside: how much waits in it, and how many take from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue at one moment."""

    ready: int
    """Messages that nobody has in hand, and that wait for nothing but to be taken."""
    consumers: int
    """How many take from it: subscriptions, of which a process may have several."""


@runtime_checkable
class TellsOfQueues(Protocol):
    """A transport whose queues can be asked about by anybody who is connected."""

    async def queue_state(self, queue: str) -> QueueState | None:
        """What a queue is like now; None when there is none of this name. Takes nothing, and declares nothing.

        Raises:
            TransportError: the broker is away.
        """
        ...
