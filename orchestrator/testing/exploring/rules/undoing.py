"""Going back: what is undone, when, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from orchestrator.definition import Saga
from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.plan import Branch, ItemsLeaf, LeafPlan
from orchestrator.testing.exploring.rules.change import Change, leaves_of, named, rows_of, undo_of, undoable
from orchestrator.tree import happened

UNDONE: Final = (SagaStatus.COMPENSATED, SagaStatus.COMPENSATED_WITH_EXCEPTIONS)


def nothing_new_while_going_back(change: Change) -> Iterator[str]:
    """A saga that turned back begins no action, and no attempt of one."""
    if change.now.first_cause is None:
        return
    turned_before = change.was.first_cause is not None
    for before, after in change.records:
        forward = after.key.direction is Direction.ACTION
        if forward and (before is None or after.attempt > before.attempt) and (turned_before or after.status.open):
            yield f"{named(after)} was begun though the saga had turned back"


def undo_waits_for_do(change: Change) -> Iterator[str]:
    """Nothing is undone while an action is not settled."""
    open_actions = [record for record in rows_of(change.now, Direction.ACTION) if record.status.open]
    for undo in _begun_undos(change):
        for record in open_actions:
            yield f"{named(undo)} began while {named(record)} is not settled"


def undo_only_what_may_have_happened(change: Change) -> Iterator[str]:
    """Refused, skipped and unreached steps are not undone."""
    saga = change.now
    for undo in _begun_undos(change):
        action = saga.steps.get(StepKey(undo.key.step, Direction.ACTION, undo.key.branch))
        if action is None or not happened(action):
            yield f"{undo.key.step} is undone though it {'never began' if action is None else f'is {action.status}'}"
        given_up = saga.status is SagaStatus.ABANDONED and change.is_asked  # after it had begun, in one transaction
        if saga.status not in (SagaStatus.COMPENSATING, SagaStatus.BLOCKED, *UNDONE) and not given_up:
            yield f"{undo.key.step} is undone while the saga is {saga.status}"


def no_way_back_after_the_pivot(change: Change) -> Iterator[str]:
    """Nothing turns back once the pivot is written, unless it is refused."""
    saga, pivot = change.now, change.saga.plan.pivot
    record = saga.steps.get(StepKey(pivot)) if pivot else None
    turned_back = saga.first_cause is not None and saga.status is not SagaStatus.ABANDONED
    if turned_back and record is not None and record.status is not StepStatus.REFUSED:
        yield f"the saga turned back though its pivot {pivot} is {record.status}"


def undo_goes_backwards(change: Change) -> Iterator[str]:
    """In a sequence an undo begins when all that came later is undone."""
    if any(True for _ in _begun_undos(change)):
        yield from _order(change.now, change.saga, change.saga.plan.root)


def _order(saga: SagaInstance, definition: type[Saga[Any]], part: Branch | LeafPlan) -> Iterator[str]:
    if not isinstance(part, Branch):
        return
    undone_before: str = ""
    for inner in part.parts:
        yield from _order(saga, definition, inner)
        names = {leaf.name for leaf in leaves_of(inner)}
        actions = [record.key for record in rows_of(saga, Direction.ACTION) if record.key.step in names]
        if undone_before and not part.together:
            for key in actions:
                if not _done_with(saga, definition, key):
                    yield f"{undone_before} is undone before {key.label}, which came after it"
        begun = [key for key in actions if undo_of(key) in saga.steps]
        undone_before = undone_before or next((key.label for key in begun), "")


def _done_with(saga: SagaInstance, definition: type[Saga[Any]], key: StepKey) -> bool:
    """Whether nothing of a step is left to be undone."""
    action, undo = saga.steps[key], saga.steps.get(undo_of(key))
    if not happened(action) or not undoable(definition, key.step):
        return True
    if undo is None:
        return False
    patient = definition.on_compensation_failure == "continue_others" and undo.attempt > 1
    return undo.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) or patient


def _begun_undos(change: Change) -> Iterator[StepRecord]:
    """Undos of steps, those of items one by one; a `ForEach` has nothing of its own to undo."""
    for before, after in change.records:
        undo = before is None and after.key.direction is Direction.COMPENSATION
        if undo and not isinstance(change.leaf(after.key), ItemsLeaf):
            yield after
