"""What follows from the rows: which steps begin, which are undone, when a saga ends or blocks.

Every decision is: change the rows that a signal concerns, then `proceed`. It looks at the rows alone, so
it does not matter in which order signals came, or whether the saga was blocked meanwhile.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from messaging.codec import encode_body
from messaging.envelope import NOTHING_TO_UNDO
from messaging.messages import Command
from orchestrator.definition import Leaf, Saga
from orchestrator.draft import Draft
from orchestrator.ids import idempotency_key, message_id
from orchestrator.instance import (
    DURATION,
    INSTANT,
    TIMER,
    BlockedReason,
    Direction,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.plan import Branch, CommandLeaf, DelayLeaf, EventLeaf, LeafPlan, overrides

KEYLESS: Final = "saga-id:"
"""Prefix of the key under which a wait without a key of its own looks for events of its saga."""


def proceed(draft: Draft) -> None:
    """Bring a saga to where it awaits something, blocks, or ends; a paused one stays where it is.

    Raises:
        HookRaised: a hook of the definition raised.
    """
    if draft.paused_at:
        return
    if draft.status is SagaStatus.RUNNING:
        _heed_failed_steps(draft)
        if draft.status is SagaStatus.RUNNING:
            _go_forward(draft)
        if draft.status is SagaStatus.RUNNING:
            _heed_failed_steps(draft)  # the last branch of a group may have ended by a skipped step
    if draft.status is SagaStatus.COMPENSATING:
        _go_back(draft)


def happened(action: StepRecord) -> bool:
    """Whether a step happened, or may have; one that an operator skipped after its command was written may have."""
    skipped_late = action.status is StepStatus.SKIPPED and action.command_id is not None
    return action.status in (StepStatus.SUCCEEDED, StepStatus.UNKNOWN) or skipped_late


def publish_events(draft: Draft, leaf: LeafPlan) -> None:
    """Take a step's events, unless the saga is turning back: the step is about to be undone."""
    if draft.direction is SagaStatus.RUNNING and overrides(type(leaf.step), Leaf, "events"):
        draft.publish(leaf.name, leaf.step.events)


def turn_back(draft: Draft, step: str, code: str, text: str) -> None:
    """Begin to compensate: keep why, send nothing new, let what is out settle."""
    draft.turned_back_by(step, code, text)
    draft.note("turned_back", f"{code}: {text}" if text else code, step)
    draft.become(SagaStatus.COMPENSATING)
    for record in draft.open_records():
        not_begun = record.send_after is not None and record.send_attempts == 0
        if record.status is StepStatus.WAITING or (not_begun and record.attempt == 1):
            draft.end(record, StepStatus.CANCELLED)
        elif not_begun:  # between two attempts: none is out, but the earlier ones may have been carried out
            draft.end(record, StepStatus.UNKNOWN, record.error_code, record.error_text)
        elif record.send_after is not None:
            draft.change(record, send_after=None)


# -- forward


def _heed_failed_steps(draft: Draft) -> None:
    """Turn back, or block, if a step has ended badly."""
    for record in draft.records(Direction.ACTION):
        leaf = draft.leaf(record.key.step)
        reason = blocks(leaf, record)
        if reason is not None:
            draft.block(reason, record.key.step)
            return
        if _ended_badly(leaf, record) and not _others_go_on(draft, draft.plan.root, leaf):
            turn_back(draft, record.key.step, record.error_code, record.error_text)
            return


def _others_go_on(draft: Draft, part: Branch, failed: LeafPlan) -> bool:
    """Whether a group around a failed step lets all its branches end first, and some have not."""
    if failed not in part.leaves():
        return False
    if part.settle_all:
        awaited = any(
            draft.steps[key].status.open for leaf in part.leaves() if (key := StepKey(leaf.name)) in draft.steps
        )
        if awaited or _forward(draft, part)[1]:
            return True
    return any(_others_go_on(draft, inner, failed) for inner in part.parts if isinstance(inner, Branch))


def _ended_badly(leaf: LeafPlan, record: StepRecord) -> bool:
    if record.status is StepStatus.EXPIRED:
        return isinstance(leaf, EventLeaf) and leaf.step.on_timeout != "continue"
    return record.status in (StepStatus.REFUSED, StepStatus.UNKNOWN)


def blocks(leaf: LeafPlan, record: StepRecord) -> BlockedReason | None:
    """Why a step that has ended badly needs an operator; None if the saga turns back instead, or goes on."""
    if not _ended_badly(leaf, record) or isinstance(leaf, DelayLeaf):
        return None
    if isinstance(leaf, EventLeaf):
        waits_for_operator = leaf.after_pivot or leaf.step.on_timeout == "block"
        return BlockedReason.RETRIES_EXHAUSTED if waits_for_operator else None
    if leaf.step.pivot:
        return BlockedReason.PIVOT_UNKNOWN if record.status is StepStatus.UNKNOWN else None
    exhausted_blocks = leaf.step.on_exhausted == "block" and record.status is StepStatus.UNKNOWN
    return BlockedReason.RETRIES_EXHAUSTED if leaf.after_pivot or exhausted_blocks else None


def _go_forward(draft: Draft) -> None:
    complete, ready = _forward(draft, draft.plan.root)
    while ready:
        for leaf in ready:
            _begin(draft, leaf)
        complete, ready = _forward(draft, draft.plan.root)
    if complete:
        draft.become(SagaStatus.COMPLETED)
        if overrides(type(draft.saga), Saga, "on_completed"):
            draft.publish("", draft.saga.on_completed)


def _forward(draft: Draft, part: LeafPlan | Branch) -> tuple[bool, list[LeafPlan]]:
    """Whether a part is done, and which leaves of it are to begin now."""
    if not isinstance(part, Branch):
        record = draft.steps.get(StepKey(part.name))
        return (False, [part]) if record is None else (_done(part, record), [])
    if part.together:
        parts = [_forward(draft, p) for p in part.parts]
        return all(done for done, _ in parts), [leaf for _, ready in parts for leaf in ready]
    # The last part that has begun says where a sequence is: what code inserts before it is not run late.
    begun = [i for i, p in enumerate(part.parts) if _has_begun(draft, p)]
    for p in part.parts[begun[-1] if begun else 0 :]:
        done, ready = _forward(draft, p)
        if not done:
            return False, ready
    return True, []


def _has_begun(draft: Draft, part: LeafPlan | Branch) -> bool:
    if isinstance(part, Branch):
        return any(_has_begun(draft, p) for p in part.parts)
    return StepKey(part.name) in draft.steps


def _done(leaf: LeafPlan, record: StepRecord) -> bool:
    return not record.status.open and not _ended_badly(leaf, record)


def _begin(draft: Draft, leaf: LeafPlan) -> None:
    key = StepKey(leaf.name)
    if overrides(type(leaf.step), Leaf, "when") and not draft.ask(leaf.name, leaf.step.when):
        draft.add(key, StepStatus.SKIPPED)
    elif isinstance(leaf, EventLeaf):
        _begin_wait(draft, leaf, key)
    elif isinstance(leaf, DelayLeaf):
        _begin_delay(draft, leaf, key)
    else:
        _send(draft, leaf, key, draft.ask(leaf.name, leaf.step.command))


def _begin_wait(draft: Draft, leaf: EventLeaf, key: StepKey) -> None:
    awaited: object = draft.ask(leaf.name, leaf.step.awaited_key)
    with draft.blaming(leaf.name, "awaited_key"):
        if awaited is not None:
            _check_key(awaited)
    draft.add(
        key,
        StepStatus.WAITING,
        wire_name=leaf.event.wire_name,
        awaited_key=f"{KEYLESS}{draft.was.id}" if awaited is None else awaited,
        deadline=None if leaf.step.timeout is None else draft.in_time(leaf.step.timeout),
    )


def _begin_delay(draft: Draft, leaf: DelayLeaf, key: StepKey) -> None:
    until: object = draft.ask(leaf.name, leaf.step.until)
    with draft.blaming(leaf.name, "until"):
        kind, deadline = (DURATION, draft.in_time(until)) if isinstance(until, timedelta) else (INSTANT, _aware(until))
    draft.add(key, StepStatus.WAITING, wire_name=TIMER, awaited_key=kind, deadline=deadline)


def _aware(until: object) -> datetime:
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise TypeError(f"it returned {until!r}. Return a timedelta, or a datetime with its time zone")
    return until.astimezone(UTC)


def _check_key(key: object) -> None:
    """Refuse what would never match, or match what it should not: an id that is still empty."""
    if not isinstance(key, str):
        raise TypeError(f"it returned {key!r}, which is no str")
    if not key or "\0" in key:
        raise ValueError(f"it returned {key!r}, which is no key to wait for")


def _send(draft: Draft, leaf: CommandLeaf, key: StepKey, command: Command[Any], compensates: str = "") -> None:
    action = key.direction is Direction.ACTION
    with draft.blaming(leaf.name, "command" if action else "compensation"):
        _check_command(command, leaf.commands if action else leaf.compensations)
        body = encode_body(command).decode()
    draft.add(
        key,
        StepStatus.OUTSTANDING,
        wire_name=command.wire_name,
        participant=leaf.step.participant,
        command_id=message_id(draft.was.id, key, 1, 1),
        compensates=compensates,
        body=body,
        send_after=draft.now,
        deadline=draft.in_time(draft.timeout_of(key)),
    )


def _check_command(command: object, known: tuple[type[Command[Any]], ...]) -> None:
    """Refuse what the annotation does not name: replies would be read by what it says."""
    if type(command) not in known:
        names = " or ".join(cls.__name__ for cls in known)
        raise TypeError(f"it returned {command!r}, but its annotation names {names}")


# -- back


def _go_back(draft: Draft) -> None:
    if any(record.status.open for record in draft.records(Direction.ACTION)):
        return  # what is out settles first
    patient = draft.saga.on_compensation_failure == "continue_others"
    failed = [r for r in draft.records(Direction.COMPENSATION) if _undo_failed(r)]
    done = (patient or not failed) and _undo(draft, patient=patient)
    if failed and (done or not patient):
        draft.block(BlockedReason.COMPENSATION_FAILED, failed[0].key.step)
    elif done:
        skipped = any(r.status is StepStatus.SKIPPED for r in draft.records(Direction.COMPENSATION))
        draft.become(SagaStatus.COMPENSATED_WITH_EXCEPTIONS if skipped else SagaStatus.COMPENSATED)
        if overrides(type(draft.saga), Saga, "on_compensated"):
            draft.publish("", draft.saga.on_compensated)


def _undo(draft: Draft, *, patient: bool) -> bool:
    """Begin what is to be undone now; whether all is."""
    done, ready = _backward(draft, draft.plan.root, patient=patient)
    while ready:
        for leaf in ready:
            _begin_undo(draft, leaf)
        done, ready = _backward(draft, draft.plan.root, patient=patient)
    return done


def _undo_failed(record: StepRecord) -> bool:
    return record.status in (StepStatus.UNKNOWN, StepStatus.REFUSED)


def _backward(draft: Draft, part: LeafPlan | Branch, *, patient: bool) -> tuple[bool, list[CommandLeaf]]:
    """Whether a part is undone (or, if `patient`, as far as it can be), and which undos are to begin now."""
    if isinstance(part, (EventLeaf, DelayLeaf)):
        return True, []
    if isinstance(part, CommandLeaf):
        return _leaf_backward(draft, part, patient=patient)
    if part.together:
        parts = [_backward(draft, p, patient=patient) for p in part.parts]
        return all(done for done, _ in parts), [leaf for _, ready in parts for leaf in ready]
    for p in sorted(part.parts, key=lambda p: _last_seq(draft, p), reverse=True):
        done, ready = _backward(draft, p, patient=patient)
        if not done:
            return False, ready
    return True, []


def _leaf_backward(draft: Draft, leaf: CommandLeaf, *, patient: bool) -> tuple[bool, list[CommandLeaf]]:
    action = draft.steps.get(StepKey(leaf.name))
    if action is None or not happened(action) or not leaf.compensations:
        return True, []
    undo = draft.steps.get(StepKey(leaf.name, Direction.COMPENSATION))
    if undo is None:
        return False, [leaf]
    done = undo.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
    return done or (patient and _undo_failed(undo)), []


def _last_seq(draft: Draft, part: LeafPlan | Branch) -> int:
    if isinstance(part, Branch):
        return max(_last_seq(draft, p) for p in part.parts)
    record = draft.steps.get(StepKey(part.name))
    return 0 if record is None else record.seq


def _begin_undo(draft: Draft, leaf: CommandLeaf) -> None:
    key = StepKey(leaf.name, Direction.COMPENSATION)
    command = draft.ask(leaf.name, leaf.step.compensation)
    if command is None:
        draft.add(key, StepStatus.SUCCEEDED, error_code=NOTHING_TO_UNDO)
        return
    action = draft.steps[StepKey(leaf.name)]
    _send(draft, leaf, key, command, compensates=idempotency_key(draft.was.id, action.key, action.round))
