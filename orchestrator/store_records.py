"""What goes into a store and comes out of it, beside sagas: commands, signals, events, messages, locks, audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from orchestrator.instance import SagaInstance, StepKey, StepRecord


@dataclass(frozen=True, slots=True)
class CommandRef:
    """What an id on a reply refers to: an attempt of a command."""

    saga_id: UUID
    key: StepKey
    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Locked:
    """Sagas whose rows this transaction may write, and the instant read after they were locked.

    The records carry everything but `body` and `reply`, which are None. Of the items of a `ForEach` only those
    are loaded that are under way or next (`roster.wanted`), with their records.
    """

    now: datetime
    sagas: Mapping[UUID, SagaInstance] = field(default_factory=dict[UUID, SagaInstance])


class DueWork(NamedTuple):
    """Whether the scans may find something: sagas whose time has come, pending signals, commands to be sent."""

    sagas: bool
    signals: bool
    commands: bool


@dataclass(frozen=True, slots=True)
class SagaCommand:
    """A command of a saga with all that its message says. `record.body` is set."""

    saga_id: UUID
    saga_name: str
    record: StepRecord
    trace: str = ""
    send_attempts: int = 0
    """How often sending it was tried before."""


@dataclass(frozen=True, slots=True)
class NewSignal:
    """Something a saga has yet to be told. `kind` and `body` are the codec's business (`signal_codec`).

    With `error` it is kept aside, until an operator's retry revives it.
    """

    saga_id: UUID
    kind: str
    body: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """A signal not yet taken. Ids rise in order of arrival."""

    id: UUID
    saga_id: UUID
    kind: str
    body: str


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event to be kept: one row for each key under which some definition may look for it.

    No wait has an empty key: under that one it is kept unread, see `UnreadEvent`.
    """

    message_id: str
    wire_name: str
    key: str
    body: str
    keep_for: timedelta


@dataclass(frozen=True, slots=True)
class UnreadEvent:
    """An event kept under no key, whole, by a process that cannot read its type, for one that can."""

    id: UUID
    message_id: str
    wire_name: str
    body: str
    """See `incoming`."""


@dataclass(frozen=True, slots=True)
class EventMatch:
    """A kept event and a step that waits for it; neither is locked."""

    event_id: UUID
    saga_id: UUID
    key: StepKey
    body: str
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class StartingEvent:
    """A kept event whose key says which saga it starts; not locked."""

    event_id: UUID
    message_id: str
    wire_name: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class UnmatchedMessage:
    """A message that fits no saga, kept whole with why. `properties` is JSON text."""

    message_id: str
    reason: str
    body: bytes
    properties: str
    saga_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A resource that a step of a saga holds, and how many sagas of other trees wait for it."""

    id: UUID
    resource: str
    saga_id: UUID
    step: str
    since: datetime
    waiters: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One operator's action: asked by whom, why, and what the saga's status was before and after."""

    saga_id: UUID
    action: str
    by: str
    reason: str
    before: str
    after: str
    refused: str = ""
    signal_id: UUID | None = None
    """The signal that asked, so that whoever sent it can look up the answer."""
