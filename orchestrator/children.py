"""Child sagas in the core: a parent starts one, orders it back, and is told its end; a child is ordered, and tells.

Orders and ends are signals in the database, written with the decision they come from, so none is lost, and
each is decided under the row of the saga it is for. What comes twice, or too late, changes nothing.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from orchestrator.draft import Draft
from orchestrator.ids import child_id
from orchestrator.instance import CHILD, Direction, Parent, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.plan import ChildLeaf, overrides
from orchestrator.signals import ChildEnded, ChildOrdered, Tell
from orchestrator.start import child_instance
from orchestrator.steps import SubSaga

CHILD_COMPENSATED: Final = "child-compensated"
CHILD_ABANDONED: Final = "child-abandoned"
CHILD_TIMEOUT: Final = "child-timeout"
"""The `error_code` of a step whose child did not complete."""


# -- the parent


def begin_child(draft: Draft, leaf: ChildLeaf, key: StepKey) -> None:
    """Start the child, and wait for its end.

    Raises:
        HookRaised: its state cannot be computed, or stored.
    """
    draft.add(key, StepStatus.WAITING, wire_name=CHILD, **_started(draft, leaf, key, 1))


def begin_another_child(draft: Draft, leaf: ChildLeaf, record: StepRecord) -> None:
    """Start a new one in a new round, since the earlier one did not complete; or order that one back again."""
    if record.key.direction is Direction.COMPENSATION:
        record = draft.change(record, status=StepStatus.WAITING, attempt=record.attempt + 1, ended_at=None)
        _order(draft, record, "compensate", "asked again")
        return
    round_ = record.round + 1
    fields = _started(draft, leaf, record.key, round_)
    again = {"status": StepStatus.WAITING, "round": round_, "attempt": record.attempt + 1, "ended_at": None}
    draft.change(record, **again, **fields)


def _started(draft: Draft, leaf: ChildLeaf, key: StepKey, round_: int) -> dict[str, Any]:
    state: BaseModel = draft.ask(key.label, leaf.step.child_state)
    root = draft.was.parent.root if draft.was.parent else draft.was.id
    parent = Parent(draft.was.id, root, key.label)
    with draft.blaming(key.label, "child_state"):
        child = child_instance(
            leaf.step.saga, state, child_id(draft.was.id, key, round_), parent, trace=draft.was.trace, now=draft.now
        )
    draft.children.append(child)
    timeout = leaf.step.timeout
    return {"awaited_key": str(child.id), "deadline": None if timeout is None else draft.in_time(timeout)}


def begin_undoing_child(draft: Draft, key: StepKey, action: StepRecord) -> None:
    """Order the completed child back, and wait for its end."""
    draft.add(key, StepStatus.WAITING, wire_name=CHILD, awaited_key=action.awaited_key)
    _order(draft, draft.steps[key], "compensate", "its parent turns back")


def cancel_child(draft: Draft, record: StepRecord, reason: str, code: str = "") -> None:
    """Have the child cancelled; its end is awaited without limit."""
    draft.change(record, deadline=None, error_code=code, error_text=reason if code else "")
    _order(draft, record, "cancel", reason)


def _order(draft: Draft, record: StepRecord, order: str, reason: str) -> None:
    if record.awaited_key:
        draft.tells.append(Tell(UUID(record.awaited_key), ChildOrdered(order, reason)))


def child_ended(draft: Draft, ended: ChildEnded) -> None:
    """Take what became of a child: of its first course, or of being ordered back."""
    action, undo = (draft.steps.get(StepKey.labelled(ended.step, direction)) for direction in Direction)
    record = undo if undo is not None else action
    leaf = draft.plan.leaves.get(record.key.step) if record else None
    awaited = record is not None and record.status is StepStatus.WAITING and record.awaited_key == str(ended.child_id)
    if record is None or not isinstance(leaf, ChildLeaf) or not awaited:
        draft.accepted = False
    elif record.key.direction is Direction.ACTION:
        _first_course_ended(draft, leaf, record, ended)
    else:
        _went_back(draft, record, ended)


def _first_course_ended(draft: Draft, leaf: ChildLeaf, record: StepRecord, ended: ChildEnded) -> None:
    step = record.key.label
    if ended.status is SagaStatus.ABANDONED:
        draft.end(record, StepStatus.UNKNOWN, CHILD_ABANDONED, ended.text)
        return
    with draft.blaming(step, leaf.step.saga.state_type.__name__):
        child = leaf.step.saga.state_type.model_validate_json(ended.state)
    if ended.status is SagaStatus.COMPLETED:
        draft.end(record, StepStatus.SUCCEEDED)
        hook = "on_completed"
    else:
        draft.end(record, StepStatus.REFUSED, record.error_code or CHILD_COMPENSATED, ended.text)
        hook = "on_compensated"
    if overrides(type(leaf.step), SubSaga, hook):
        draft.tell(step, getattr(leaf.step, hook), child)


def _went_back(draft: Draft, record: StepRecord, ended: ChildEnded) -> None:
    match ended.status:
        case SagaStatus.COMPENSATED:
            draft.end(record, StepStatus.SUCCEEDED)
        case SagaStatus.COMPENSATED_WITH_EXCEPTIONS:
            draft.end(record, StepStatus.SKIPPED, CHILD_COMPENSATED, "with exceptions: an operator skipped an undo")
        case SagaStatus.ABANDONED:
            draft.end(record, StepStatus.UNKNOWN, CHILD_ABANDONED, ended.text)
        case _:
            draft.accepted = False  # its completion, told twice


# -- the child


def held(draft: Draft, ordered: ChildOrdered) -> None:
    """Take an order after the end: a completed child goes back, if that is ordered; others say how they ended."""
    if draft.status is SagaStatus.COMPLETED and ordered.order == "compensate" and not draft.pivot_passed:
        draft.turned_back_by("", "parent-compensates", ordered.reason)
        draft.note("turned_back", f"parent-compensates: {ordered.reason}")
        draft.become(SagaStatus.COMPENSATING)
        return
    stuck = draft.status is SagaStatus.COMPLETED and ordered.order == "compensate"
    draft.accepted = False
    tell_end(draft, SagaStatus.ABANDONED if stuck else draft.status, "its pivot has passed" if stuck else "")


def tell_end(draft: Draft, status: SagaStatus, text: str = "") -> None:
    """Tell the parent how this child ended."""
    parent = draft.was.parent
    if parent is not None:
        cause = draft.first_cause
        why = text or (f"{cause.code}: {cause.text}" if cause else "")
        draft.tells.append(Tell(parent.id, ChildEnded(parent.step, draft.was.id, status, draft.state, why)))
