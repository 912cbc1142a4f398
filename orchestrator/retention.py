"""How long what has ended is kept. What is not named here is kept for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from orchestrator.instance import Pin, SagaStatus

TERMINAL: Final = tuple(status for status in SagaStatus if status.terminal)

BATCH: Final = 100
"""Sagas deleted in one transaction, unless it is said otherwise."""
PER_SECOND: Final = 500.0
"""Sagas deleted in a second at most, unless it is said otherwise."""
REQUESTS_KEPT: Final = timedelta(days=1)
"""How long the same request over HTTP, under its idempotency key, is answered as the first time."""


class Rest(StrEnum):
    """What is kept beside sagas, and goes by its age."""

    EVENTS = "events"
    """Events that nobody took, from when they expired."""
    UNMATCHED = "unmatched"
    """Messages that fit no saga, from when they came."""
    AUDIT = "audit"
    """What operators asked of sagas that are gone, from when they asked."""
    BULKS = "bulks"
    """Actions on many sagas that have no saga left to ask, from when they began."""
    REQUESTS = "requests"
    """Requests over HTTP with an idempotency key, from when they came."""
    SIGNALS = "signals"
    """What somebody asked of a saga at the very moment when it was purged; nobody will ever take it."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept for how long."""

    sagas: Mapping[SagaStatus, timedelta] = field(default_factory=dict[SagaStatus, timedelta])
    """Since the end of the first saga of a tree, by the status that it ended in."""
    rest: Mapping[Rest, timedelta] = field(default_factory=dict[Rest, timedelta])

    @property
    def deletes(self) -> bool:
        """Whether anything goes at all."""
        return bool(self.sagas or self.rest)


@dataclass(frozen=True, slots=True)
class EndedTree:
    """A saga that has ended, with all its children: they go together, or not at all."""

    status: SagaStatus
    """Of the first."""
    ended_at: datetime
    sagas: Mapping[UUID, Pin]
    """The first, and then its children, and theirs."""
    key: tuple[str, str] | None = None
    """Name and business key of the first."""

    @property
    def id(self) -> UUID:
        """Of the first."""
        return next(iter(self.sagas))


@dataclass(frozen=True, slots=True)
class Place:
    """How far one has looked among those that ended: sorts as they do."""

    ended_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class EndedTrees:
    """What was found and locked, and where to look on; None: there is nothing further."""

    trees: tuple[EndedTree, ...]
    left: int
    """So many were passed over: a child of theirs goes on, or something is still to be told to one of them."""
    further: Place | None
