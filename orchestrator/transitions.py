"""The pure core: what a saga does next, given what it is told. No I/O, no clock, no randomness.

Each signal changes the rows it concerns; `proceed` then derives everything else from the rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from messaging.envelope import ACCEPTED, FAILURE, RETRY, SUCCESS
from messaging.messages import Failure
from messaging.retry import Again, next_attempt
from orchestrator.children import CHILD_TIMEOUT, cancel_child, child_ended, held, tell_end
from orchestrator.definition import Saga
from orchestrator.draft import TRANSITIONS, Draft
from orchestrator.instance import (
    LOCKS,
    BlockedReason,
    Direction,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.local import local_ended
from orchestrator.locks import let_go, locks_answered, locks_timed_out
from orchestrator.operators import act, turn_back_for_parent
from orchestrator.plan import ChildLeaf, CommandLeaf, DelayLeaf, EventLeaf, ItemsLeaf, LocalLeaf, overrides
from orchestrator.progress import proceed, publish_events, turn_back
from orchestrator.signals import (
    ActionRequested,
    ChildEnded,
    ChildOrdered,
    CodeFailed,
    CompleteRequested,
    DeadlinePassed,
    Decision,
    EventMatched,
    Incoming,
    LocalFailed,
    LocalFinished,
    LocksDenied,
    LocksGranted,
    ReplyReceived,
    ResumeRequested,
    Started,
)
from orchestrator.steps import WaitForEvent
from orchestrator.tree import blocks

__all__ = ["TRANSITIONS", "decide"]

M = TypeVar("M", bound=BaseModel)

TIMED_OUT: Final = "timeout"
LONGEST_ACCEPTED: Final = timedelta(days=366)
"""The most that one `accepted` moves a deadline; a participant that needs longer says it again."""


def decide(saga: Saga[Any], instance: SagaInstance, incoming: Incoming, *, now: datetime) -> Decision:
    """Say what a saga does next: the changed instance, and the commands, events and notes that go with it.

    The instance given is not touched. A late or repeated signal changes nothing but is noted. What is told
    to a paused saga comes back as `parked`.

    Raises:
        HookRaised: a hook of the definition raised; nothing is decided, see `CodeFailed`.
    """
    draft = Draft(saga, instance, now)
    draft.keeps_wake_up = not isinstance(incoming, (Started, DeadlinePassed))
    if draft.direction.terminal and draft.blocked:
        draft.unblock()  # a child that its parent orders back, blocked for want of its version, which is here
    if draft.status.terminal:
        _after_the_end(draft, incoming)
        if draft.status is SagaStatus.COMPENSATING:
            proceed(draft)
        return _told(draft)
    if draft.paused_at and not isinstance(incoming, (ActionRequested, CodeFailed)):
        _while_paused(draft, incoming)
        return draft.decision()
    match incoming:
        case Started():
            pass
        case ReplyReceived():
            _reply(draft, incoming)
        case EventMatched():
            _event(draft, incoming)
        case LocalFinished() | LocalFailed():
            local_ended(draft, incoming)
        case ChildEnded():
            _child_ended(draft, incoming)
        case ChildOrdered():
            turn_back_for_parent(draft, incoming.reason)
        case LocksGranted() | LocksDenied():
            locks_answered(draft, incoming)
        case DeadlinePassed():
            _deadlines(draft)
        case CodeFailed():
            _code_failed(draft, incoming)
        case CompleteRequested():
            _complete(draft, incoming)
        case _:
            act(draft, incoming)
    # What was parked is applied before anything follows from a resume.
    if draft.accepted and not isinstance(incoming, ResumeRequested):
        proceed(draft)
    return _told(draft)


def _told(draft: Draft) -> Decision:
    """The decision; a child that ended by it tells its parent."""
    if draft.status.terminal and draft.accepted:
        tell_end(draft, draft.status)
    if draft.plan.locking:
        let_go(draft)
    return draft.decision()


def _child_ended(draft: Draft, ended: ChildEnded) -> None:
    child_ended(draft, ended)
    leaf = draft.plan.leaves.get(StepKey.labelled(ended.step, Direction.ACTION).step)
    if draft.accepted and leaf is not None and ended.status is SagaStatus.COMPLETED:
        publish_events(draft, leaf)


def _after_the_end(draft: Draft, incoming: Incoming) -> None:
    match incoming:
        case ReplyReceived():
            draft.ignore("late_reply", f"{incoming.outcome} after the saga's end", incoming.key.step)
        case ChildOrdered():
            held(draft, incoming)
        case ChildEnded():
            draft.ignore("child_ended", f"child {incoming.child_id} ended {incoming.status.value}", incoming.step)
        case Started() | EventMatched() | LocalFinished() | LocalFailed() | DeadlinePassed() | CodeFailed():
            draft.accepted = False
        case LocksGranted() | LocksDenied():
            draft.accepted = False
        case _:
            draft.refuse(f"it is {draft.status.value}")


def _while_paused(draft: Draft, incoming: Incoming) -> None:
    """Park what the saga has use for; an event, if its wait still waits. Deadlines stand still."""
    draft.accepted = False
    if isinstance(incoming, EventMatched):
        record = draft.steps.get(incoming.key)
        draft.parked = record is not None and record.status is StepStatus.WAITING
    else:
        draft.parked = isinstance(incoming, (ReplyReceived, ChildEnded, ChildOrdered, LocksGranted, LocksDenied))


# -- replies


def _reply(draft: Draft, reply: ReplyReceived) -> None:
    step, record = reply.key.label, draft.steps.get(reply.key)
    leaf = draft.plan.leaves.get(reply.key.step)
    if record is None and reply.key.branch:
        draft.ignore("late_reply", f"{reply.outcome} for attempt {reply.attempt}, the item is over", step)
    elif record is None or not isinstance(leaf, CommandLeaf):
        draft.ignore("unmatched", "no command of this saga", step, unusable=True)
    elif reply.outcome not in (SUCCESS, FAILURE, RETRY, ACCEPTED):
        draft.ignore("unmatched", f"unknown outcome {reply.outcome!r}", step, unusable=True)
    elif not _awaits_answer(draft, leaf, record, reply):
        contradicts = record.status is StepStatus.REFUSED and reply.outcome == SUCCESS
        unanswered = record.status in (StepStatus.UNKNOWN, StepStatus.SKIPPED)
        late = "late_reply" if unanswered or contradicts else "duplicate"
        draft.ignore(late, f"{reply.outcome} for attempt {reply.attempt}, step is {record.status.value}", step)
    elif reply.outcome == SUCCESS:
        _succeeded(draft, leaf, record, reply)
    elif reply.outcome == FAILURE:
        _refused(draft, leaf, record, reply)
    elif reply.attempt != record.attempt or not record.status.open:
        draft.ignore("duplicate", f"{reply.outcome} for attempt {reply.attempt}, not the latest", step)
    elif reply.outcome == ACCEPTED:
        timeout = min(reply.moves_deadline_by or draft.timeout_of(record.key), LONGEST_ACCEPTED)
        sent = record.sent_at or draft.now
        draft.change(record, deadline=draft.in_time(timeout), send_after=None, sent_at=sent)
    else:
        draft.note("retry", f"attempt {record.attempt} was answered retry: {reply.error_code}", step)
        record = draft.change(record, error_code=reply.error_code, error_text=_text_of(draft, reply))
        _try_again_or_give_up(draft, leaf, record)


def _complete(draft: Draft, asked: CompleteRequested) -> None:
    """Take the answer that came by a token; whoever redeems it is told why it has no effect."""
    _reply(draft, asked.reply)
    if draft.accepted:
        draft.note("completed", f"answered by its reply token: {asked.outcome}, {asked.reason}", asked.step)
    else:
        draft.refuse(draft.notes[-1].text)


def _awaits_answer(draft: Draft, leaf: CommandLeaf, record: StepRecord, reply: ReplyReceived) -> bool:
    """Whether a definitive reply is still the answer.

    It is until the attempts are used up, and then as long as the command waits for an operator. Of an
    earlier round, which was refused, only `success` counts: a participant that does not dedupe may have
    been at two attempts at once, and then the command happened after all.
    """
    if reply.round != record.round and reply.outcome != SUCCESS:
        return False
    if record.status is StepStatus.OUTSTANDING:
        return True
    if record.status is StepStatus.REFUSED and reply.outcome != SUCCESS:
        return False
    if record.key.direction is Direction.COMPENSATION:
        return record.status in (StepStatus.UNKNOWN, StepStatus.REFUSED)
    return draft.direction is SagaStatus.RUNNING and blocks(leaf, record) is not None


def _blocked_on(draft: Draft, record: StepRecord) -> bool:
    if draft.blocked is None:
        return False
    reason, step, back_to, _ = draft.blocked
    direction = Direction.COMPENSATION if back_to is SagaStatus.COMPENSATING else Direction.ACTION
    command_reasons = (BlockedReason.RETRIES_EXHAUSTED, BlockedReason.PIVOT_UNKNOWN, BlockedReason.COMPENSATION_FAILED)
    return reason in command_reasons and (step, direction) == (record.key.label, record.key.direction)


def _succeeded(draft: Draft, leaf: CommandLeaf, record: StepRecord, reply: ReplyReceived) -> None:
    action = record.key.direction is Direction.ACTION
    message = _read(draft, record.key.label, leaf.reply, reply.body) if action else None
    if action and message is None:
        draft.ignore("unmatched", f"the body is not a {leaf.reply.__name__}", record.key.label, unusable=True)
        return
    if _blocked_on(draft, record):
        draft.unblock()
    code = "" if action else reply.error_code
    draft.end(record, StepStatus.SUCCEEDED, code, reply=reply.body or "{}", sent_at=record.sent_at or draft.now)
    if message is not None and leaf.says("on_reply"):
        draft.tell(record.key.label, leaf.step.on_reply, *draft.item_of(record.key), message)
    if action:
        publish_events(draft, leaf)


def _refused(draft: Draft, leaf: CommandLeaf, record: StepRecord, reply: ReplyReceived) -> None:
    failure_type = leaf.command_type(record.wire_name).failure_type(reply.error_code)
    failure = _read(draft, record.key.label, failure_type, reply.body)
    if failure is None:
        draft.ignore("unmatched", f"the body is no failure {reply.error_code!r}", record.key.label, unusable=True)
        return
    if _blocked_on(draft, record):
        draft.unblock()
    code = reply.error_code or failure.error_code
    sent = record.sent_at or draft.now
    may_have_happened = not leaf.step.participant_dedupes and _others_unanswered(record, reply)
    status = StepStatus.UNKNOWN if may_have_happened else StepStatus.REFUSED
    draft.end(record, status, code, failure.reason, reply=reply.body or "{}", sent_at=sent)
    if record.key.direction is Direction.ACTION and leaf.says("on_failure"):
        draft.tell(record.key.label, leaf.step.on_failure, *draft.item_of(record.key), failure)
    if record.key.direction is Direction.COMPENSATION or leaf.after_pivot:
        refused = status is StepStatus.REFUSED
        _try_again_or_give_up(draft, leaf, draft.steps[record.key], new_round=refused)


def _others_unanswered(record: StepRecord, reply: ReplyReceived) -> bool:
    """Whether an attempt other than the one that was just answered may still be carried out."""
    latest = reply.attempt == record.attempt
    latest_is_out = record.status.open and (record.send_after is None or record.send_attempts > 0)
    latest_timed_out = not record.status.open and record.error_code == TIMED_OUT
    if latest:
        return record.unanswered - latest_timed_out > 0
    return record.unanswered - 1 + latest_is_out > 0


def _try_again_or_give_up(draft: Draft, leaf: CommandLeaf, record: StepRecord, *, new_round: bool = False) -> None:
    """Let the policy say what follows an attempt that brought no success."""
    action = record.key.direction is Direction.ACTION
    policy = leaf.step.retry if action else leaf.step.compensation_retry
    verdict = next_attempt(policy, record.tries, seed=str(record.command_id))
    if isinstance(verdict, Again) and not _settling(draft, record):
        draft.attempt_again(record, after=verdict.after, tries=record.tries + 1, new_round=new_round)
    elif not new_round:
        draft.end(record, StepStatus.UNKNOWN, record.error_code, record.error_text)


def _settling(draft: Draft, record: StepRecord) -> bool:
    """Whether an attempt is only waited for, so that its step can be undone."""
    return record.key.direction is Direction.ACTION and draft.direction is SagaStatus.COMPENSATING


def _read(draft: Draft, step: str, message_type: type[M], body: str) -> M | None:
    """The message, or None if the body is none; what a validator of the author's raises beside that is his."""
    with draft.blaming(step, message_type.__name__):
        try:
            return message_type.model_validate_json(body or "{}")
        except ValidationError:
            return None


def _text_of(draft: Draft, reply: ReplyReceived) -> str:
    failure = _read(draft, reply.key.step, Failure, reply.body)
    return failure.reason if failure else ""


# -- events, deadlines


def _event(draft: Draft, event: EventMatched) -> None:
    step, record = event.key.step, draft.steps.get(event.key)
    leaf = draft.plan.leaves.get(step)
    if record is None or not isinstance(leaf, EventLeaf) or record.status is not StepStatus.WAITING:
        draft.accepted = False
        return
    oldest = leaf.step.accepts_events_up_to
    if oldest is not None and event.arrived_at < record.started_at - oldest:
        _pass_over(draft, record, event)
        return
    message = _read(draft, step, leaf.event, event.body)
    if message is None:
        draft.note("unmatched", f"event {event.event_id} is not a {leaf.event.__name__}", step)
        _pass_over(draft, record, event)
        return
    draft.end(record, StepStatus.SUCCEEDED, reply=event.body)
    if overrides(type(leaf.step), WaitForEvent, "on_event"):
        draft.tell(step, leaf.step.on_event, message)
    publish_events(draft, leaf)


def _pass_over(draft: Draft, record: StepRecord, event: EventMatched) -> None:
    """Leave an event to others, and remember with the wait that it was looked at."""
    draft.accepted = False
    draft.change(record, memo=f"{record.memo} {event.event_id}".lstrip())


def _deadlines(draft: Draft) -> None:
    if draft.status is SagaStatus.BLOCKED:
        return  # deadlines stand still
    for record in draft.open_records():
        if record.deadline is not None and record.deadline <= draft.now:
            _deadline_of(draft, record)
    if draft.deadline is not None and draft.deadline <= draft.now and draft.status is SagaStatus.RUNNING:
        _saga_deadline(draft)


def _deadline_of(draft: Draft, record: StepRecord) -> None:
    leaf, step = draft.leaf(record.key.step), record.key.label
    if record.wire_name == LOCKS:
        locks_timed_out(draft, record)
        return
    if isinstance(leaf, EventLeaf):
        draft.end(record, StepStatus.EXPIRED, "event-timeout", f"no {record.wire_name} in time")
        if overrides(type(leaf.step), WaitForEvent, "on_expired"):
            draft.tell(step, leaf.step.on_expired)
        return
    if isinstance(leaf, DelayLeaf):
        draft.end(record, StepStatus.SUCCEEDED)
        publish_events(draft, leaf)
        return
    if isinstance(leaf, LocalLeaf):
        draft.run_local(record)
        return
    if isinstance(leaf, ItemsLeaf):
        return  # it has no deadline
    if isinstance(leaf, ChildLeaf):
        draft.note("timeout", f"child {record.awaited_key} did not end in time; it is cancelled", step)
        cancel_child(draft, record, "it did not end in time", CHILD_TIMEOUT)
        return
    # An attempt has its whole timeout from when it was sent; not known to have been sent, it is put off,
    # unless the saga has turned back: then nothing waits longer than it has to.
    timeout = draft.timeout_of(record.key)
    unsent = None if _settling(draft, record) else record.send_after
    begins = record.sent_at if unsent is None else max(unsent, draft.now)
    if begins is not None and begins + timeout > draft.now:
        draft.change(record, deadline=begins + timeout)
        return
    draft.note("timeout", f"attempt {record.attempt} of {record.wire_name} had no reply in time", step)
    text = f"no reply from {record.participant} in time"
    record = draft.change(record, unanswered=record.unanswered + 1, error_code=TIMED_OUT, error_text=text)
    _try_again_or_give_up(draft, leaf, record)


def _saga_deadline(draft: Draft) -> None:
    draft.deadline = None
    if draft.pivot_passed:
        draft.note("deadline_missed", "the saga's deadline passed after its pivot; it goes on")
    else:
        turn_back(draft, draft.was.current_step, "saga-deadline", "the saga's deadline passed")


def _code_failed(draft: Draft, failed: CodeFailed) -> None:
    if draft.blocked is None:
        draft.block(BlockedReason.CODE_ERROR, failed.step)
    draft.note("code_error", failed.error, failed.step)
