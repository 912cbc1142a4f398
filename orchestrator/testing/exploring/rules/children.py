"""A saga and those it starts: each attempt has one child, and what parents say of children is so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.plan import ChildLeaf
from orchestrator.testing.exploring.actions import Kind
from orchestrator.testing.exploring.family import STRAY, round_of
from orchestrator.testing.exploring.rules.change import Change, by_hand, named, rows_of, undo_of
from orchestrator.testing.exploring.rules.undoing import UNDONE

_ENDED_AS: Final[Mapping[StepStatus, tuple[SagaStatus, ...]]] = {
    StepStatus.SUCCEEDED: (SagaStatus.COMPLETED,),
    StepStatus.REFUSED: UNDONE,
    StepStatus.UNKNOWN: (SagaStatus.ABANDONED,),
}
"""What a parent may say of its child's first course, and how the child has ended then."""


def one_child_for_one_attempt(change: Change) -> Iterator[str]:
    """A child has the id of its attempt, and there is no more than one for each; the next begins after the last."""
    for leaf in _child_leaves(change):
        key = StepKey(leaf.name)
        children, row = _children(change, key), change.now.steps.get(key)
        if any(round_of(child.id, change.now.id, leaf.name) == STRAY for child in children):
            yield f"{leaf.name} has started a child under an id that is not its attempt's: begun again, it were two"
        rounds = row.round if row is not None and row.awaited_key else 0
        if len(children) > rounds:
            yield f"{leaf.name} has {len(children)} children for {rounds} attempts"
        if sum(not child.status.terminal for child in children) > 1:
            yield f"{leaf.name} has started a child while another one of it goes on"


def parents_know_their_children(change: Change) -> Iterator[str]:
    """A step succeeded, was refused, or is undone exactly when its child says so."""
    for leaf in _child_leaves(change):
        action, undo = change.now.steps.get(StepKey(leaf.name)), change.now.steps.get(undo_of(StepKey(leaf.name)))
        child = _child(change, action)
        if action is None or child is None or by_hand(action):
            continue
        ends = _ENDED_AS.get(action.status, ())
        if undo is None and ends and child.status not in ends and change.now.status is not SagaStatus.ABANDONED:
            yield f"{leaf.name} is {action.status}, and its child is {child.status}"
        if (
            undo is not None
            and undo.status is StepStatus.SUCCEEDED
            and not by_hand(undo)
            and child.status not in UNDONE
        ):
            yield f"{leaf.name} is undone, and its child is {child.status}"


def an_undone_child_had_completed(change: Change) -> Iterator[str]:
    """Ordered back is what completed, and nothing else."""
    for before, after in change.records:
        undo = before is None and after.key.direction is Direction.COMPENSATION
        if undo and isinstance(change.leaf(after.key), ChildLeaf):
            child = _child(change, change.now.steps.get(StepKey(after.key.step)))
            if child is None or child.status not in (SagaStatus.COMPLETED, SagaStatus.ABANDONED):
                yield f"{after.key.step} is undone though its child is {child.status if child else 'not there'}"


def a_completed_child_goes_back_by_order(change: Change) -> Iterator[str]:
    """What has completed turns back when its parent undoes it, and else never."""
    if change.was.status is not SagaStatus.COMPLETED or change.now.status is SagaStatus.COMPLETED:
        return
    parent = change.now.parent
    row = None if parent is None else change.before.tables.sagas[parent.id].steps.get(undo_of(StepKey(parent.step)))
    if row is None:
        yield f"the saga was completed and is {change.now.status}, and no parent has it undone"


def a_child_out_of_use_is_cancelled(change: Change) -> Iterator[str]:
    """When its time is up, or its parent turns back, a child is told; then its end is awaited."""
    for action in rows_of(change.now, Direction.ACTION):
        leaf, child = change.leaf(action.key), _child(change, action)
        if not isinstance(leaf, ChildLeaf) or child is None or not action.status.open or child.status.terminal:
            continue
        before = change.was.steps.get(action.key)
        out_of_time = (
            before is not None
            and before.deadline is not None
            and before.deadline <= change.before.now
            and change.action.kind is Kind.WAKE
            and change.now is not change.was
            and change.now.paused_at is None
        )
        if (out_of_time or change.now.first_cause is not None) and not _is_told(change, child):
            yield f"{named(action)} has no more use for its child, which nobody has told"


def parents_end_after_their_children(change: Change) -> Iterator[str]:
    """Unless a parent is given up, or its step ended by hand, it ends when its children have."""
    if not change.now.status.terminal or change.now.status is SagaStatus.ABANDONED:
        return
    for leaf in _child_leaves(change):
        action, undo = change.now.steps.get(StepKey(leaf.name)), change.now.steps.get(undo_of(StepKey(leaf.name)))
        child = _child(change, action)
        if action is None or child is None or by_hand(action) or (undo is not None and by_hand(undo)):
            continue
        if not child.status.terminal:
            yield f"the saga ended {change.now.status} while the child of {leaf.name} is {child.status}"
        elif change.now.status in UNDONE and leaf.undoable and child.status is SagaStatus.COMPLETED:
            yield f"the saga ended {change.now.status}, but the child of {leaf.name} has completed and is not undone"


def _child_leaves(change: Change) -> Iterator[ChildLeaf]:
    return (leaf for leaf in change.saga.plan.leaves.values() if isinstance(leaf, ChildLeaf))


def _children(change: Change, key: StepKey) -> list[SagaInstance]:
    sagas = change.after.tables.sagas.values()
    return [saga for saga in sagas if saga.parent and (saga.parent.id, saga.parent.step) == (change.now.id, key.label)]


def _child(change: Change, action: StepRecord | None) -> SagaInstance | None:
    """The child of the latest round."""
    if action is None or not action.awaited_key:
        return None
    return next((one for one in _children(change, action.key) if str(one.id) == action.awaited_key), None)


def _is_told(change: Change, child: SagaInstance) -> bool:
    signals = change.after.tables.signals.values()
    return any(kept.signal.saga_id == child.id and kept.signal.kind == "child_order" for kept in signals)
