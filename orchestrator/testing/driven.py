"""What the engine does for one saga with a database and a broker, in a few lines without either."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel

from messaging.codec import encode_body
from messaging.messages import Command, Event, Reply
from orchestrator.at_hand import as_read
from orchestrator.definition import Saga
from orchestrator.errors import ActionRefused, HookRaised
from orchestrator.granting import LOCKED
from orchestrator.instance import (
    BlockedReason,
    Direction,
    FirstCause,
    Pin,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.plan import CommandLeaf
from orchestrator.signals import (
    ActionRequested,
    ChildEnded,
    ChildOrdered,
    CodeFailed,
    DeadlinePassed,
    Decision,
    EventMatched,
    Incoming,
    LocksAsked,
    LocksDenied,
    LocksGranted,
    LocksLetGo,
    Note,
    ReplyReceived,
    ResumeRequested,
)
from orchestrator.steps import ItemStep, LocalStep, Named, Step, SubSaga
from orchestrator.transitions import decide

S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", bound=Reply)
E = TypeVar("E", bound=Event)
C = TypeVar("C", bound=BaseModel)
AnyStep: TypeAlias = Step[S, Any] | ItemStep[S, Any, Any]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
SAGA_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
GRACE: Final = timedelta(seconds=30)
"""How soon a command that did not reach its participant is sent again, as in production."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An event that no wait has taken yet."""

    id: UUID
    wire_name: str
    key: str
    body: str
    arrived_at: datetime


class Driven(Generic[S]):
    """One saga, its row, and what has come of it so far; see `SagaProbe`."""

    def __init__(
        self,
        saga: type[Saga[S]],
        state: S,
        key: str | None = None,
        *,
        now: datetime = START,
        saga_id: UUID = SAGA_ID,
    ) -> None:
        self.saga, self._states = saga(), type(state)
        """The definition, as the core is given it."""
        self.now = now
        """The present, in the probe's time."""
        self.instance: SagaInstance = _begun(saga, state, key, now, saga_id)
        """The saga's row, for whoever wants to look closer."""
        self.sent: list[Command[Any]] = []
        """All commands that reached their participants, in order; each attempt anew."""
        self.just_sent: list[Command[Any]] = []
        """Those that were sent by the last thing the test did."""
        self.published: list[Event] = []
        """All events that the saga published."""
        self.local: list[StepKey] = []
        """Local steps whose functions were to be run, in order; again when nobody has run them."""
        self.children: list[BaseModel] = []
        """The states of all child sagas that were started, in order."""
        self.ordered: list[str] = []
        """What children were ordered, in order: `cancel` or `compensate`."""
        self.notes: list[Note] = []
        """Its history: what happened beside the plain path, such as late replies."""
        self.code_errors: list[HookRaised] = []
        """What hooks of the definition raised."""
        self.unreachable: set[str] = set()
        """Participants whose queue does not take anything; the test may change it. Sends are tried again."""
        self.taken: set[str] = set()
        """Resources that another saga holds; the test may change it, and say `freed` when one is free again."""
        self._asked: dict[str, LocksAsked] = {}
        self._bodies: dict[StepKey, str] = {}
        self._attempts: dict[StepKey, dict[int, int]] = {}
        self._kept: list[Kept] = []
        self._aside: list[Incoming] = []
        self._parked: list[Incoming] = []
        self._look()

    @property
    def state(self) -> S:
        """The state as it stands."""
        return self._states.model_validate_json(self.instance.state)

    @property
    def status(self) -> SagaStatus:
        """Where the saga is."""
        return self.instance.status

    @property
    def current_step(self) -> str:
        """The step something is awaited from, or which blocks; several joined by `, `."""
        return self.instance.current_step

    @property
    def blocked_reason(self) -> BlockedReason | None:
        """Why it needs an operator."""
        return self.instance.blocked_reason

    @property
    def first_cause(self) -> FirstCause | None:
        """What made it turn back."""
        return self.instance.first_cause

    def step_status(self, step: type[Named[S]], *, item: str = "") -> StepStatus | None:
        """Where a step is, for an item of a `ForEach` if its key is given; None if it has not begun."""
        record = self.instance.steps.get(StepKey(step.name, branch=item))
        return None if record is None else record.status

    def _child(self, step: type[SubSaga[S, Any]], status: SagaStatus, state: str, why: str) -> None:
        self._acts()
        record = self.instance.steps.get(StepKey(step.name))
        if record is None:
            raise AssertionError(f"{step.name} has started no child; the saga is at {self.current_step or self.status}")
        self._tell(ChildEnded(step.name, UUID(record.awaited_key), status, state, why))
        self._look()

    def _local(self, step: type[LocalStep[S]], direction: Direction) -> StepRecord:
        """The row of a local step whose function may run now."""
        self._acts()
        record = self.instance.steps.get(StepKey(step.name, direction))
        still = self.instance.paused_at or self.status is SagaStatus.BLOCKED
        if record is None or record.status is not StepStatus.WAITING or still:
            raise AssertionError(f"{step.name} is not to be run now; the saga is at {self.current_step or self.status}")
        return record

    def _tell_aside(self) -> None:
        aside, self._aside = self._aside, []
        for incoming in aside:
            self._tell(incoming)
        self._look()

    def _acts(self) -> None:
        self.just_sent = []

    def _answer(
        self,
        step: type[AnyStep[S]],
        direction: Direction,
        outcome: str,
        answer: BaseModel | None,
        code: str,
        *,
        attempt: int | None = None,
        needs: timedelta | None = None,
        item: str = "",
    ) -> None:
        key = StepKey(step.name, direction, item)
        attempts = self._attempts.get(key, {})
        which = max(attempts, default=0) if attempt is None else attempt
        if which not in attempts:
            raise AssertionError(f"{step.name} has sent no {direction.value} attempt {which}; sent: {self.sent}")
        self._acts()
        body = "" if answer is None else encode_body(answer).decode()
        self._tell(ReplyReceived(key, attempts[which], which, outcome, body, code, needs))
        self._look()

    def _ask(self, action: str, incoming: ActionRequested) -> None:
        refused = self._tell(incoming).refused
        if refused:
            raise ActionRefused(self.instance.id, action, refused)
        if not isinstance(incoming, ResumeRequested):
            self._look()

    def _tell(self, incoming: Incoming) -> Decision:
        try:
            decision = decide(self.saga, self.instance, incoming, now=self.now)
        except HookRaised as error:
            self.code_errors.append(error)
            self._aside.append(incoming)
            decision = decide(self.saga, self.instance, CodeFailed(error.step, str(error)), now=self.now)
        self._save(decision)
        if decision.parked:
            self._parked.append(incoming)
        return decision

    def _look(self) -> None:
        """Do what is due now, and grant what is free, until there is nothing."""
        while True:
            while self.instance.wake_at is not None and self.instance.wake_at <= self.now:
                self._match_events()
                self._tell(DeadlinePassed())
            if not self._settle_locks():
                return

    def _settle_locks(self) -> bool:
        """Answer what is asked for and free, or would not be waited for; whether there was any."""
        free = {one.step: self.taken.isdisjoint(one.resources) for one in self._asked.values()}
        answered = [one for one in self._asked.values() if free[one.step] or not one.waits]
        for asked in answered:
            del self._asked[asked.step]
            denied = LocksDenied(asked.step, LOCKED, "another saga holds it")
            self._tell(LocksGranted(asked.step) if free[asked.step] else denied)
        return bool(answered)

    def _match_events(self) -> None:
        for event in list(self._kept):
            parked = [one.key for one in self._parked if isinstance(one, EventMatched)]
            waits = [
                record.key
                for record in self.instance.steps.values()
                if record.status is StepStatus.WAITING
                and record.key not in parked
                and (record.wire_name, record.awaited_key) == (event.wire_name, event.key)
            ]
            told = [self._tell(EventMatched(key, event.id, event.body, event.arrived_at)) for key in waits]
            if any(decision.accepted or decision.parked for decision in told):
                self._kept.remove(event)

    def _save(self, decision: Decision) -> None:
        self.notes.extend(decision.notes)
        self.published.extend(decision.events)
        self.local.extend(decision.local)
        self.ordered.extend(t.incoming.order for t in decision.tells if isinstance(t.incoming, ChildOrdered))
        for child in decision.children:
            (saga,) = (one for one in self.saga.plan.children() if one.name == child.pin.name)
            self.children.append(saga.state_type.model_validate_json(child.state))
        for change in decision.locks:
            if isinstance(change, LocksAsked):
                self._asked[change.step] = change
            elif isinstance(change, LocksLetGo):
                self._asked.pop(change.step, None)
        written = [decision.steps[key] for key in (*decision.added, *decision.changed)]
        self._bodies.update({record.key: record.body for record in written if record.body is not None})
        self.instance = as_read(decision.instance)
        for record in written:
            if record.body is not None and self._is_due(record):
                self._send(self.instance.steps[record.key])

    def _is_due(self, record: StepRecord) -> bool:
        unsent = record.send_after is not None and record.send_after <= self.now
        return unsent and self.instance.paused_at is None

    def _next_due(self) -> datetime | None:
        if self.instance.paused_at:
            return None
        sends = [record.send_after for record in self.instance.steps.values()]
        instants = [instant for instant in (*sends, self.instance.wake_at) if instant is not None]
        return min(instants, default=None)

    def _send_due(self) -> None:
        for record in list(self.instance.steps.values()):
            if self._is_due(record):
                self._send(record)

    def _send(self, record: StepRecord) -> None:
        begun = replace(record, send_attempts=record.send_attempts + 1)
        if record.participant in self.unreachable:
            sent = replace(begun, send_after=self.now + GRACE)
        else:
            sent = replace(begun, send_after=None, sent_at=self.now)
            self._attempts.setdefault(record.key, {})[record.attempt] = record.round
            self._deliver(record)
        self.instance = replace(self.instance, steps={**self.instance.steps, record.key: sent})

    def _deliver(self, record: StepRecord) -> None:
        leaf = cast("CommandLeaf", self.saga.plan.leaves[record.key.step])
        command = leaf.command_type(record.wire_name).model_validate_json(self._bodies[record.key])
        self.sent.append(command)
        self.just_sent.append(command)


def _begun(saga: type[Saga[S]], state: S, key: str | None, now: datetime, saga_id: UUID) -> SagaInstance:
    return SagaInstance(
        saga_id,
        Pin(saga.name, saga.version, saga.plan.fingerprint),
        SagaStatus.RUNNING,
        encode_body(state).decode(),
        revision=0,
        started_at=now,
        updated_at=now,
        wake_at=now,
        business_key=key,
        deadline=None if saga.deadline is None else now + saga.deadline,
    )
