"""What operators may ask of a saga: each action changes the rows it concerns, or is refused with why."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, assert_never

from orchestrator import children, local
from orchestrator.draft import Draft
from orchestrator.instance import (
    RESOLVED,
    SKIPPED,
    BlockedReason,
    Direction,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.plan import ChildLeaf, CommandLeaf, EventLeaf, LocalLeaf
from orchestrator.progress import publish_events, turn_back
from orchestrator.signals import (
    AbandonRequested,
    CancelRequested,
    CompensateRequested,
    OperatorRequested,
    PauseRequested,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.tree import happened

_OF_THE_CODE: Final = (BlockedReason.CODE_ERROR, BlockedReason.NEEDS_VERSION)


def act(draft: Draft, asked: OperatorRequested) -> None:
    """Do what an operator asks of a saga that has not ended."""
    match asked:
        case CancelRequested():
            _turn_back_by_order(draft, "cancelled", asked.reason)
        case RetryRequested():
            _retry(draft, asked)
        case PauseRequested():
            _pause(draft, asked)
        case ResumeRequested():
            _resume(draft, asked)
        case SkipRequested():
            _end_by_hand(draft, asked, StepStatus.SKIPPED, SKIPPED)
        case ResolveRequested():
            _end_by_hand(draft, asked, StepStatus.SUCCEEDED, RESOLVED)
        case CompensateRequested():
            _turn_back_by_order(draft, "compensation-ordered", asked.reason)
        case AbandonRequested():
            _abandon(draft, asked)
        case _:
            assert_never(asked)


def _noted(draft: Draft, kind: str, asked: OperatorRequested, step: str = "") -> None:
    draft.note(kind, f"by {asked.by or 'an operator'}: {asked.reason}", step)


def _pause(draft: Draft, asked: PauseRequested) -> None:
    if draft.paused_at:
        draft.refuse("it is paused already")
        return
    draft.pause()
    _noted(draft, "paused", asked)


def _resume(draft: Draft, asked: ResumeRequested) -> None:
    if draft.paused_at is None:
        draft.refuse("it is not paused")
        return
    draft.resume()
    _noted(draft, "resumed", asked)


def _turn_back_by_order(draft: Draft, code: str, reason: str) -> None:
    if draft.direction is SagaStatus.COMPENSATING:
        draft.refuse("it is turning back already")
    elif draft.pivot_passed:
        draft.refuse(f"its pivot {draft.plan.pivot} may have happened; from there it only goes forward")
    else:
        if draft.blocked:
            draft.unblock()
        turn_back(draft, draft.was.current_step, code, reason)


def turn_back_for_parent(draft: Draft, reason: str) -> None:
    """Turn back as a parent orders, if that can be; it is told the end either way."""
    if draft.direction is SagaStatus.COMPENSATING or draft.pivot_passed:
        draft.ignore("order", f"the parent cancels it ({reason}), but it goes its way")
        return
    if draft.blocked:
        draft.unblock()
    turn_back(draft, draft.was.current_step, "cancelled-by-parent", reason)


def _abandon(draft: Draft, asked: AbandonRequested) -> None:
    draft.turned_back_by(draft.was.current_step, "abandoned", asked.reason)
    draft.abandon()
    _noted(draft, "abandoned", asked)


def _retry(draft: Draft, retry: RetryRequested) -> None:
    blocked = _blocked_at(draft, retry.step)
    if blocked is None:
        return
    reason, key = blocked
    draft.unblock()
    _noted(draft, "retried", retry, key.label)
    if reason in _OF_THE_CODE:
        draft.wake_now = True
    elif key in draft.steps:
        _begin_again(draft, draft.steps[key])


def _blocked_at(draft: Draft, step: str) -> tuple[BlockedReason, StepKey] | None:
    """Why the saga blocks and which row is concerned; refuses, if it does not, or not at this step."""
    if draft.blocked is None:
        draft.refuse(f"it is {draft.status.value}, not blocked")
        return None
    reason, blocked_step, back_to, _ = draft.blocked
    direction = Direction.COMPENSATION if back_to is SagaStatus.COMPENSATING else Direction.ACTION
    key = StepKey.labelled(blocked_step, direction)
    if step and step not in (key.label, key.step):
        draft.refuse(f"it is blocked at {blocked_step or 'the saga'}, not at {step}")
        return None
    return reason, key


def _end_by_hand(draft: Draft, asked: SkipRequested | ResolveRequested, status: StepStatus, code: str) -> None:
    blocked = _blocked_at(draft, asked.step)
    if blocked is None:
        return
    reason, key = blocked
    if reason in _OF_THE_CODE and not _undo_cannot_be_built(draft, key):
        draft.refuse(f"it is blocked by {reason.value}: deploy code that works, then retry")
        return
    draft.unblock()
    _noted(draft, code, asked, key.label)
    record = draft.steps.get(key)
    if record is None:
        draft.add(key, status, error_code=code, error_text=asked.reason)
        return
    draft.end(record, status, code, asked.reason)
    if status is StepStatus.SUCCEEDED:
        publish_events(draft, draft.leaf(key.step))


def _undo_cannot_be_built(draft: Draft, key: StepKey) -> bool:
    """Whether the hook that raised is a compensation: then there is something to undo, and no row for it yet."""
    action = draft.steps.get(StepKey(key.step, branch=key.branch))
    undoing = key.direction is Direction.COMPENSATION and key not in draft.steps
    return undoing and action is not None and happened(action)


def _begin_again(draft: Draft, record: StepRecord) -> None:
    leaf = draft.leaf(record.key.step)
    if isinstance(leaf, CommandLeaf):
        refused = record.status is StepStatus.REFUSED
        draft.attempt_again(record, after=timedelta(0), tries=1, new_round=refused)
    elif isinstance(leaf, LocalLeaf):
        local.begin_again(draft, record)
    elif isinstance(leaf, ChildLeaf):
        children.begin_another_child(draft, leaf, record)
    elif isinstance(leaf, EventLeaf):
        timeout = leaf.step.timeout
        deadline = None if timeout is None else draft.in_time(timeout)
        draft.change(record, status=StepStatus.WAITING, deadline=deadline, ended_at=None, memo="")
        draft.wake_now = True
