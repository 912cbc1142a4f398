"""What a database is asked about all sagas at once, for metrics and alarms: counts and ages, never single sagas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


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
