"""Locks in the core: a step asks for the resources it names before it begins, and lets go of them.

The rows of the resources are the store's; who gets what is `granting`'s business. Here a step that asks is a row
that waits, and the answer is a signal like any other.
"""

from __future__ import annotations

from typing import Any, Final

from orchestrator.compiling import names_locks
from orchestrator.draft import Draft
from orchestrator.instance import ASKED, GRANTED, LOCKS, Direction, StepKey, StepRecord, StepStatus
from orchestrator.plan import LeafPlan
from orchestrator.signals import LocksAsked, LocksDenied, LocksEnded, LocksGranted, LocksLetGo
from orchestrator.steps import Locking

LOCK_TIMEOUT: Final = "lock-timeout"
"""The `error_code` of a step that waited for its locks in vain."""
_LONGEST: Final = 255


def waits_for_locks(draft: Draft, leaf: LeafPlan, key: StepKey) -> bool:
    """Ask for the resources that a step names; whether there are any.

    Raises:
        HookRaised: they cannot be computed, or are no names.
    """
    step = leaf.step
    if not isinstance(step, Locking) or not names_locks(step):
        return False
    resources = _resources(draft, step, key)
    if not resources:
        return False
    deadline = None if step.lock_timeout is None else draft.in_time(step.lock_timeout)
    draft.add(key, StepStatus.WAITING, wire_name=LOCKS, awaited_key=ASKED, deadline=deadline)
    draft.locks.append(LocksAsked(key.label, resources, waits=step.on_locked == "wait"))
    return True


def _resources(draft: Draft, step: Locking[Any], key: StepKey) -> tuple[str, ...]:
    named: list[object] = list(draft.ask(key.label, step.locks))
    with draft.blaming(key.label, "locks"):
        for name in named:
            if not isinstance(name, str) or not name or len(name) > _LONGEST or "\0" in name:
                raise ValueError(f"it names {name!r}. Name resources by 1 to {_LONGEST} characters without NUL")
    return tuple(sorted({str(name) for name in named}))


def locks_answered(draft: Draft, answer: LocksGranted | LocksDenied) -> None:
    """Take whether a step got its locks, unless it waits for them no more."""
    record = draft.steps.get(StepKey.labelled(answer.step, Direction.ACTION))
    asked = (StepStatus.WAITING, LOCKS, ASKED)
    if record is None or (record.status, record.wire_name, record.awaited_key) != asked:
        draft.accepted = False
    elif isinstance(answer, LocksDenied):
        draft.end(record, StepStatus.REFUSED, answer.code, answer.text)
    else:
        draft.change(record, awaited_key=GRANTED, deadline=None)


def locks_timed_out(draft: Draft, record: StepRecord) -> None:
    """Give up waiting: the step has not begun, so it has not happened."""
    draft.end(record, StepStatus.REFUSED, LOCK_TIMEOUT, "another saga held what it needs")


def let_go(draft: Draft) -> None:
    """Say which resources are of no use any more: of waits that ended, of what is undone, of a saga at its end."""
    for key in (*draft.added, *draft.changed):
        record, was = draft.steps[key], draft.was.steps.get(key)
        ended = not record.status.open and (was is None or was.status.open)
        if ended and (record.wire_name == LOCKS or _undone(draft, record)):
            draft.locks.append(LocksLetGo(key.label))
    if draft.status.terminal and not draft.was.status.terminal:
        draft.locks.append(LocksEnded())


def _undone(draft: Draft, record: StepRecord) -> bool:
    undone = (record.key.direction, record.status) == (Direction.COMPENSATION, StepStatus.SUCCEEDED)
    return undone and names_locks(draft.leaf(record.key.step).step)
