"""When a step is tried again or given up, and which answers count."""

from __future__ import annotations

from collections.abc import Iterator

from messaging.envelope import FAILURE, RETRY, SUCCESS
from orchestrator.instance import Direction, StepRecord, StepStatus
from orchestrator.plan import CommandLeaf, LocalLeaf
from orchestrator.signals import ReplyReceived
from orchestrator.testing.exploring.actions import Kind
from orchestrator.testing.exploring.rules.change import Change, dedupes, named


def an_attempt_has_a_reason(change: Change) -> Iterator[str]:
    """A command is tried again, or given up, when its latest attempt is settled; a stale reply settles nothing."""
    for before, after in change.records:
        if before is None or before.status is not StepStatus.OUTSTANDING:
            continue
        given_up = after.status is StepStatus.UNKNOWN and before.send_attempts > 0
        if after.attempt == before.attempt and not given_up:
            continue
        late = before.deadline is not None and before.deadline <= change.before.now and change.action.kind is Kind.WAKE
        if not (change.is_asked or late or any(_calls_for_another(change, before, reply) for reply in change.taken)):
            did = "was given up" if given_up else f"went on to attempt {after.attempt}"
            yield f"{named(after)} {did} though attempt {before.attempt} is not settled"


def _calls_for_another(change: Change, before: StepRecord, reply: ReplyReceived) -> bool:
    if reply.key != before.key:
        return False
    leaf = change.leaf(before.key)
    again = before.key.direction is Direction.COMPENSATION or leaf.after_pivot
    if reply.outcome == RETRY:
        return reply.attempt == before.attempt
    return reply.outcome == FAILURE and again and reply.round == before.round


def what_never_left_does_not_time_out(change: Change) -> Iterator[str]:
    """What is known not to have left is put off."""
    turned_back = (change.now if change.is_asked else change.was).first_cause is not None
    if change.action.kind is not Kind.WAKE or turned_back:
        return  # of one that is claimed when the saga turns back, nobody knows whether it will leave
    left = {(sent.step, sent.attempt) for sent in change.before.sent if sent.seat == change.seat}
    for before, after in change.records:
        if before is None or before.status is not StepStatus.OUTSTANDING or (before.key, before.attempt) in left:
            continue
        if after.unanswered > before.unanswered:
            yield f"attempt {before.attempt} of {named(before)} ran out of time though it never left"


def an_event_that_came_is_taken(change: Change) -> Iterator[str]:
    """No race loses an event."""
    kept = {
        (one.event.wire_name, one.event.key): one
        for one in change.before.tables.events.values()
        if one.consumed_by is None
    }
    for before, after in change.records:
        if before is None or after.status is not StepStatus.EXPIRED or before.status is StepStatus.EXPIRED:
            continue
        event = kept.get((before.wire_name, before.awaited_key))
        oldest = getattr(change.leaf(after.key).step, "accepts_events_up_to", None)
        if event is not None and (oldest is None or event.arrived_at >= before.started_at - oldest):
            yield f"{named(after)} ran out of time though its event had come"


def no_more_attempts_than_allowed(change: Change) -> Iterator[str]:
    """The policy's bound holds."""
    for _, after in change.records:
        leaf = change.leaf(after.key)
        if isinstance(leaf, (CommandLeaf, LocalLeaf)):
            action = after.key.direction is Direction.ACTION
            policy = leaf.step.retry if action else leaf.step.compensation_retry
            if policy.max_attempts is not None and after.tries > policy.max_attempts:
                yield f"{named(after)} is tried {after.tries} times, its policy allows {policy.max_attempts}"


def an_answer_is_taken(change: Change) -> Iterator[str]:
    """The first definitive answer ends what it answers."""
    parked = change.action.kind is Kind.HANDLE and change.was.paused_at is not None
    if change.action.kill_at or parked or change.is_asked:
        return
    for reply in change.taken if len(change.taken) == 1 else ():
        before, after = change.was.steps.get(reply.key), change.now.steps.get(reply.key)
        if before is None or after is None or before.status is not StepStatus.OUTSTANDING:
            continue
        if reply.round != before.round:
            continue
        if reply.outcome == SUCCESS and after.status is not StepStatus.SUCCEEDED:
            yield f"{named(after)} was answered with success and is {after.status}"
        forward = after.key.direction is Direction.ACTION and not change.leaf(after.key).after_pivot
        refused = after.status is StepStatus.REFUSED
        if reply.outcome == FAILURE and forward and dedupes(change.leaf(after.key)) and not refused:
            yield f"{named(after)} was refused and is {after.status}: it would be undone though it did not happen"


def an_answer_counts_once(change: Change) -> Iterator[str]:
    """What has its answer is not answered again, and whoever redeems a token then is told so."""
    for before, after in change.records:
        if before is not None and before.status is StepStatus.SUCCEEDED:
            yield f"{named(after)} has its answer, and was changed by another one"
    counted = [asked for asked, refused in change.redeemed if not refused]
    for asked in counted:
        before, label = change.was.steps.get(asked.reply.key), asked.reply.key.label
        if before is not None and before.status is StepStatus.SUCCEEDED:
            yield f"the reply token of {label} was redeemed twice, and both answers count"
    if len({asked.reply.key for asked in counted}) < len(counted):
        yield f"{len(counted)} reply tokens of {counted[0].reply.key.label} were redeemed at once, and all count"
