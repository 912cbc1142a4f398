"""What a database is asked about all sagas at once, for metrics and alarms: counts and ages, never single sagas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class BlockedSagas:
    """Sagas that need an operator for one reason at one step."""

    name: str
    step: str
    """The step's name, without the item or branch; empty when the saga is blocked as a whole."""
    reason: str
    sagas: int
    since: datetime
    """When the first of them was blocked."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the database, whichever process is to do it."""

    blocked_sagas: tuple[BlockedSagas, ...] = ()
    command_overdue_seconds: float = 0
    """For how long the longest overdue command should have been sent; 0 when all are on their way."""
    outbox_oldest_seconds: float = 0
    """How old the oldest message in the outbox is."""
    wake_overdue_seconds: float = 0
    """For how long the longest overdue saga has not been looked at; 0 when engines keep up."""
    engines: int = 0
    """Processes with an engine that were heard of within a minute."""

    @property
    def blocked(self) -> Mapping[tuple[str, str], int]:
        """How many sagas need an operator, by the saga's name and the reason."""
        counts: Counter[tuple[str, str]] = Counter()
        for group in self.blocked_sagas:
            counts[group.name, group.reason] += group.sagas
        return counts


@dataclass(frozen=True, slots=True)
class UnsentCommands:
    """Commands to one participant that should have left long ago."""

    participant: str
    commands: int
    since: datetime
    """When the step of the oldest one began."""
    error: str
    """What the broker said of one of them; empty if none was tried."""
    sagas: Sequence[UUID] = ()
    """Those of the oldest ones, where they were asked for."""


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
class UnmatchedRow:
    """A message that fits no saga."""

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
    newest: Sequence[UnmatchedRow]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in the database."""

    engines: int
    """Processes with an engine that were heard of within a minute."""
    command_overdue_seconds: float
    """For how long the longest overdue command should have been sent."""
    outbox_oldest_seconds: float
    commands: Sequence[UnsentCommands]
    """Those that should have left by now or were tried in vain, by participant."""
    outbox: Sequence[OutboxMessages]
    """Other messages that the broker has not confirmed, by destination."""
    unmatched: Unmatched
    locks: Sequence[LockQueue]
    counted_at_most: int
    """So many commands, messages and waits are counted, of each; where that many are told, there may be more."""


@dataclass(frozen=True, slots=True)
class OldSagas:
    """Sagas of one version that have not ended, and began before a given instant."""

    name: str
    version: int
    sagas: int
    since: datetime
    """When the first of them began."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the sagas of one version since a given instant. Children are not counted."""

    name: str
    version: int
    completed: int
    turned_back: int
    """Compensated, with or without exceptions, or abandoned."""
    blocked: int
    """Blocked since then, and still so."""

    @property
    def failed(self) -> int:
        """Those that did not complete."""
        return self.turned_back + self.blocked

    @property
    def failed_percent(self) -> float:
        """Of all that are counted here."""
        return 100 * self.failed / max(1, self.failed + self.completed)


def merged(groups: Sequence[BlockedSagas]) -> tuple[BlockedSagas, ...]:
    """One group for each saga, step and reason, where the steps still say which item or branch it is."""
    found: dict[tuple[str, str, str], BlockedSagas] = {}
    for group in groups:
        name, step, reason = key = group.name, group.step.partition("/")[0], group.reason
        other = found.get(key, BlockedSagas(name, step, reason, 0, group.since))
        since = min(other.since, group.since)
        found[key] = BlockedSagas(name, step, reason, other.sagas + group.sagas, since)
    return tuple(sorted(found.values(), key=lambda group: (group.name, group.step, group.reason)))
