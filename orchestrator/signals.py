"""What a saga is told, and what it decides: the two ends of the pure core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from messaging.envelope import SUCCESS
from messaging.messages import Event, Failure
from orchestrator.instance import Direction, Item, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus


@dataclass(frozen=True, slots=True)
class Started:
    """The saga exists and has written no step yet."""


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """A participant answered an attempt of a command, found by the command's id alone."""

    key: StepKey
    round: int
    attempt: int
    outcome: str
    body: str
    error_code: str = ""
    moves_deadline_by: timedelta | None = None


@dataclass(frozen=True, slots=True)
class EventMatched:
    """An event came for a waiting step."""

    key: StepKey
    event_id: UUID
    body: str
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class LocalFinished:
    """A local step's function has run, in the very transaction in which this is decided; `state` is what it left."""

    key: StepKey
    attempt: int
    state: str


@dataclass(frozen=True, slots=True)
class LocalFailed:
    """A local step's function refused, with `failure`, or raised `error`. It was rolled back."""

    key: StepKey
    attempt: int
    failure: Failure | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A child of this saga has ended, for the first time or by being ordered back; or says again how it ended."""

    step: str
    """The label of the step's key."""
    child_id: UUID
    status: SagaStatus
    state: str
    text: str = ""
    """Why, unless it completed."""


@dataclass(frozen=True, slots=True)
class ChildOrdered:
    """This saga's parent wants it back: `cancel` while it is going, `compensate` once it has completed."""

    order: str
    reason: str


@dataclass(frozen=True, slots=True)
class LocksGranted:
    """The resources that a step named are this saga's now."""

    step: str
    """The label of the step's key."""


@dataclass(frozen=True, slots=True)
class LocksDenied:
    """A step does not get the resources it named, and so has failed."""

    step: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """It is time to look: whatever is due at `now` is due. Harmless when nothing is.

    This alone takes a wake-up away that is due, so look for kept events of the saga's waits before it.
    """


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """An operator or a caller wants the saga undone."""

    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """An operator wants the blocked step tried again. An empty step means whichever blocks."""

    reason: str
    step: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """An operator wants the saga to stand still: nothing new is sent, nothing it is told is applied yet."""

    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """An operator wants a paused saga to go on. Tell it what was kept for it meanwhile next, in order."""

    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class SkipRequested:
    """An operator wants to go on without the blocked step, or without its undo. An empty step: whichever blocks."""

    reason: str
    step: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class ResolveRequested:
    """An operator has done by hand what the blocked step, or its undo, was to do. An empty step: whichever blocks."""

    reason: str
    step: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class CompensateRequested:
    """An operator wants the saga to turn back now, where it is."""

    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class AbandonRequested:
    """An operator gives the saga up as it stands: nothing is sent or undone any more."""

    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class UpgradeRequested:
    """An operator wants the saga to belong to this version, with just these steps. No business of the core's."""

    version: int
    fingerprint: str
    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class CompleteRequested:
    """Somebody redeems the reply token of an attempt of a command: this is its answer."""

    reason: str
    step: str = ""
    """The label of the step's key."""
    by: str = ""
    direction: str = Direction.ACTION.value
    round: int = 1
    attempt: int = 1
    outcome: str = SUCCESS
    body: str = "{}"
    error_code: str = ""

    @property
    def reply(self) -> ReplyReceived:
        """The answer as the participant would have given it."""
        key = StepKey.labelled(self.step, Direction(self.direction))
        return ReplyReceived(key, self.round, self.attempt, self.outcome, self.body, self.error_code)


@dataclass(frozen=True, slots=True)
class CodeFailed:
    """A hook of the definition raised while a signal was decided; the signal is kept aside."""

    step: str
    error: str


OperatorRequested: TypeAlias = (
    CancelRequested
    | RetryRequested
    | PauseRequested
    | ResumeRequested
    | SkipRequested
    | ResolveRequested
    | CompensateRequested
    | AbandonRequested
)
"""What operators may ask for."""
ActionRequested: TypeAlias = OperatorRequested | CompleteRequested
"""What is asked of a saga, and answered. It is decided at once, also while the saga is paused."""
Asked: TypeAlias = ActionRequested | UpgradeRequested
"""What is left as a signal, and answered in the audit."""
LocalEnded: TypeAlias = LocalFinished | LocalFailed
"""What became of a local step's function."""
Incoming: TypeAlias = (
    Started
    | ReplyReceived
    | EventMatched
    | LocalEnded
    | ChildEnded
    | ChildOrdered
    | LocksGranted
    | LocksDenied
    | DeadlinePassed
    | ActionRequested
    | CodeFailed
)


@dataclass(frozen=True, slots=True)
class Tell:
    """What another saga is to be told: a parent, or a child."""

    saga_id: UUID
    incoming: ChildEnded | ChildOrdered


@dataclass(frozen=True, slots=True)
class LocksAsked:
    """A step wants these resources, all or none; `waits` for its turn, or fails when one is taken."""

    step: str
    resources: tuple[str, ...]
    waits: bool


@dataclass(frozen=True, slots=True)
class LocksLetGo:
    """A step has no use for its resources any more, held or only asked for."""

    step: str


@dataclass(frozen=True, slots=True)
class LocksEnded:
    """The saga has ended: what it holds is free, once the first of its ancestors has ended as well."""


LockChange: TypeAlias = LocksAsked | LocksLetGo | LocksEnded


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth keeping that is not in the rows: a line of the saga's history.

    `unusable` says that the message which caused it fits no step and must be kept whole.
    """

    kind: str
    text: str
    step: str = ""
    unusable: bool = False


STARTED: Final = "start"
UPGRADED: Final = "upgrade"
"""What else makes a state what it is, beside the hooks of steps."""


@dataclass(frozen=True, slots=True)
class KeptState:
    """A state as it was once something had changed it: which step, and which of its hooks; see `Saga.keep_states`."""

    key: StepKey
    """Without a name where it was none: then `cause` is `STARTED` or `UPGRADED`."""
    cause: str
    state: str
    version: int
    """Of the definition whose state it is."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A command id which a new attempt overwrites in its record; replies to it still count."""

    command_id: UUID
    key: StepKey
    round: int
    attempt: int


@dataclass(frozen=True)  # no slots, see `copies`
class Decision:
    """What a saga does next.

    `instance` is the whole changed saga (its revision is still the one that was loaded: the store
    raises it). `added` and `changed` name the records to insert and to update; commands are the
    records among them whose `send_after` is set. `accepted` tells whether the signal had any effect.
    `refused` says why an operator's action was not carried out. `parked` asks to keep the signal and to
    tell it again once the saga is resumed. `local` names the local steps to be run once this is committed.
    `items` are those to insert, `children` the sagas to start, `tells` the signals to keep for other sagas.
    `locks` is what becomes of resources, in order. `search` is what the saga can be found by from now on, as far
    as that has changed; None where nothing is kept any more, and of two the later counts. `states` are those to
    keep, in order.
    """

    instance: SagaInstance
    added: tuple[StepKey, ...] = ()
    changed: tuple[StepKey, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    events: tuple[Event, ...] = ()
    notes: tuple[Note, ...] = ()
    accepted: bool = True
    refused: str = ""
    parked: bool = False
    local: tuple[StepKey, ...] = ()
    items: tuple[Item, ...] = ()
    children: tuple[SagaInstance, ...] = ()
    tells: tuple[Tell, ...] = ()
    locks: tuple[LockChange, ...] = ()
    search: tuple[tuple[str, str | None], ...] = ()
    states: tuple[KeptState, ...] = ()
    made_on: datetime | None = None
    """When the saga that it was made on had been updated; None where nobody needs to know."""

    @property
    def steps(self) -> Mapping[StepKey, StepRecord]:
        """All records of the saga, changed ones included."""
        return self.instance.steps

    @property
    def plain(self) -> bool:
        """Whether nothing but the saga's own row, its records, and what was replaced and noted is to be written."""
        return not (
            self.events or self.items or self.children or self.tells or self.locks or self.search or self.states
        )

    def then(self, later: Decision) -> Decision:
        """Join with a decision made on this one's result, so that a saga is saved once a batch."""
        added = (*self.added, *later.added)
        instance = later.instance
        if instance.wake_at and self.instance.wake_at and self._begins_wait(instance):
            # A wait that began here has yet to look for events kept from before it.
            instance = replace(instance, wake_at=min(instance.wake_at, self.instance.wake_at))
        changed = dict.fromkeys((*self.changed, *later.changed))
        return Decision(
            instance=instance,
            added=added,
            changed=tuple(key for key in changed if key not in added),
            replaced=(*self.replaced, *later.replaced),
            events=(*self.events, *later.events),
            notes=(*self.notes, *later.notes),
            accepted=self.accepted or later.accepted,
            refused=later.refused or self.refused,
            local=(*self.local, *later.local),
            items=(*self.items, *later.items),
            children=(*self.children, *later.children),
            tells=(*self.tells, *later.tells),
            locks=(*self.locks, *later.locks),
            search=(*self.search, *later.search),
            states=(*self.states, *later.states),
            made_on=self.made_on,
        )

    def _begins_wait(self, after: SagaInstance) -> bool:
        written = (after.steps[key].status for key in (*self.added, *self.changed))
        return StepStatus.WAITING in written
