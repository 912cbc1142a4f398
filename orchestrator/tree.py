"""What the rows say about the tree of steps: what is done, what may begin, what is to be undone. Changes nothing.

A part is looked at for one branch: that of an item inside a `ForEach`, else the empty one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from orchestrator.draft import Draft
from orchestrator.instance import GRANTED, LOCKS, BlockedReason, Direction, StepKey, StepRecord, StepStatus
from orchestrator.plan import Branch, ChildLeaf, CommandLeaf, DelayLeaf, EventLeaf, ItemsLeaf, LeafPlan, LocalLeaf
from orchestrator.roster import Roster

UndoableLeaf: TypeAlias = CommandLeaf | LocalLeaf | ItemsLeaf | ChildLeaf
RAISED: Final = "raised"
"""The `error_code` of a local step whose function raised until its policy was used up."""


class Ready(NamedTuple):
    """A step that may begin, or be undone, now."""

    leaf: LeafPlan
    branch: str


class Undo(NamedTuple):
    """A step that is to be undone now."""

    leaf: UndoableLeaf
    branch: str


# -- one row


def granted(record: StepRecord) -> bool:
    """Whether a step has its locks and has not begun yet."""
    return (record.status, record.wire_name, record.awaited_key) == (StepStatus.WAITING, LOCKS, GRANTED)


def happened(action: StepRecord) -> bool:
    """Whether a step happened, or may have; one that an operator skipped after its command was written may have."""
    skipped_late = action.status is StepStatus.SKIPPED and action.command_id is not None
    return action.status in (StepStatus.SUCCEEDED, StepStatus.UNKNOWN) or skipped_late


_BADLY: Final = frozenset((StepStatus.EXPIRED, StepStatus.REFUSED, StepStatus.UNKNOWN))


def any_may_have_ended_badly(draft: Draft) -> bool:
    """Whether it is worth asking `ended_badly` of each row."""
    return any(record.status in _BADLY for record in draft.steps.values())


def ended_badly(leaf: LeafPlan, record: StepRecord) -> bool:
    """Whether a step failed, so that the saga turns back or blocks."""
    if record.status is StepStatus.EXPIRED:
        return isinstance(leaf, EventLeaf) and leaf.step.on_timeout != "continue"
    return record.status in (StepStatus.REFUSED, StepStatus.UNKNOWN)


def undo_failed(record: StepRecord) -> bool:
    """Whether a compensation is out of attempts."""
    return record.status in (StepStatus.UNKNOWN, StepStatus.REFUSED)


def blocks(leaf: LeafPlan, record: StepRecord) -> BlockedReason | None:
    """Why a step that has ended badly needs an operator; None if the saga turns back instead, or goes on."""
    if not ended_badly(leaf, record) or isinstance(leaf, (DelayLeaf, ItemsLeaf)):
        return None
    if isinstance(leaf, EventLeaf):
        waits_for_operator = leaf.after_pivot or leaf.step.on_timeout == "block"
        return BlockedReason.RETRIES_EXHAUSTED if waits_for_operator else None
    if isinstance(leaf, ChildLeaf):
        if record.status is StepStatus.UNKNOWN:
            return BlockedReason.CHILD_ABANDONED
        return BlockedReason.RETRIES_EXHAUSTED if leaf.after_pivot else None
    if isinstance(leaf, LocalLeaf):
        exhausted_blocks = leaf.step.on_exhausted == "block" and record.error_code == RAISED
        return BlockedReason.RETRIES_EXHAUSTED if leaf.after_pivot or exhausted_blocks else None
    if leaf.step.pivot:
        return BlockedReason.PIVOT_UNKNOWN if record.status is StepStatus.UNKNOWN else None
    exhausted_blocks = leaf.step.on_exhausted == "block" and record.status is StepStatus.UNKNOWN
    return BlockedReason.RETRIES_EXHAUSTED if leaf.after_pivot or exhausted_blocks else None


# -- forward


@lru_cache(4096)
def _action(name: str, branch: str) -> StepKey:
    return StepKey(name, Direction.ACTION, branch)


def forward(draft: Draft, part: LeafPlan | Branch, branch: str = "") -> tuple[bool, list[Ready]]:
    """Whether a part is done, and which leaves of it are to begin now."""
    if isinstance(part, ItemsLeaf):
        return _items_forward(draft, part)
    if not isinstance(part, Branch):
        record = draft.steps.get(_action(part.name, branch))
        begins = record is None or granted(record)
        return (False, [Ready(part, branch)]) if record is None or begins else (_done(part, record), [])
    if part.together:
        parts = [forward(draft, p, branch) for p in part.parts]
        return all(done for done, _ in parts), [leaf for _, ready in parts for leaf in ready]
    # The last part that has begun says where a sequence is: what code inserts before it is not run late.
    begun = len(part.parts) - 1
    while begun > 0 and not _has_begun(draft, part.parts[begun], branch):
        begun -= 1
    for p in part.parts[begun:]:
        done, ready = forward(draft, p, branch)
        if not done:
            return False, ready
    return True, []


def _items_forward(draft: Draft, leaf: ItemsLeaf) -> tuple[bool, list[Ready]]:
    record = draft.steps.get(StepKey(leaf.name))
    if record is None:
        return False, [Ready(leaf, "")]
    if not record.status.open:
        return _done(leaf, record), []
    busy = busy_items(draft, leaf, Direction.ACTION)
    parts = [forward(draft, leaf.inner, key) for key in Roster.of(record).out if key not in busy]
    return False, [one for _, ready in parts for one in ready]


def busy_items(draft: Draft, leaf: ItemsLeaf, direction: Direction) -> set[str]:
    """Items that await something in their one sequence: they are not over, and nothing of them may begin.

    One look at the rows, where otherwise each answer would cost a walk through the steps of all its siblings.
    """
    if any(isinstance(part, Branch) for part in leaf.inner.parts):
        return set()
    rows, names = draft.steps.items(), leaf.steps
    return {key.branch for key, row in rows if row.status.open and key.direction is direction and key.step in names}


def _has_begun(draft: Draft, part: LeafPlan | Branch, branch: str) -> bool:
    if isinstance(part, Branch):
        return any(_has_begun(draft, p, branch) for p in part.parts)
    return _action(part.name, branch) in draft.steps


def _done(leaf: LeafPlan, record: StepRecord) -> bool:
    return not record.status.open and not ended_badly(leaf, record)


def others_go_on(draft: Draft, part: Branch, failed: LeafPlan) -> bool:
    """Whether a group around a failed step lets all its branches end first, and some have not."""
    if failed not in part.leaves():
        return False
    if part.settle_all:
        names = {leaf.name for leaf in part.leaves() if not isinstance(leaf, ItemsLeaf)}
        awaited = any(record.key.step in names for record in draft.open_records())
        if awaited or forward(draft, part)[1]:
            return True
    return any(others_go_on(draft, inner, failed) for inner in part.parts if isinstance(inner, Branch))


# -- back


def backward(
    draft: Draft, part: LeafPlan | Branch, branch: str = "", *, patient: bool = False
) -> tuple[bool, list[Undo]]:
    """Whether a part is undone (or, if `patient`, as far as it can be), and which undos are to begin now."""
    if isinstance(part, (EventLeaf, DelayLeaf)):
        return True, []
    if isinstance(part, ItemsLeaf):
        return _items_backward(draft, part, patient=patient)
    if isinstance(part, (CommandLeaf, LocalLeaf, ChildLeaf)):
        return _leaf_backward(draft, part, branch, patient=patient)
    if part.together:
        parts = [backward(draft, p, branch, patient=patient) for p in part.parts]
        return all(done for done, _ in parts), [leaf for _, ready in parts for leaf in ready]
    for p in sorted(part.parts, key=lambda p: _last_seq(draft, p, branch), reverse=True):
        done, ready = backward(draft, p, branch, patient=patient)
        if not done:
            return False, ready
    return True, []


def _leaf_backward(
    draft: Draft, leaf: CommandLeaf | LocalLeaf | ChildLeaf, branch: str, *, patient: bool
) -> tuple[bool, list[Undo]]:
    action = draft.steps.get(StepKey(leaf.name, branch=branch))
    if action is None or not happened(action) or not leaf.undoable:
        return True, []
    undo = draft.steps.get(StepKey(leaf.name, Direction.COMPENSATION, branch))
    if undo is None:
        return False, [Undo(leaf, branch)]
    done = undo.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
    return done or (patient and undo_failed(undo)), []


def _items_backward(draft: Draft, leaf: ItemsLeaf, *, patient: bool) -> tuple[bool, list[Undo]]:
    if StepKey(leaf.name) not in draft.steps or not leaf.undoable:
        return True, []
    undo = draft.steps.get(StepKey(leaf.name, Direction.COMPENSATION))
    if undo is None:
        return False, [Undo(leaf, "")]
    if not undo.status.open:
        return True, []
    roster = Roster.of(undo)
    parts = [backward(draft, leaf.inner, key, patient=patient) for key in roster.out]
    as_far_as_it_can_be = patient and not roster.position and all(done for done, _ in parts)
    return as_far_as_it_can_be, [one for _, ready in parts for one in ready]


def _last_seq(draft: Draft, part: LeafPlan | Branch, branch: str) -> int:
    if isinstance(part, Branch):
        return max(_last_seq(draft, p, branch) for p in part.parts)
    record = draft.steps.get(StepKey(part.name, Direction.ACTION, branch))
    return 0 if record is None else record.seq
