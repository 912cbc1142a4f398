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
from orchestrator.children import begin_child, begin_undoing_child, cancel_child
from orchestrator.definition import Saga
from orchestrator.draft import Draft
from orchestrator.ids import idempotency_key, message_id
from orchestrator.instance import (
    CHILD,
    DURATION,
    INSTANT,
    TIMER,
    BlockedReason,
    Direction,
    SagaStatus,
    StepKey,
    StepStatus,
)
from orchestrator.items import begin_items, begin_undoing, turn_over
from orchestrator.locks import waits_for_locks
from orchestrator.plan import ChildLeaf, CommandLeaf, DelayLeaf, EventLeaf, ItemsLeaf, LeafPlan, LocalLeaf, overrides
from orchestrator.steps import Leaf
from orchestrator.tree import (
    Ready,
    Undo,
    any_may_have_ended_badly,
    backward,
    blocks,
    ended_badly,
    forward,
    others_go_on,
    undo_failed,
)

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


def publish_events(draft: Draft, leaf: LeafPlan) -> None:
    """Take a step's events, unless the saga is turning back: the step is about to be undone."""
    if draft.direction is SagaStatus.RUNNING and isinstance(leaf.step, Leaf) and _says(leaf, "events"):
        draft.publish(leaf.name, leaf.step.events)


def _says(leaf: LeafPlan, hook: str) -> bool:
    return leaf.says(hook) if isinstance(leaf, CommandLeaf) else overrides(type(leaf.step), Leaf, hook)


def turn_back(draft: Draft, step: str, code: str, text: str) -> None:
    """Begin to compensate: keep why, begin no attempt, let those settle that were handed over.

    One that the broker never confirmed is still sent again, as the same message, for its whole timeout: so an answer
    can settle it.
    """
    draft.turned_back_by(step, code, text)
    draft.note("turned_back", f"{code}: {text}" if text else code, step)
    draft.become(SagaStatus.COMPENSATING)
    for record in draft.open_records():
        not_begun = record.send_after is not None and record.send_attempts == 0
        if record.wire_name == CHILD and record.status is StepStatus.WAITING:
            cancel_child(draft, record, "its parent turns back", record.error_code)
        elif record.status is StepStatus.WAITING or (not_begun and record.attempt == 1):
            draft.end(record, StepStatus.CANCELLED)
        elif not_begun:  # between two attempts: none is out, but the earlier ones may have been carried out
            draft.end(record, StepStatus.UNKNOWN, record.error_code, record.error_text)
        elif record.send_after is not None:
            draft.change(record, deadline=draft.in_time(draft.timeout_of(record.key)))


# -- forward


def _heed_failed_steps(draft: Draft) -> None:
    """Turn back, or block, if a step has ended badly."""
    if not any_may_have_ended_badly(draft):
        return
    for record in draft.records(Direction.ACTION):
        leaf = draft.leaf(record.key.step)
        reason = blocks(leaf, record)
        if reason is not None:
            draft.block(reason, record.key.label)
            return
        if ended_badly(leaf, record) and not others_go_on(draft, draft.plan.root, leaf):
            turn_back(draft, record.key.label, record.error_code, record.error_text)
            return


def _go_forward(draft: Draft) -> None:
    complete, ready = forward(draft, draft.plan.root)
    while ready or _turned_over(draft, Direction.ACTION):
        for one in ready:
            _begin(draft, one)
        complete, ready = forward(draft, draft.plan.root)
    if complete:
        draft.become(SagaStatus.COMPLETED)
        if overrides(type(draft.saga), Saga, "on_completed"):
            draft.publish("", draft.saga.on_completed)


def _turned_over(draft: Draft, direction: Direction) -> bool:
    """Let the items of all groups make room for the next; whether anything changed."""
    groups = [leaf for leaf in draft.plan.leaves.values() if isinstance(leaf, ItemsLeaf)]
    turned = [leaf for leaf in groups if turn_over(draft, leaf, direction)]
    for leaf in turned if direction is Direction.ACTION else ():
        if draft.steps[StepKey(leaf.name)].status is StepStatus.SUCCEEDED:
            publish_events(draft, leaf)
    return bool(turned)


def _begin(draft: Draft, ready: Ready) -> None:
    leaf, key = ready.leaf, StepKey(ready.leaf.name, branch=ready.branch)
    item, has_locks = draft.item_of(key), key in draft.steps
    if not has_locks and _says(leaf, "when") and not draft.ask(key.label, leaf.step.when, *item):
        draft.add(key, StepStatus.SKIPPED)
    elif not has_locks and waits_for_locks(draft, leaf, key):
        pass
    elif isinstance(leaf, ItemsLeaf):
        begin_items(draft, leaf)
    elif isinstance(leaf, EventLeaf):
        _begin_wait(draft, leaf, key)
    elif isinstance(leaf, DelayLeaf):
        _begin_delay(draft, leaf, key)
    elif isinstance(leaf, LocalLeaf):
        draft.begin_local(key)
    elif isinstance(leaf, ChildLeaf):
        begin_child(draft, leaf, key)
    else:
        command: Command[Any] = draft.ask(key.label, leaf.step.command, *item)
        _send(draft, leaf, key, command)


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
    with draft.blaming(key.label, "command" if action else "compensation"):
        _check_command(command, leaf.commands if action else leaf.compensations)
        body = encode_body(command).decode()
    draft.add(
        key,
        StepStatus.OUTSTANDING,
        wire_name=command.wire_name,
        schema_version=command.schema_version,
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
    failed = [r for r in draft.records(Direction.COMPENSATION) if undo_failed(r)]
    done = (patient or not failed) and _undo(draft, patient=patient)
    if failed and (done or not patient):
        draft.block(BlockedReason.COMPENSATION_FAILED, failed[0].key.label)
    elif done:
        skipped = any(r.status is StepStatus.SKIPPED for r in draft.records(Direction.COMPENSATION))
        draft.become(SagaStatus.COMPENSATED_WITH_EXCEPTIONS if skipped else SagaStatus.COMPENSATED)
        if overrides(type(draft.saga), Saga, "on_compensated"):
            draft.publish("", draft.saga.on_compensated)


def _undo(draft: Draft, *, patient: bool) -> bool:
    """Begin what is to be undone now; whether all is."""
    done, ready = backward(draft, draft.plan.root, patient=patient)
    while ready or _turned_over(draft, Direction.COMPENSATION):
        for one in ready:
            _begin_undo(draft, one)
        done, ready = backward(draft, draft.plan.root, patient=patient)
    return done


def _begin_undo(draft: Draft, undo: Undo) -> None:
    leaf, key = undo.leaf, StepKey(undo.leaf.name, Direction.COMPENSATION, undo.branch)
    if isinstance(leaf, LocalLeaf):
        draft.begin_local(key)
        return
    if isinstance(leaf, ItemsLeaf):
        begin_undoing(draft, leaf)
        return
    if isinstance(leaf, ChildLeaf):
        begin_undoing_child(draft, key, draft.steps[StepKey(leaf.name, branch=undo.branch)])
        return
    command: Command[Any] | None = draft.ask(key.label, leaf.step.compensation, *draft.item_of(key))
    if command is None:
        draft.add(key, StepStatus.SUCCEEDED, error_code=NOTHING_TO_UNDO)
        return
    action = draft.steps[StepKey(leaf.name, branch=undo.branch)]
    _send(draft, leaf, key, command, compensates=idempotency_key(draft.was.id, action.key, action.round))
