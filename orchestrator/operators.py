"""What operators may ask of a saga: each action changes the rows it concerns, or is refused with why."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_never

from orchestrator.draft import Draft
from orchestrator.instance import BlockedReason, Direction, SagaStatus, StepRecord, StepStatus
from orchestrator.plan import CommandLeaf
from orchestrator.progress import turn_back
from orchestrator.signals import ActionRequested, CancelRequested, PauseRequested, ResumeRequested, RetryRequested


def act(draft: Draft, asked: ActionRequested) -> None:
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
        case _:
            assert_never(asked)


def _noted(draft: Draft, kind: str, asked: ActionRequested, step: str = "") -> None:
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


def _retry(draft: Draft, retry: RetryRequested) -> None:
    if draft.blocked is None:
        draft.refuse(f"it is {draft.status.value}, not blocked")
        return
    reason, step, back_to, _ = draft.blocked
    if retry.step and retry.step != step:
        draft.refuse(f"it is blocked at {step or 'the saga'}, not at {retry.step}")
        return
    draft.unblock()
    _noted(draft, "retried", retry, step)
    if reason in (BlockedReason.CODE_ERROR, BlockedReason.NEEDS_VERSION):
        draft.wake_now = True
        return
    direction = Direction.COMPENSATION if back_to is SagaStatus.COMPENSATING else Direction.ACTION
    for record in draft.records(direction):
        if record.key.step == step:
            _begin_again(draft, record)


def _begin_again(draft: Draft, record: StepRecord) -> None:
    leaf = draft.leaf(record.key.step)
    if isinstance(leaf, CommandLeaf):
        refused = record.status is StepStatus.REFUSED
        draft.attempt_again(record, after=timedelta(0), tries=1, new_round=refused)
    else:
        timeout = leaf.step.timeout
        deadline = None if timeout is None else draft.in_time(timeout)
        draft.change(record, status=StepStatus.WAITING, deadline=deadline, ended_at=None)
        draft.wake_now = True
