"""A saga as it stands: frozen values which the store keeps and the core computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

TIMER: Final = "timer"
"""What a delay waits for, in place of an event's wire name."""
DURATION: Final = "duration"
INSTANT: Final = "instant"
"""The awaited key of a delay; an instant does not move while the saga stands still."""
LOCAL: Final = "local"
"""What a local step waits for: that its function is run. Its deadline is when it is due, again."""
ITEMS: Final = "items"
"""What a `ForEach` waits for: that all its items are over."""
CHILD: Final = "saga"
"""What a step with a child waits for; the awaited key is the child's id."""
LOCKS: Final = "locks"
"""What a step waits for before it begins: that resources are its saga's."""
ASKED: Final = "asked"
GRANTED: Final = "granted"
"""The awaited key of such a step; a saga that is blocked begins it later."""
SKIPPED: Final = "skipped"
RESOLVED: Final = "resolved"
"""The `error_code` of a record that an operator ended; the reason is its `error_text`."""


class SagaStatus(StrEnum):
    """Where a saga is; the transitions between these stand in `orchestrator.transitions.TRANSITIONS`."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    COMPENSATED_WITH_EXCEPTIONS = "compensated_with_exceptions"
    ABANDONED = "abandoned"

    @property
    def terminal(self) -> bool:
        """Whether nothing more happens to such a saga."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        SagaStatus.COMPLETED,
        SagaStatus.COMPENSATED,
        SagaStatus.COMPENSATED_WITH_EXCEPTIONS,
        SagaStatus.ABANDONED,
    }
)


class BlockedReason(StrEnum):
    """Why a saga needs an operator."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    PIVOT_UNKNOWN = "pivot_unknown"
    COMPENSATION_FAILED = "compensation_failed"
    CODE_ERROR = "code_error"
    NEEDS_VERSION = "needs_version"
    CHILD_ABANDONED = "child_abandoned"


class StepStatus(StrEnum):
    """Where one direction of one step is."""

    OUTSTANDING = "outstanding"
    """A command without a definitive reply; an attempt is out, or waits for its turn to be sent."""
    WAITING = "waiting"
    """For an event, for time to pass, or for a function of its own to be run."""
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """The participant answered `failure`: it did not happen."""
    UNKNOWN = "unknown"
    """No definitive reply and none is expected any more: it may have happened."""
    EXPIRED = "expired"
    """An event did not come in time."""
    CANCELLED = "cancelled"
    """It ended because the saga turned back or was given up. Nothing to undo."""
    SKIPPED = "skipped"
    """`when` said no; or an operator went on without it, and then it may have happened if it has a command."""

    open: bool
    """Whether something is still awaited."""

    def __init__(self, word: str) -> None:
        self.open = word in ("outstanding", "waiting")


class Direction(StrEnum):
    """Of a step's command: forward, or undoing."""

    ACTION = "action"
    COMPENSATION = "compensation"


class StepKey(NamedTuple):
    """Which direction of which step (of which branch, in a ForEach; else empty)."""

    step: str
    direction: Direction = Direction.ACTION
    branch: str = ""

    @property
    def label(self) -> str:
        """Step and branch in one word, `PackingLine/sku-7`; a step's name has no slash."""
        return f"{self.step}/{self.branch}" if self.branch else self.step

    @classmethod
    def labelled(cls, label: str, direction: Direction) -> StepKey:
        """The key with this label."""
        step, _, branch = label.partition("/")
        return cls(step, direction, branch)


@dataclass(frozen=True)  # no slots, see `copies`
class StepRecord:
    """One row of `saga_step`: a command with its attempts, or a wait.

    `body` is the command's JSON text; None on records loaded from a store, which keeps what it has.
    `send_after` is when the command is due to be sent; None when there is nothing to send.
    """

    key: StepKey
    seq: int
    status: StepStatus
    started_at: datetime
    wire_name: str = ""
    schema_version: int = 1
    """That of the command's class when its body was written."""
    participant: str = ""
    round: int = 1
    attempt: int = 1
    """Rises with every message sent for this record; never reset."""
    tries: int = 1
    """Attempts counted by the retry policy; an operator's retry begins it anew."""
    unanswered: int = 0
    """Earlier attempts of this round that timed out."""
    command_id: UUID | None = None
    compensates: str = ""
    body: str | None = None
    send_after: datetime | None = None
    send_attempts: int = 0
    """How often sending this attempt was begun; 0 while it waits for its turn."""
    sent_at: datetime | None = None
    deadline: datetime | None = None
    awaited_key: str = ""
    reply: str | None = None
    error_code: str = ""
    error_text: str = ""
    ended_at: datetime | None = None
    memo: str = ""
    """What the core keeps with the row: of a `ForEach`, see `roster`; of an event wait, ids of events it refused."""


@dataclass(frozen=True, slots=True)
class Item:
    """One of the items of a `ForEach`, as it was when that was reached: never changed."""

    step: str
    position: int
    key: str
    text: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class FirstCause:
    """What made the saga turn back: kept for ever."""

    step: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Parent:
    """Which saga started this one, from which step, and which is the first of them all."""

    id: UUID
    root: UUID
    step: str
    """The label of the step's key."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The definition an instance belongs to."""

    name: str
    version: int
    fingerprint: str


@dataclass(frozen=True)  # no slots, see `copies`
class SagaInstance:
    """One row of `saga_instance` with its step records. `state` is the author's state as JSON text.

    `wake_at` is None exactly when the saga is terminal, paused or blocked.
    """

    id: UUID
    pin: Pin
    status: SagaStatus
    state: str
    revision: int
    started_at: datetime
    updated_at: datetime
    wake_at: datetime | None
    business_key: str | None = None
    seq: int = 0
    """The highest `StepRecord.seq` given out."""
    current_step: str = ""
    """Names of the steps something is awaited from, joined by `, `; for people and SQL."""
    deadline: datetime | None = None
    blocked_reason: BlockedReason | None = None
    blocked_step: str = ""
    blocked_from: SagaStatus | None = None
    blocked_at: datetime | None = None
    paused_at: datetime | None = None
    first_cause: FirstCause | None = None
    ended_at: datetime | None = None
    trace: str = ""
    """W3C traceparent, and after a space tracestate, of whoever started it."""
    parent: Parent | None = None
    steps: Mapping[StepKey, StepRecord] = field(default_factory=dict[StepKey, StepRecord])
    """Of the items of a `ForEach`, only those that are under way or next have their records here."""
    items: Mapping[tuple[str, str], Item] = field(default_factory=dict[tuple[str, str], Item])
    """The items of these, by the step and their key."""
    search: tuple[tuple[str, str], ...] = ()
    """What it can be found by, see `searchable`; only of a saga that is about to start."""
    keeps_state: bool = False
    """Whether the state it begins with is kept; only of a saga that is about to start."""
