"""What has come of it, told by what participants did and functions wrote, whatever the rows say."""

from __future__ import annotations

from collections.abc import Iterator

from messaging.envelope import NOTHING_TO_UNDO, SUCCESS
from orchestrator.instance import RESOLVED, Direction, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.plan import CommandLeaf, LocalLeaf
from orchestrator.testing.exploring.rules.change import Change, rows_of, undo_of, undoable
from orchestrator.testing.exploring.rules.undoing import UNDONE


def done_once(change: Change) -> Iterator[str]:
    """A participant that dedupes carries an action out once."""
    doing, sent = change.action.doing, change.action.subject
    if doing is not None and doing.fresh and doing.outcome == SUCCESS and sent.label in change.before.in_effect:
        leaf = change.family.definition(sent.seat).plan.leaves[sent.step.step]
        if sent.step.direction is Direction.ACTION and isinstance(leaf, CommandLeaf) and leaf.step.participant_dedupes:
            yield f"{sent.participant} has carried out {sent.wire_name} of {sent.step.step} twice"


def compensated_when_all_is_undone(change: Change) -> Iterator[str]:
    """All that happened is undone, also when something comes after the end."""
    saga = change.now
    if saga.status not in UNDONE:
        return
    happened, in_hand = change.after.happened, change.after.accepted
    for action in rows_of(saga, Direction.ACTION):
        name, undo, label = action.key.label, saga.steps.get(undo_of(action.key)), change.label(action.key)
        if undo is not None and undo.status not in (StepStatus.SUCCEEDED, StepStatus.SKIPPED):
            yield f"the saga ended {saga.status} while the undo of {name} is {undo.status}"
        if not undoable(change.saga, action.key.step):
            continue
        if label in happened and not _let_stand(action, undo):
            yield f"the saga ended {saga.status}, but {name} has happened and is not undone"
        if label in in_hand and undo is None and action.status is not StepStatus.REFUSED:
            yield f"the saga ended {saga.status}, but {name} was accepted and nobody has called it off"


def _let_stand(action: StepRecord, undo: StepRecord | None) -> bool:
    """Whether the author said, knowing that it had happened, that there is nothing to undo; or an operator did."""
    if undo is None:
        return False
    by_hand = undo.status is StepStatus.SKIPPED or undo.error_code == RESOLVED
    nothing = undo.command_id is None and undo.error_code == NOTHING_TO_UNDO
    known = action.status is StepStatus.SUCCEEDED
    return by_hand or (nothing and known)


def completed_when_all_is_done(change: Change) -> Iterator[str]:
    """Every step has happened."""
    saga = change.now
    if saga.status is not SagaStatus.COMPLETED:
        return
    happened = change.after.happened
    for key in _to_be_done(change):
        name, leaf, record = key.label, change.leaf(key), saga.steps.get(key)
        if record is None:
            yield f"the saga completed without {name}"
        elif record.status is StepStatus.SUCCEEDED and record.error_code != RESOLVED:
            if isinstance(leaf, (CommandLeaf, LocalLeaf)) and change.label(key) not in happened:
                yield f"the saga completed, but {name} has not happened"
        elif record.status not in (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.EXPIRED):
            yield f"the saga completed while {name} is {record.status}"


def _to_be_done(change: Change) -> Iterator[StepKey]:
    """The rows that a completed saga has: one for each step, of a `ForEach` one for each item and step."""
    items = change.after.tables.items.get(change.now.id, ())
    for leaf in change.saga.plan.leaves.values():
        if not leaf.group:
            yield StepKey(leaf.name)
        else:
            yield from (StepKey(leaf.name, branch=item.key) for item in items if item.step == leaf.group)


def a_local_step_writes_with_its_saga(change: Change) -> Iterator[str]:
    """What a function wrote is there exactly when the saga says that it has run."""
    written = dict(change.after.written)
    for leaf in change.saga.plan.leaves.values():
        if not isinstance(leaf, LocalLeaf):
            continue
        key = StepKey(leaf.name)
        times = written.get(change.label(key), 0)
        ran = _has_run(change.now.steps.get(key)) - _has_run(change.now.steps.get(undo_of(key)))
        if times > ran:
            yield f"what {leaf.name} wrote is committed {times} times, and the saga knows of {ran}"
        if times < ran:
            yield f"the saga says that {leaf.name} has run, and what it wrote is not committed"


def _has_run(record: StepRecord | None) -> int:
    return int(record is not None and record.status is StepStatus.SUCCEEDED and record.error_code != RESOLVED)
