"""Why a saga stands where it stands, in words, and what is safe to do about it.

Pure: from what `orchestrator.evidence` read to sentences. What it offers an operator is what the core
accepts in that status; a test asks the core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from messaging.errors import NO_QUEUE
from orchestrator.evidence import Awaited, Evidence, Holder
from orchestrator.holds import Hold
from orchestrator.instance import (
    CHILD,
    GRANTED,
    ITEMS,
    LOCAL,
    LOCKS,
    TIMER,
    BlockedReason,
    Direction,
    SagaStatus,
    StepStatus,
)
from orchestrator.signal_codec import ACTIONS, UPGRADE
from orchestrator.status import SagaRow
from orchestrator.words import duration, instant

_UNNOTICED: Final = timedelta(seconds=10)
"""An engine that runs looks at what is due sooner than this."""
_TOLD: Final = 5
"""So many of the steps that are awaited are told one by one; a ForEach may have hundreds."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to do: a command to type, or words where no command helps, and what follows from it."""

    do: str
    consequence: str
    action: str = ""
    """What to ask the saga for, if it is that."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Sentences that follow one another, and what is safe to do, the likeliest first."""

    sentences: tuple[str, ...]
    advice: tuple[Advice, ...]

    @property
    def paragraph(self) -> str:
        """All sentences, as one reads them."""
        return " ".join(self.sentences)


def explain(evidence: Evidence, *, now: datetime) -> Explanation:
    """Say what a saga is blocked on or waits for, since when, what went wrong, and what is safe to do."""
    return Explanation(tuple(_sentences(evidence, now)), tuple(_advice(evidence, now)))


# -- what is so


def _sentences(evidence: Evidence, now: datetime) -> Iterator[str]:
    saga = evidence.saga
    yield _standing(saga, now)
    if saga.paused_at is not None:
        yield _paused(evidence, now)
    if evidence.kept_by is not None:
        yield _kept(evidence.kept_by)
    if saga.blocked_reason is not None:
        yield _blocked(evidence, BlockedReason(saga.blocked_reason))
        if last := _problem(*evidence.blocking_error):
            yield f"The last error was {last}."
    if cause := _cause(evidence):
        yield cause
    if not saga.status.terminal:
        still = saga.paused_at is not None or saga.status is SagaStatus.BLOCKED
        for awaited in evidence.awaited[:_TOLD]:
            yield _awaits(replace(awaited, deadline=None) if still else awaited, now)
        if more := evidence.awaited[_TOLD:]:
            yield f"{_count(len(more), 'more step')} of it are awaited: saga show {saga.saga_id} has them all."
        yield from _holding(evidence, now)
        yield from _aside(evidence, now)
        if _unnoticed(saga, now):
            yield f"It has been due since {instant(saga.next_wake_at or now)}, and no engine has looked at it."
        if not evidence.known and saga.blocked_reason != BlockedReason.NEEDS_VERSION.value:
            yield f"No engine that was heard of in the last minute has {saga.saga} v{saga.version}."


def _standing(saga: SagaRow, now: datetime) -> str:
    key = f" for {saga.business_key}" if saga.business_key else ""
    what = f"{saga.saga} v{saga.version}{key}"
    if saga.ended_at is not None:
        return f"{what} ended {saga.status.value} {_ago(saga.ended_at, now)}; nothing is awaited."
    doing = {
        SagaStatus.RUNNING: "is going forward",
        SagaStatus.COMPENSATING: "is undoing what it did",
        SagaStatus.BLOCKED: "is blocked and needs an operator",
    }
    return f"{what} {doing[saga.status]}; it began {_ago(saga.started_at, now)}."


def _paused(evidence: Evidence, now: datetime) -> str:
    by = next((asked for asked in reversed(evidence.audit) if asked.action == "pause" and not asked.refused), None)
    who = f" by {by.by or 'an operator'}: {by.reason}" if by else ""
    parked = sum(1 for signal in evidence.signals if signal.kind not in ACTIONS and UPGRADE not in signal.kind)
    kept = f" Kept until it is resumed: {_count(parked, 'message')}." if parked else ""
    since = _ago(evidence.saga.paused_at or now, now)
    return f"It was paused {since}{who}. Nothing is sent, and deadlines stand still.{kept}"


def _kept(hold: Hold) -> str:
    who = hold.by or "an operator"
    return f"Its definition is held since {instant(hold.held_at)} by {who}: {hold.reason}. It has not begun, and waits."


_BLOCKED: Final = {
    BlockedReason.RETRIES_EXHAUSTED: "{step} got no answer it could use, and its attempts are used up.",
    BlockedReason.PIVOT_UNKNOWN: "Whether its pivot {step} happened is unknown, and is never guessed.",
    BlockedReason.COMPENSATION_FAILED: "The undo of {step} failed, and its attempts are used up.",
    BlockedReason.CODE_ERROR: "The saga's own code raised at {step}.",
    BlockedReason.NEEDS_VERSION: "No engine that runs knows this version of the saga.",
    BlockedReason.CHILD_ABANDONED: "The saga that {step} had started was abandoned.",
}


def _blocked(evidence: Evidence, reason: BlockedReason) -> str:
    step = evidence.saga.blocked_step or "the saga"
    if reason is BlockedReason.RETRIES_EXHAUSTED and _runs_here(evidence):
        return f"The function of {step} failed, and its attempts are used up."
    return _BLOCKED[reason].format(step=step)


def _runs_here(evidence: Evidence) -> bool:
    """Whether what blocks it is a function of its own, and no participant's."""
    return evidence.blocked_on[0] == LOCAL


def _cause(evidence: Evidence) -> str:
    """What turned it back; nothing, if what blocks it has just been told."""
    saga = evidence.saga
    problem = _problem(saga.error_code, saga.error_text)
    if not problem or problem == _problem(*evidence.blocking_error):
        return ""
    if saga.status is SagaStatus.BLOCKED and saga.failed_step == saga.blocked_step:
        return f"The last error was {problem}."
    return f"It turned back because of {saga.failed_step or 'the saga itself'}: {problem}."


def _awaits(awaited: Awaited, now: datetime) -> str:
    if awaited.status is StepStatus.WAITING:
        return _waits(awaited, now)
    undo = "the undo of " if awaited.direction is Direction.COMPENSATION else ""
    branch = f"[{awaited.branch}]" if awaited.branch else ""
    command = f"{undo}{awaited.step}{branch} sends {awaited.message} to {awaited.participant!r}"
    tries = f"attempt {awaited.attempt}, message {awaited.message_id}"
    return f"{command[:1].upper()}{command[1:]} ({tries}): {_sending(awaited, now)}."


def _sending(awaited: Awaited, now: datetime) -> str:
    last = _problem(awaited.error_code, awaited.error_text)
    before = f"; the attempt before ended with {last}" if last else ""
    if awaited.sent_at is not None:
        until = f", awaited until {instant(awaited.deadline)}" if awaited.deadline else ""
        return f"sent {_ago(awaited.sent_at, now)} and unanswered{until}{before}"
    if awaited.send_error:
        again = f", tried again {_when(awaited.send_after, now)}" if awaited.send_after else ""
        return f"it could not be sent, {_count(awaited.send_attempts, 'time')}: {awaited.send_error}{again}"
    if awaited.attempt > 1 and awaited.send_after is not None and awaited.send_after > now:
        return f"it is held back, to be sent {_when(awaited.send_after, now)}{before}"
    return f"it is on its way to the broker, not confirmed yet{before}"


def _waits(awaited: Awaited, now: datetime) -> str:
    until = f" until {instant(awaited.deadline)}" if awaited.deadline else ""
    if awaited.message == TIMER:
        return f"{awaited.step} lets time pass{until}."
    if awaited.message == LOCAL:
        return f"{awaited.step} runs here, in the orchestrator, since {instant(awaited.since)}."
    if awaited.message == ITEMS:
        return f"{awaited.step} does its items since {instant(awaited.since)}."
    if awaited.message == LOCKS:
        return f"{awaited.step} waits since {instant(awaited.since)}{until} for its locks: {_held(awaited, now)}."
    if awaited.message == CHILD:
        return f"{awaited.step} waits for its child saga{until}{_child(awaited)}. Ask: saga why {awaited.awaited_key}"
    others = f" Kept with other keys: {_count(awaited.kept_events, 'event')} of this type."
    return (
        f"{awaited.step} waits for the event {awaited.message} with key {awaited.awaited_key!r}"
        f" since {instant(awaited.since)}{until}.{others if awaited.kept_events else ' None has come.'}"
    )


def _child(awaited: Awaited) -> str:
    child = awaited.child
    if child is None:
        return ""
    if child.blocked_reason is not None:
        return f", which is blocked at {child.blocked_step or 'as a whole'} ({child.blocked_reason})"
    waits = f", waiting for {child.waiting_for}" if child.waiting_for else ""
    return f", which is {child.status.value}{waits}"


def _held(awaited: Awaited, now: datetime) -> str:
    if awaited.awaited_key == GRANTED:
        return "it has them, and begins when the saga goes on"
    told = [_holder(one, now) for one in awaited.holders]
    return "; ".join(told) or "an engine is about to grant them"


def _holder(holder: Holder, now: datetime) -> str:
    if holder.saga_id is None or holder.since is None:
        return f"no other saga holds {holder.resource}"
    return f"{holder.resource} is held by {holder.step} of saga {holder.saga_id}, for {duration(now - holder.since)}"


def _holding(evidence: Evidence, now: datetime) -> Iterator[str]:
    """What others wait for; what nobody does is nobody's business."""
    for held in evidence.holds:
        if held.waiters:
            who = "another saga waits" if held.waiters == 1 else f"{held.waiters} other sagas wait"
            yield f"{held.step} has held {held.resource} for {duration(now - held.since)}, and {who} for it."


def _aside(evidence: Evidence, now: datetime) -> Iterator[str]:
    for signal in evidence.signals:
        if signal.error:
            line = signal.error.strip().splitlines()[-1]
            yield f"A {signal.kind} is kept that made the saga's code raise: {line}."
        elif signal.kind.startswith(UPGRADE):
            asked = f"Its upgrade to v{signal.kind.removeprefix(UPGRADE)} was asked for {_ago(signal.arrived_at, now)}"
            yield f"{asked}; no engine has taken that yet."
        elif signal.kind in ACTIONS:
            yield f"An operator asked to {signal.kind} it {_ago(signal.arrived_at, now)}; no engine has taken that yet."
    if evidence.unmatched:
        number = len(evidence.unmatched)
        some = "5 or more messages" if number == 5 else _count(number, "message")
        yield f"{some} came for it that could not be used, the last because {evidence.unmatched[0]}."


def _unnoticed(saga: SagaRow, now: datetime) -> bool:
    return saga.next_wake_at is not None and saga.next_wake_at + _UNNOTICED < now


# -- what to do

_RUN_AGAIN: Final = "runs its function again; what it did before was rolled back"
_ANOTHER_CHILD: Final = "starts another child saga in its place"
_ASK_AGAIN: Final = "asks the participant again with the same key: who has done it already just answers so"
_GOES_BACK: Final = "undoes what was done, the last first; refused once the pivot may have happened"
_FOR_GOOD: Final = "ends it as it stands, for good: nothing more is sent, awaited or undone"
_OF_BLOCKED: Final = {
    BlockedReason.RETRIES_EXHAUSTED: "Bring {who} back",
    BlockedReason.PIVOT_UNKNOWN: "Bring {who} back, or find out there what happened",
    BlockedReason.COMPENSATION_FAILED: "See to it that {who} can undo it",
    BlockedReason.CODE_ERROR: "Deploy code that works",
    BlockedReason.CHILD_ABANDONED: "Settle by hand what the abandoned saga left",
}


def _advice(evidence: Evidence, now: datetime) -> Iterator[Advice]:
    saga = evidence.saga
    if saga.status.terminal:
        return
    if saga.blocked_reason == BlockedReason.NEEDS_VERSION.value or not evidence.known:
        yield from _of_the_version(saga)
    elif _unnoticed(saga, now) or _unanswered(evidence, now):
        yield Advice(f"Start an engine that knows {saga.saga} v{saga.version}: saga run ...", "it takes the saga on")
    if evidence.kept_by is not None:
        version = "" if evidence.kept_by.version is None else f" --version {evidence.kept_by.version}"
        yield Advice(f'saga release {saga.saga}{version} --reason "..."', "all of its sagas that wait begin")
    if saga.paused_at is not None:
        yield _command(saga, "resume", "what came meanwhile is applied, then it goes on; deadlines move by the pause")
    if saga.blocked_reason is not None:
        yield from _out_of_the_block(evidence, BlockedReason(saga.blocked_reason))
    elif saga.paused_at is None:
        yield from _for_those_that_wait(evidence, now)
    yield _command(saga, "abandon", _FOR_GOOD)


def _of_the_version(saga: SagaRow) -> Iterator[Advice]:
    yield Advice(f"Start an engine that knows {saga.saga} v{saga.version}: saga run ...", "it takes the saga on")
    look = f"saga upgrade {saga.saga} --from {saga.version} --dry-run"
    yield Advice(
        f"Or look whether a later version would do: {look}", "changes nothing; it tells what fits, and what not"
    )


def _out_of_the_block(evidence: Evidence, reason: BlockedReason) -> Iterator[Advice]:
    if reason is BlockedReason.NEEDS_VERSION:
        return
    saga = evidence.saga
    step = saga.blocked_step or "the saga"
    mend = _OF_BLOCKED[reason].format(who=f"the participant of {step}, {evidence.blocked_on[1]!r},")
    yield Advice(f"Mend what {step} raises" if _runs_here(evidence) else mend, "the next action then succeeds")
    if reason is BlockedReason.CODE_ERROR:
        yield _command(saga, "retry", "applies what was kept, with the code that is then deployed")
        return
    undoing = reason is BlockedReason.COMPENSATION_FAILED
    yield _command(saga, "retry", _tried_again(evidence, reason))
    yield _command(saga, "resolve", f"counts {'the undo of ' if undoing else ''}{step} as done by hand, and goes on")
    if undoing:
        yield _command(saga, "skip", f"leaves {step} standing; the saga ends compensated_with_exceptions")
    else:
        yield _command(saga, "skip", f"goes on without {step}, which is not undone later")
    if reason is BlockedReason.RETRIES_EXHAUSTED:
        yield _command(saga, "compensate", _GOES_BACK)


def _tried_again(evidence: Evidence, reason: BlockedReason) -> str:
    if reason is BlockedReason.CHILD_ABANDONED:
        return _ANOTHER_CHILD
    return _RUN_AGAIN if _runs_here(evidence) else _ASK_AGAIN


def _for_those_that_wait(evidence: Evidence, now: datetime) -> Iterator[Advice]:
    saga = evidence.saga
    if evidence.unmatched:
        look = f"SELECT reason, body FROM saga_unmatched WHERE saga_id = '{saga.saga_id}'"  # noqa: S608 - to be read
        yield Advice(f"Correct what answers; what came is kept: {look}", "an answer that can be used is taken")
    one_of_each = {(one.participant, one.message, one.awaited_key): one for one in reversed(evidence.awaited)}
    for awaited in list(reversed(one_of_each.values()))[:_TOLD]:
        yield from _for_a_command(awaited, now) if awaited.status is StepStatus.OUTSTANDING else _for_a_wait(awaited)
    if saga.status is SagaStatus.RUNNING:
        yield _command(saga, "cancel", _GOES_BACK)
    yield _command(saga, "pause", "nothing is sent until it is resumed; what comes is kept")


def _for_a_command(awaited: Awaited, now: datetime) -> Iterator[Advice]:
    who = repr(awaited.participant)
    if awaited.sent_at is not None:
        do = f"See whether {who} runs, and what its log says of message {awaited.message_id}"
        taken = "its answer is taken whenever it comes; with a reply token that it handed out: saga complete TOKEN"
        yield Advice(do, taken)
    elif NO_QUEUE in awaited.send_error:
        do = f"Start the participant {who}, or correct `participant` of {awaited.step}"
        yield Advice(do, "its queue exists once it runs, and the command leaves by itself")
    elif awaited.send_error:
        yield Advice("See to the broker, which does not take the command: saga doctor", "the command leaves by itself")
    elif last := _problem(awaited.error_code, awaited.error_text):
        again = f"it is asked again by itself {_when(awaited.send_after, now)}"
        yield Advice(f"Mend what {who} says is wrong: {last}", again)


def _for_a_wait(awaited: Awaited) -> Iterator[Advice]:
    for holder in dict.fromkeys(one.saga_id for one in awaited.holders if one.saga_id):
        yield Advice(f"Look at who holds what {awaited.step} needs: saga why {holder}", "its end frees that")
    if awaited.message == CHILD:
        yield Advice(f"Look at the child: saga why {awaited.awaited_key}", "its end is what this saga waits for")
    elif awaited.kept_events:
        do = f"Compare event_key and awaited_key of {awaited.step} with the events: saga_event"
        yield Advice(do, "an event published with the awaited key satisfies the wait")
    elif awaited.message not in (TIMER, LOCAL, ITEMS, LOCKS):
        do = f"See whether {awaited.message} is published, with the key {awaited.awaited_key!r}"
        yield Advice(do, "the event is taken when it comes, and until then the saga waits")


def _unanswered(evidence: Evidence, now: datetime) -> bool:
    """Whether an operator's request lies there longer than an engine that runs would let it."""
    return any(one.kind in ACTIONS and not one.error and one.arrived_at + _UNNOTICED < now for one in evidence.signals)


def _command(saga: SagaRow, action: str, consequence: str) -> Advice:
    return Advice(f'saga {action} {saga.saga_id} --reason "..."', consequence, action)


# -- words


def _problem(code: str | None, text: str | None) -> str:
    return ": ".join(dict.fromkeys(part for part in (code, text) if part))


def _count(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"


def _ago(then: datetime, now: datetime) -> str:
    return f"{duration(now - then)} ago"


def _when(then: datetime | None, now: datetime) -> str:
    return "now" if then is None or then <= now else f"in {duration(then - now)}"
