"""What waits between database and broker, for people who look: by destination, with the sagas concerned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class LateCommands:
    """Commands to one participant that should have left by now, or were tried in vain."""

    participant: str
    commands: int
    since: datetime
    """When the step of the oldest one began."""
    error: str
    """What the broker said of one of them; empty if none was tried."""
    sagas: Sequence[UUID]
    """Those of the oldest ones."""


@dataclass(frozen=True, slots=True)
class OutboxMessages:
    """Messages in the outbox for one destination."""

    exchange: str
    """Empty: they go straight to the queue."""
    routing_key: str
    messages: int
    since: datetime
    """When the oldest was written."""
    tried: int
    """How many of them were tried in vain."""
    error: str
    """What the broker said of one of those."""
    saga: UUID | None
    """One that published one of them; none if others did."""


@dataclass(frozen=True, slots=True)
class LockQueue:
    """A resource that sagas wait for."""

    resource: str
    waiting: int
    """How many steps wait for it."""
    since: datetime
    """Since when the first of them waits."""
    sagas: Sequence[UUID]
    """The first of them."""
    held_by: UUID | None
    """None: nobody holds it just now, or its turn has come."""
    held_by_step: str | None
    held_since: datetime | None


@dataclass(frozen=True, slots=True)
class UnmatchedBrief:
    """A message that fits no saga, without its body."""

    arrived_at: datetime
    message_id: str
    reason: str
    saga_id: UUID | None
    """The saga it was meant for, if it said so or could be told."""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Messages that fit no saga and were put aside."""

    kept: int
    last_hour: int
    newest: Sequence[UnmatchedBrief]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in the database."""

    engines: int
    """Processes with an engine that were heard of within a minute."""
    command_overdue_seconds: float
    """For how long the longest overdue command should have been sent."""
    outbox_oldest_seconds: float
    commands: Sequence[LateCommands]
    """Those that should have left by now or were tried in vain, by participant."""
    outbox: Sequence[OutboxMessages]
    """Other messages that the broker has not confirmed, by destination."""
    unmatched: Unmatched
    locks: Sequence[LockQueue]
    counted_at_most: int
    """So many commands, messages and waits are counted, of each; where that many are told, there may be more."""
