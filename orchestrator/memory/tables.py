"""What the store inside the process keeps: a dictionary for each table."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from uuid import UUID

from messaging.transport import Outgoing
from orchestrator.granting import LockRow
from orchestrator.holds import Hold
from orchestrator.instance import Item, SagaInstance, StepKey
from orchestrator.signals import KeptState, Note
from orchestrator.store_records import AuditEntry, CommandRef, ReceivedEvent, StoredSignal, UnmatchedMessage
from orchestrator.workers import Worker


@dataclass(frozen=True, slots=True)
class KeptSignal:
    """A row of `saga_signal`."""

    signal: StoredSignal
    arrived_at: datetime
    error: str = ""
    taken: bool = False

    @property
    def pending(self) -> bool:
        """Whether the saga has yet to be told."""
        return not self.taken and not self.error


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """A row of `saga_event`."""

    id: UUID
    event: ReceivedEvent
    arrived_at: datetime
    consumed_by: UUID | None = None


@dataclass(slots=True)
class MemoryTables:
    """What a `MemoryStore` keeps; tests may look at it between transactions, and change nothing."""

    sagas: dict[UUID, SagaInstance] = field(default_factory=dict[UUID, SagaInstance])
    """Their records carry no body and no reply: those are in `bodies` and `replies`."""
    wakes: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    items: dict[UUID, tuple[Item, ...]] = field(default_factory=dict[UUID, tuple[Item, ...]])
    bodies: dict[tuple[UUID, StepKey], str] = field(default_factory=dict[tuple[UUID, StepKey], str])
    replies: dict[tuple[UUID, StepKey], str] = field(default_factory=dict[tuple[UUID, StepKey], str])
    unsent: dict[tuple[UUID, StepKey], str] = field(default_factory=dict[tuple[UUID, StepKey], str])
    """Commands that have something to send, with what went wrong last."""
    commands: dict[UUID, CommandRef] = field(default_factory=dict[UUID, CommandRef])
    keys: dict[tuple[str, str], UUID] = field(default_factory=dict[tuple[str, str], UUID])
    signals: dict[UUID, KeptSignal] = field(default_factory=dict[UUID, KeptSignal])
    events: dict[UUID, KeptEvent] = field(default_factory=dict[UUID, KeptEvent])
    event_ids: dict[tuple[str, str], UUID] = field(default_factory=dict[tuple[str, str], UUID])
    history: dict[UUID, tuple[UUID, Note]] = field(default_factory=dict[UUID, tuple[UUID, Note]])
    unmatched: dict[UUID, UnmatchedMessage] = field(default_factory=dict[UUID, UnmatchedMessage])
    outgoing: dict[UUID, Outgoing] = field(default_factory=dict[UUID, Outgoing])
    arrived: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    """When rows of `unmatched` and `outgoing` were put there."""
    audit: dict[UUID, AuditEntry] = field(default_factory=dict[UUID, AuditEntry])
    workers: dict[UUID, tuple[Worker, datetime]] = field(default_factory=dict[UUID, tuple[Worker, datetime]])
    locks: dict[UUID, LockRow] = field(default_factory=dict[UUID, LockRow])
    held_since: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    holds: dict[UUID, tuple[Hold, datetime | None]] = field(default_factory=dict[UUID, tuple[Hold, datetime | None]])
    """What is or was held, and when it was released."""
    search: dict[tuple[UUID, str], str] = field(default_factory=dict[tuple[UUID, str], str])
    states: dict[tuple[UUID, int, int], tuple[KeptState, datetime]] = field(
        default_factory=dict[tuple[UUID, int, int], tuple[KeptState, datetime]]
    )
    """By saga, revision and position."""

    def copied(self) -> MemoryTables:
        """The same rows in tables of their own."""
        return MemoryTables(*(dict(getattr(self, table.name)) for table in fields(self)))
