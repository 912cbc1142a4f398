"""The working copy a decision is made on: rows that change, hooks that are called, notes that are taken.

Pure like the core it serves. The author's hooks get a freshly parsed state each time, so nothing they
do to it reaches another hook or the stored state, unless the hook is one whose changes are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel

from messaging.codec import encode_body
from messaging.messages import Event
from orchestrator.copies import by_position, copied
from orchestrator.errors import HookRaised
from orchestrator.ids import message_id
from orchestrator.instance import (
    CHILD,
    INSTANT,
    ITEMS,
    LOCAL,
    LOCKS,
    TIMER,
    BlockedReason,
    Direction,
    FirstCause,
    Item,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.plan import CommandLeaf, ItemsLeaf, LeafPlan
from orchestrator.searchable import changed_values
from orchestrator.signals import Decision, KeptState, LockChange, Note, Replaced, Tell

if TYPE_CHECKING:
    from orchestrator.definition import Saga

T = TypeVar("T")

_decision_of: Final = by_position(Decision)
_BLANK: Final = StepRecord(StepKey(""), 0, StepStatus.WAITING, datetime.min)  # noqa: DTZ901 - replaced in each copy

LOOK_AGAIN: Final = timedelta(hours=1)
RUN_AGAIN: Final = timedelta(seconds=5)
"""When a local step is due again that nobody has run by then, such as after the end of the process that was to."""

TRANSITIONS: Final = {
    SagaStatus.RUNNING: frozenset(
        {SagaStatus.COMPENSATING, SagaStatus.BLOCKED, SagaStatus.COMPLETED, SagaStatus.ABANDONED}
    ),
    SagaStatus.COMPENSATING: frozenset(
        {SagaStatus.BLOCKED, SagaStatus.COMPENSATED, SagaStatus.COMPENSATED_WITH_EXCEPTIONS, SagaStatus.ABANDONED}
    ),
    SagaStatus.BLOCKED: frozenset({SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.ABANDONED}),
    SagaStatus.COMPLETED: frozenset({SagaStatus.COMPENSATING}),  # by a parent's order alone
    SagaStatus.COMPENSATED: frozenset[SagaStatus](),
    SagaStatus.COMPENSATED_WITH_EXCEPTIONS: frozenset[SagaStatus](),
    SagaStatus.ABANDONED: frozenset[SagaStatus](),
}
"""Which status may follow which. The documentation's diagram is printed from this table."""


class Blaming:
    """See `Draft.blaming`. A class, for every hook is called in one, and a generator would cost as much as a hook."""

    __slots__ = ("_hook", "_saga_id", "_step")

    def __init__(self, saga_id: UUID, step: str, hook: str) -> None:
        self._saga_id, self._step, self._hook = saga_id, step, hook

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise on behalf of what was raised."""
        if isinstance(error, Exception):
            raise HookRaised(self._saga_id, self._step, self._hook, error) from error


class Draft:
    """One saga while it is decided."""

    def __init__(self, saga: Saga[Any], instance: SagaInstance, now: datetime) -> None:
        self.saga, self.plan, self.was, self.now = saga, saga.plan, instance, now
        self.status = instance.status
        self.state = instance.state
        self.steps = dict(instance.steps)
        self.seq = instance.seq
        self.deadline = instance.deadline
        self.paused_at = instance.paused_at
        self.first_cause = instance.first_cause
        self.blocked: tuple[BlockedReason, str, SagaStatus, datetime] | None = None
        if instance.blocked_reason and instance.blocked_from and instance.blocked_at:
            self.blocked = (instance.blocked_reason, instance.blocked_step, instance.blocked_from, instance.blocked_at)
        self.wake_now = False
        self.keeps_wake_up = False
        """Whether a wake-up that is due stays due: only looking at what is due takes it away."""
        self.added: list[StepKey] = []
        self.changed: dict[StepKey, None] = {}
        self.replaced: list[Replaced] = []
        self.events: list[Event] = []
        self.notes: list[Note] = []
        self.refused = ""
        self.accepted = True
        self.parked = False
        self.local: list[StepKey] = []
        self.items = dict(instance.items)
        self.new_items: list[Item] = []
        self.children: list[SagaInstance] = []
        self.tells: list[Tell] = []
        self.locks: list[LockChange] = []
        self.states: list[KeptState] = []

    # -- rows

    def leaf(self, name: str) -> LeafPlan:
        """The definition of a step that has a row."""
        return self.plan.leaves[name]

    def records(self, direction: Direction) -> list[StepRecord]:
        """The rows of one direction, in the order they were written."""
        return sorted((r for r in self.steps.values() if r.key.direction is direction), key=lambda r: r.seq)

    def open_records(self) -> list[StepRecord]:
        """The rows from which something is awaited, in the order they were written."""
        return sorted((r for r in self.steps.values() if r.status.open), key=lambda r: r.seq)

    def add(self, key: StepKey, status: StepStatus, **fields: Any) -> None:
        """Write a new row; or over one that has waited for its locks."""
        ended, waited = None if status.open else self.now, self.steps.get(key)
        if waited is None:
            self.seq += 1
            self.added.append(key)
        elif key not in self.added:
            self.changed[key] = None
        seq = self.seq if waited is None else waited.seq
        new = copied(_BLANK, key=key, seq=seq, status=status, started_at=self.now, ended_at=ended, **fields)
        self.steps[key] = new

    def change(self, record: StepRecord, **fields: Any) -> StepRecord:
        """Write a row anew."""
        changed = copied(self.steps[record.key], **fields)
        self.steps[record.key] = changed
        self.changed[record.key] = None
        return changed

    def end(self, record: StepRecord, status: StepStatus, code: str = "", text: str = "", **fields: Any) -> None:
        """Close a row: nothing is awaited from it, nothing of it is sent any more."""
        self.change(
            record,
            status=status,
            error_code=code,
            error_text=text,
            send_after=None,
            deadline=None,
            ended_at=self.now,
            **fields,
        )

    def attempt_again(self, record: StepRecord, *, after: timedelta, tries: int, new_round: bool = False) -> None:
        """Write the next attempt over a row; its earlier id still finds it."""
        if record.command_id is not None:
            self.replaced.append(Replaced(record.command_id, record.key, record.round, record.attempt))
        round_, attempt = record.round + new_round, record.attempt + 1
        self.change(
            record,
            status=StepStatus.OUTSTANDING,
            round=round_,
            attempt=attempt,
            tries=tries,
            unanswered=0 if new_round else record.unanswered,
            command_id=message_id(self.was.id, record.key, round_, attempt),
            send_after=(self.paused_at or self.now) + after,
            send_attempts=0,
            sent_at=None,
            deadline=self.in_time(after + self.timeout_of(record.key)),
            ended_at=None,
        )

    def freeze(self, items: Iterable[Item]) -> None:
        """Write new items."""
        for item in items:
            self.items[item.step, item.key] = item
            self.new_items.append(item)

    def item_at(self, step: str, position: int) -> Item | None:
        """An item by its position, if it is at hand."""
        found = (item for item in self.items.values() if (item.step, item.position) == (step, position))
        return next(found, None)

    def item_of(self, key: StepKey) -> tuple[Any, ...]:
        """What hooks are given beside the state: the item a row belongs to, if it belongs to one."""
        if not key.branch:
            return ()
        group = self.leaf(key.step).group
        leaf = self.leaf(group)
        assert isinstance(leaf, ItemsLeaf)
        with self.blaming(key.label, group):
            return (leaf.adapter.validate_json(self.items[group, key.branch].text),)

    def begin_local(self, key: StepKey) -> None:
        """Write a row for a function of the author's, to be run once that is committed."""
        self.add(key, StepStatus.WAITING, wire_name=LOCAL, awaited_key="function", deadline=self.now + RUN_AGAIN)
        self.local.append(key)

    def run_local(self, record: StepRecord) -> None:
        """Have the function of a row run that is due."""
        self.change(record, deadline=self.now + RUN_AGAIN)
        self.local.append(record.key)

    def timeout_of(self, key: StepKey) -> timedelta:
        """How long one attempt waits for its reply."""
        leaf = self.leaf(key.step)
        assert isinstance(leaf, CommandLeaf)
        return leaf.step.timeout if key.direction is Direction.ACTION else leaf.step.compensation_timeout

    def in_time(self, after: timedelta) -> datetime:
        """The deadline for something that has this long; deadlines stand still while the saga is blocked or paused."""
        since = [instant for instant in (self.paused_at, self.blocked[3] if self.blocked else None) if instant]
        return min(since, default=self.now) + after

    def note(self, kind: str, text: str, step: str = "", *, unusable: bool = False) -> None:
        """Take a line of history."""
        self.notes.append(Note(kind, text, step, unusable))

    def ignore(self, kind: str, text: str, step: str = "", *, unusable: bool = False) -> None:
        """Take a line of history about a signal that has no effect."""
        self.accepted = False
        self.note(kind, text, step, unusable=unusable)

    def refuse(self, why: str) -> None:
        """Do not do what an operator asked for."""
        self.accepted, self.refused = False, why

    # -- status

    def become(self, status: SagaStatus) -> None:
        """Go to another status, as `TRANSITIONS` allows."""
        assert status in TRANSITIONS[self.status], f"{self.status} -> {status}"
        self.status = status

    def block(self, reason: BlockedReason, step: str) -> None:
        """Stop, and wait for an operator."""
        self.blocked = (reason, step, self.status, self.now)
        self.become(SagaStatus.BLOCKED)
        self.note("blocked", f"{reason.value} at {step or 'the saga'}", step)

    def unblock(self) -> None:
        """Go on where it blocked; deadlines move by the time they stood still."""
        assert self.blocked is not None
        _, _, back_to, since = self.blocked
        self._move_deadlines(since, self.paused_at)
        self.blocked = None
        self.status = back_to

    def pause(self) -> None:
        """Stand still: what is told to the saga is parked, and time does not count."""
        self.paused_at = self.now

    def resume(self) -> None:
        """Go on after a pause; deadlines and what is left of delays move by the time they stood still."""
        assert self.paused_at is not None
        for record in self.open_records():
            if record.send_after is not None:
                left = max(record.send_after - self.paused_at, timedelta(0))
                self.change(record, send_after=self.now + left)
        self._move_deadlines(self.paused_at, self.blocked[3] if self.blocked else None)
        self.paused_at, self.wake_now = None, True

    def abandon(self) -> None:
        """End here, whatever is open: nothing is awaited, sent or undone any more."""
        for record in self.open_records():
            never_sent = record.attempt == 1 and record.send_after is not None and record.send_attempts == 0
            waits = record.status is StepStatus.WAITING and record.wire_name != CHILD
            cancelled = waits or never_sent
            status = StepStatus.CANCELLED if cancelled else StepStatus.UNKNOWN
            self.end(record, status, record.error_code, record.error_text)
        self.blocked = self.paused_at = None
        self.become(SagaStatus.ABANDONED)

    def _move_deadlines(self, since: datetime, still_from: datetime | None) -> None:
        """Move deadlines by the time since then, less what they go on standing still for another reason."""
        moved = max((still_from or self.now) - since, timedelta(0))
        for record in self.open_records():
            fixed = record.wire_name == LOCAL or (record.wire_name, record.awaited_key) == (TIMER, INSTANT)
            if record.deadline is not None and not fixed:
                self.change(record, deadline=record.deadline + moved)
        if self.deadline is not None:
            self.deadline += moved

    @property
    def direction(self) -> SagaStatus:
        """Running or compensating; of a blocked saga, what it returns to."""
        return self.blocked[2] if self.blocked else self.status

    @property
    def pivot_passed(self) -> bool:
        """Whether the pivot's command is written and not refused (or the pivot was skipped); locks come before."""
        record = self.steps.get(StepKey(self.plan.pivot)) if self.plan.pivot else None
        return record is not None and record.status is not StepStatus.REFUSED and record.wire_name != LOCKS

    def turned_back_by(self, step: str, code: str, text: str) -> None:
        """Keep why the saga turns back, if it is the first reason."""
        self.first_cause = self.first_cause or FirstCause(step, code, text)

    # -- hooks

    def parsed_state(self) -> BaseModel:
        """The state as the author's model, a copy of its own."""
        return self.saga.state_type.model_validate_json(self.state)

    def blaming(self, step: str, hook: str) -> Blaming:
        """Turn whatever the author's code raises into `HookRaised`."""
        return Blaming(self.was.id, step, hook)

    def ask(self, step: str, hook: Callable[..., T], *args: Any) -> T:
        """Call a hook whose changes to the state are not kept.

        Raises:
            HookRaised: it raised.
        """
        with self.blaming(step, hook.__name__):
            return hook(self.parsed_state(), *args)

    def tell(self, step: str, hook: Callable[..., None], *args: Any) -> None:
        """Call a hook whose changes to the state are kept.

        Raises:
            HookRaised: it raised, or left a state that cannot be stored.
        """
        with self.blaming(step, hook.__name__):
            state = self.parsed_state()
            hook(state, *args)
            self.know(encode_body(state).decode(), StepKey.labelled(step, Direction.ACTION), hook.__name__)

    def know(self, state: str, key: StepKey, cause: str) -> None:
        """Take a state; it is kept as well, with what changed it, if the saga says so."""
        if self.saga.keep_states and state != self.state:
            self.states.append(KeptState(key, cause, state, self.saga.version))
        self.state = state

    def publish(self, step: str, hook: Callable[..., Iterable[Event]]) -> None:
        """Take the events a hook names.

        Raises:
            HookRaised: it raised, or named one that cannot be sent.
        """
        with self.blaming(step, hook.__name__):
            events: list[object] = list(hook(self.parsed_state()))
            for event in events:
                if not isinstance(event, Event):
                    raise TypeError(f"it named {event!r}, which is no event")
                encode_body(event)
                self.events.append(event)

    # -- the result

    def decision(self) -> Decision:
        """The decision, with what follows from the rows: current step, wake-up, block."""
        reason, step, back_to, since = self.blocked or (None, "", None, None)
        ended_now = self.status.terminal and not self.was.status.terminal
        instance = copied(
            self.was,
            status=self.status,
            state=self.state,
            steps=self.steps,
            items=self.items,
            seq=self.seq,
            deadline=self.deadline,
            first_cause=self.first_cause,
            blocked_reason=reason,
            blocked_step=step,
            blocked_from=back_to,
            blocked_at=since,
            paused_at=self.paused_at,
            current_step=step or ", ".join(dict.fromkeys(r.key.step for r in self.open_records())),
            wake_at=self._wake_at(),
            updated_at=self.now if self.accepted else self.was.updated_at,
            ended_at=self.now if ended_now else self.was.ended_at if self.status.terminal else None,
        )
        return _decision_of(
            instance,
            tuple(self.added),
            tuple(key for key in self.changed if key not in self.added),
            tuple(self.replaced),
            tuple(self.events),
            tuple(self.notes),
            self.accepted,
            self.refused,
            self.parked,
            tuple(self.local),
            tuple(self.new_items),
            tuple(self.children),
            tuple(self.tells),
            tuple(self.locks),
            changed_values(self.plan.searchable, self.was.state, self.state),
            tuple(self.states),
            self.was.updated_at,
        )

    def _looks_for_events(self, record: StepRecord) -> bool:
        return record.status is StepStatus.WAITING and record.wire_name not in (TIMER, LOCAL, ITEMS, CHILD, LOCKS)

    def _wake_at(self) -> datetime | None:
        if self.status.terminal or self.status is SagaStatus.BLOCKED or self.paused_at:
            return None
        new_wait = any(self._looks_for_events(self.steps[key]) for key in self.added)
        if self.wake_now or new_wait:
            return self.now
        if self.keeps_wake_up and self.was.wake_at is not None and self.was.wake_at <= self.now:
            return self.was.wake_at
        deadlines = [r.deadline for r in self.steps.values() if r.status.open and r.deadline is not None]
        if self.deadline is not None and self.status is SagaStatus.RUNNING:
            deadlines.append(self.deadline)
        if any(r.wire_name == LOCKS and r.status.open for r in self.steps.values()):
            deadlines.append(self.now + LOOK_AGAIN)
        return min(deadlines, default=self.now + LOOK_AGAIN)
