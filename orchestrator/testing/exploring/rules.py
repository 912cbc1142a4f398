"""What must hold whatever happens: the rules of `docs/semantics.md`, told of one transition or one world.

They look at rows, at messages and at what participants have done, never at how the core decided; so a mistake
in the core, in the engine or in a definition is seen by what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from messaging.envelope import FAILURE, NOTHING_TO_UNDO, RETRY, SUCCESS
from orchestrator.definition import Saga
from orchestrator.draft import TRANSITIONS
from orchestrator.instance import (
    LOCKS,
    RESOLVED,
    BlockedReason,
    Direction,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.plan import Branch, CommandLeaf, ItemsLeaf, LeafPlan
from orchestrator.signal_codec import ACTIONS
from orchestrator.testing.exploring.model import Action, Kind, Outcome
from orchestrator.testing.exploring.world import SAGA_ID, Sent, World
from orchestrator.tree import happened

UNDONE: Final = (SagaStatus.COMPENSATED, SagaStatus.COMPENSATED_WITH_EXCEPTIONS)


@dataclass(frozen=True)
class Change:
    """One action, with the worlds before and after it."""

    saga: type[Saga[Any]]
    before: World
    action: Action
    outcome: Outcome

    @property
    def after(self) -> World:
        """The world it led to."""
        return self.outcome.world

    @cached_property
    def records(self) -> tuple[tuple[StepRecord | None, StepRecord], ...]:
        """The rows that changed, as they were and as they are."""
        was, steps = self.before.saga.steps, self.after.saga.steps
        return tuple((was.get(key), record) for key, record in steps.items() if was.get(key) is not record)

    def leaf(self, key: StepKey) -> LeafPlan:
        """The definition of a row's step."""
        return self.saga.plan.leaves[key.step]


Rule = Callable[[Change], Iterator[str]]


def broken(change: Change) -> str:
    """The first rule that this change breaks, in words; empty if none."""
    rules = RULES if change.before.tables is not change.after.tables else RULES_OF_PARTICIPANTS
    return next((text for rule in rules for text in rule(change)), "")


# -- the engine


def the_engine_works(change: Change) -> Iterator[str]:
    """It neither raises nor gives a message up."""
    yield from change.outcome.problems


def acked_after_the_commit(change: Change) -> Iterator[str]:
    """Nothing is settled before its effect is committed."""
    if change.outcome.acked_too_early:
        yield "a message was acked before its effect was committed: killed in between, it is lost"


def all_or_nothing(change: Change) -> Iterator[str]:
    """A transaction that did not commit leaves nothing behind, and nothing of it leaves."""
    if change.outcome.committed or change.action.kind in (Kind.DO, Kind.ASK, Kind.TAKEN):
        return
    for sent in change.outcome.sent:
        yield f"{_told(sent)} was sent without a commit"
    if change.after.tables != change.before.tables:
        yield "rows were written although their transaction was not committed"


def one_id_for_one_attempt(change: Change) -> Iterator[str]:
    """A re-sent attempt is the same message; all attempts of a round are one order with one key."""
    for sent in change.outcome.sent:
        for other in (*change.before.sent, *change.outcome.sent):
            attempt = (sent.step, sent.attempt)
            if (other.step, other.attempt) == attempt and other.message_id != sent.message_id:
                yield f"{_told(sent)} left under two message ids"
            if other.message_id == sent.message_id and (other.step, other.attempt) != attempt:
                yield f"{_told(sent)} and attempt {other.attempt} of {other.step.step} have one message id"
            if (other.step, other.round) == (sent.step, sent.round):
                yield from _one_order(sent, other)


def _one_order(sent: Sent, other: Sent) -> Iterator[str]:
    """All attempts of a round are one and the same order."""
    if sent.idempotency_key != other.idempotency_key:
        yield f"{_told(sent)} has another idempotency key than attempt {other.attempt}: it would be done twice"
    if sent.body != other.body:
        yield f"{_told(sent)} has another body than attempt {other.attempt}"


def nothing_after_the_end(change: Change) -> Iterator[str]:
    """An ended saga sends nothing and awaits nothing."""
    if change.before.saga.status.terminal:
        for sent in change.outcome.sent:
            yield f"{_told(sent)} was sent after the saga had ended {change.before.saga.status}"
    saga = change.after.saga
    for record in saga.steps.values():
        if saga.status.terminal and (record.status.open or record.send_after is not None):
            yield f"the saga ended {saga.status}, and {_named(record)} is still {record.status}"


def what_is_locked_is_let_go(change: Change) -> Iterator[str]:
    """A step sends only what it holds the locks for; an ended saga holds none."""
    saga, rows = change.after.saga, change.after.tables.locks.values()
    for row in rows if saga.status.terminal else ():
        yield f"the saga ended {saga.status}, and {row.step} still has {row.resource}"
    asked = {row.step for row in rows if not row.held}
    for record in saga.steps.values():
        if record.key.direction is Direction.ACTION and record.key.step in asked and record.wire_name != LOCKS:
            yield f"{_named(record)} was begun without its locks"


# -- status


def the_status_follows_the_table(change: Change) -> Iterator[str]:
    """From each status only those that the table allows; blocked with a reason."""
    before, after = change.before.saga, change.after.saga
    if after.status not in _REACHABLE[before.status]:
        yield f"the saga went from {before.status} to {after.status}"
    if (after.status is SagaStatus.BLOCKED) != (after.blocked_reason is not None):
        yield f"the saga is {after.status} with the reason {after.blocked_reason}"


def no_hook_raises(change: Change) -> Iterator[str]:
    """The author's code copes with whatever comes."""
    saga = change.after.saga
    if saga.blocked_reason is BlockedReason.CODE_ERROR and change.before.saga.blocked_reason is not saga.blocked_reason:
        notes = [note.text for _, note in change.after.tables.history.values() if note.kind == "code_error"]
        yield f"the definition raised: {notes[-1] if notes else saga.blocked_step}"


def it_wakes_unless_it_rests(change: Change) -> Iterator[str]:
    """A saga wakes up, or is terminal, paused or blocked; and it waits for something."""
    saga = change.after.saga
    resting = saga.status.terminal or saga.status is SagaStatus.BLOCKED or saga.paused_at is not None
    if (saga.wake_at is None) != resting:
        yield f"the saga is {saga.status} and wakes at {saga.wake_at}"
    waits = [record for record in saga.steps.values() if record.status.open]
    if not resting and not waits and change.action.kind is Kind.WAKE and not change.action.kill_at:
        yield f"the saga is {saga.status} and waits for nothing"


def it_moves_on(change: Change) -> Iterator[str]:
    """Whatever happens makes a difference: nothing goes on for ever."""
    if change.after.under_way == change.before.under_way and change.after == change.before:
        yield "this changes nothing, so that it would go on for ever"


# -- attempts


def an_attempt_has_a_reason(change: Change) -> Iterator[str]:
    """A command is tried again, or given up, when its latest attempt is settled; a stale reply settles nothing."""
    for before, after in change.records:
        if before is None or before.status is not StepStatus.OUTSTANDING:
            continue
        given_up = after.status is StepStatus.UNKNOWN and before.send_attempts > 0
        if after.attempt == before.attempt and not given_up:
            continue
        asked = change.action.kind is Kind.SIGNALS
        late = before.deadline is not None and before.deadline <= change.before.now and change.action.kind is Kind.WAKE
        if not (asked or late or any(_calls_for_another(change, before, reply) for reply in _taken(change))):
            did = "was given up" if given_up else f"went on to attempt {after.attempt}"
            yield f"{_named(after)} {did} though attempt {before.attempt} is not settled"


def what_never_left_does_not_time_out(change: Change) -> Iterator[str]:
    """What is known not to have left is put off."""
    if change.action.kind is not Kind.WAKE or _turned_back(change):
        return  # of one that is claimed when the saga turns back, nobody knows whether it will leave
    left = {(sent.step, sent.attempt) for sent in change.before.sent}
    for before, after in change.records:
        if before is None or before.status is not StepStatus.OUTSTANDING or (before.key, before.attempt) in left:
            continue
        if after.unanswered > before.unanswered:
            yield f"attempt {before.attempt} of {_named(before)} ran out of time though it never left"


def _turned_back(change: Change) -> bool:
    """Whether the saga went back already, or an operator has it do so now."""
    asked = any(kept.pending and kept.signal.kind in ACTIONS for kept in change.before.tables.signals.values())
    return (change.after if asked else change.before).saga.first_cause is not None


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
            yield f"{_named(after)} ran out of time though its event had come"


def _taken(change: Change) -> Iterator[Any]:
    if change.action.kind is Kind.HANDLE:
        yield from change.action.subject


def _calls_for_another(change: Change, before: StepRecord, reply: Any) -> bool:
    if reply.to.step != before.key:
        return False
    leaf = change.leaf(before.key)
    again = before.key.direction is Direction.COMPENSATION or leaf.after_pivot
    if reply.outcome == RETRY:
        return bool(reply.to.attempt == before.attempt)
    return reply.outcome == FAILURE and again and reply.to.round == before.round


def no_more_attempts_than_allowed(change: Change) -> Iterator[str]:
    """The policy's bound holds."""
    for _, after in change.records:
        leaf = change.leaf(after.key)
        if isinstance(leaf, CommandLeaf):
            action = after.key.direction is Direction.ACTION
            policy = leaf.step.retry if action else leaf.step.compensation_retry
            if policy.max_attempts is not None and after.tries > policy.max_attempts:
                yield f"{_named(after)} is tried {after.tries} times, its policy allows {policy.max_attempts}"


def an_answer_is_taken(change: Change) -> Iterator[str]:
    """The first definitive answer ends what it answers."""
    if change.action.kill_at or change.before.saga.paused_at is not None:
        return
    for reply in _taken(change):
        before = change.before.saga.steps.get(reply.to.step)
        after = change.after.saga.steps.get(reply.to.step)
        if before is None or after is None or before.status is not StepStatus.OUTSTANDING:
            continue
        if reply.to.round != before.round or len(change.action.subject) > 1:
            continue
        if reply.outcome == SUCCESS and after.status is not StepStatus.SUCCEEDED:
            yield f"{_named(after)} was answered with success and is {after.status}"
        forward = after.key.direction is Direction.ACTION and not change.leaf(after.key).after_pivot
        dedupes = getattr(change.leaf(after.key).step, "participant_dedupes", True)
        if reply.outcome == FAILURE and forward and dedupes and after.status is not StepStatus.REFUSED:
            yield f"{_named(after)} was refused and is {after.status}: it would be undone though it did not happen"


# -- going back


def nothing_new_while_going_back(change: Change) -> Iterator[str]:
    """A saga that turned back begins no action, and no attempt of one."""
    if change.after.saga.first_cause is None:
        return
    turned_before = change.before.saga.first_cause is not None
    for before, after in change.records:
        forward = after.key.direction is Direction.ACTION
        if forward and (before is None or after.attempt > before.attempt) and (turned_before or after.status.open):
            yield f"{_named(after)} was begun though the saga had turned back"


def undo_waits_for_do(change: Change) -> Iterator[str]:
    """Nothing is undone while an action is not settled."""
    steps = change.after.saga.steps.values()
    open_actions = [r for r in steps if r.status.open and r.key.direction is Direction.ACTION]
    for undo in _begun_undos(change):
        for record in open_actions:
            yield f"{_named(undo)} began while {_named(record)} is not settled"


def undo_only_what_may_have_happened(change: Change) -> Iterator[str]:
    """Refused, skipped and unreached steps are not undone."""
    saga = change.after.saga
    for undo in _begun_undos(change):
        action = saga.steps.get(StepKey(undo.key.step, Direction.ACTION, undo.key.branch))
        if action is None or not happened(action):
            yield f"{undo.key.step} is undone though it {'never began' if action is None else f'is {action.status}'}"
        if saga.status not in (SagaStatus.COMPENSATING, SagaStatus.BLOCKED, *UNDONE):
            yield f"{undo.key.step} is undone while the saga is {saga.status}"


def no_way_back_after_the_pivot(change: Change) -> Iterator[str]:
    """Nothing turns back once the pivot is written, unless it is refused."""
    saga, pivot = change.after.saga, change.saga.plan.pivot
    record = saga.steps.get(StepKey(pivot)) if pivot else None
    turned_back = saga.first_cause is not None and saga.status is not SagaStatus.ABANDONED
    if turned_back and record is not None and record.status is not StepStatus.REFUSED:
        yield f"the saga turned back though its pivot {pivot} is {record.status}"


def undo_goes_backwards(change: Change) -> Iterator[str]:
    """In a sequence an undo begins when all that came later is undone."""
    if any(True for _ in _begun_undos(change)):
        yield from _order(change.after.saga, change.saga, change.saga.plan.root)


def _order(saga: SagaInstance, definition: type[Saga[Any]], part: Branch | LeafPlan) -> Iterator[str]:
    if not isinstance(part, Branch):
        return
    undone_before: str = ""
    for inner in part.parts:
        yield from _order(saga, definition, inner)
        names = {leaf.name for leaf in _leaves(inner)}
        actions = [record.key for record in _rows(saga, Direction.ACTION) if record.key.step in names]
        if undone_before and not part.together:
            for key in actions:
                if not _done_with(saga, definition, key):
                    yield f"{undone_before} is undone before {key.label}, which came after it"
        begun = [key for key in actions if _undo_of(key) in saga.steps]
        undone_before = undone_before or next((key.label for key in begun), "")


def _leaves(part: Branch | LeafPlan) -> Iterator[LeafPlan]:
    if isinstance(part, Branch):
        return part.leaves()
    return part.inner.leaves() if isinstance(part, ItemsLeaf) else iter((part,))


def _done_with(saga: SagaInstance, definition: type[Saga[Any]], key: StepKey) -> bool:
    """Whether nothing of a step is left to be undone."""
    action, undo = saga.steps[key], saga.steps.get(_undo_of(key))
    if not happened(action) or not _undoable(definition, key.step):
        return True
    if undo is None:
        return False
    patient = definition.on_compensation_failure == "continue_others" and undo.attempt > 1
    return undo.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) or patient


def _undo_of(action: StepKey) -> StepKey:
    return StepKey(action.step, Direction.COMPENSATION, action.branch)


def _begun_undos(change: Change) -> Iterator[StepRecord]:
    """Undos of steps, those of items one by one; a `ForEach` has nothing of its own to undo."""
    for before, after in change.records:
        undo = before is None and after.key.direction is Direction.COMPENSATION
        if undo and not isinstance(change.leaf(after.key), ItemsLeaf):
            yield after


def _undoable(definition: type[Saga[Any]], step: str) -> bool:
    return bool(getattr(definition.plan.leaves[step], "compensations", ()))


# -- what has come of it


def done_once(change: Change) -> Iterator[str]:
    """A participant that dedupes carries an action out once."""
    doing, sent = change.action.doing, change.action.subject
    if doing is not None and doing.fresh and doing.outcome == SUCCESS and sent.step.label in change.before.in_effect:
        leaf = change.leaf(sent.step)
        if sent.step.direction is Direction.ACTION and isinstance(leaf, CommandLeaf) and leaf.step.participant_dedupes:
            yield f"{sent.participant} has carried out {sent.wire_name} of {sent.step.step} twice"


def compensated_when_all_is_undone(change: Change) -> Iterator[str]:
    """Told by what participants did, whatever the rows say; also when something comes after the end."""
    saga = change.after.saga
    if saga.status not in UNDONE:
        return
    for action in _rows(saga, Direction.ACTION):
        name, undo = (
            action.key.label,
            saga.steps.get(_undo_of(action.key)),
        )
        if undo is not None and undo.status not in (StepStatus.SUCCEEDED, StepStatus.SKIPPED):
            yield f"the saga ended {saga.status} while the undo of {name} is {undo.status}"
        if name in change.after.in_effect and _undoable(change.saga, action.key.step) and not _let_stand(action, undo):
            yield f"the saga ended {saga.status}, but {name} has happened and is not undone"


def _let_stand(action: StepRecord, undo: StepRecord | None) -> bool:
    """Whether the author said, knowing that it had happened, that there is nothing to undo; or an operator did."""
    if undo is None:
        return False
    by_hand = undo.status is StepStatus.SKIPPED or undo.error_code == RESOLVED
    nothing = undo.command_id is None and undo.error_code == NOTHING_TO_UNDO
    known = action.status is StepStatus.SUCCEEDED
    return by_hand or (nothing and known)


def completed_when_all_is_done(change: Change) -> Iterator[str]:
    """Told by what participants did as well as by the rows."""
    saga = change.after.saga
    if saga.status is not SagaStatus.COMPLETED:
        return
    for key in _to_be_done(change):
        name, leaf, record = key.label, change.leaf(key), saga.steps.get(key)
        if record is None:
            yield f"the saga completed without {name}"
        elif record.status is StepStatus.SUCCEEDED and record.error_code != RESOLVED:
            if isinstance(leaf, CommandLeaf) and name not in change.after.in_effect:
                yield f"the saga completed, but {name} has not happened"
        elif record.status not in (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.EXPIRED):
            yield f"the saga completed while {name} is {record.status}"


def _rows(saga: SagaInstance, direction: Direction) -> Iterator[StepRecord]:
    return (record for key, record in saga.steps.items() if key.direction is direction)


def _to_be_done(change: Change) -> Iterator[StepKey]:
    """The rows that a completed saga has: one for each step, of a `ForEach` one for each item and step."""
    items = change.after.tables.items.get(SAGA_ID, ())
    for leaf in change.saga.plan.leaves.values():
        if not leaf.group:
            yield StepKey(leaf.name)
        else:
            yield from (StepKey(leaf.name, branch=item.key) for item in items if item.step == leaf.group)


def _told(sent: Sent) -> str:
    return f"attempt {sent.attempt} of {sent.wire_name} ({sent.step.step})"


def _named(record: StepRecord) -> str:
    undo = "the undo of " if record.key.direction is Direction.COMPENSATION else ""
    return f"{undo}{record.key.step}"


def at_rest(world: World) -> str:
    """What is wrong with a world in which nothing can happen any more; empty if nothing is."""
    status = world.tables.sagas[SAGA_ID].status
    if status.terminal or status is SagaStatus.BLOCKED:
        return ""
    return f"nothing can happen any more, and the saga is {status} at {world.saga.current_step or 'no step'}"


def _reachable() -> dict[SagaStatus, set[SagaStatus]]:
    """What one transaction may end at: any number of transitions."""
    reached = {status: {status} for status in SagaStatus}
    for _ in SagaStatus:
        for found in reached.values():
            found |= {after for status in found for after in TRANSITIONS[status]}
    return reached


_REACHABLE: Final = _reachable()

RULES_OF_PARTICIPANTS: Final[tuple[Rule, ...]] = (
    it_moves_on,
    done_once,
    compensated_when_all_is_undone,
    completed_when_all_is_done,
)
"""Those that may break while no row changes."""
RULES: Final[tuple[Rule, ...]] = (
    the_engine_works,
    acked_after_the_commit,
    all_or_nothing,
    one_id_for_one_attempt,
    nothing_after_the_end,
    what_is_locked_is_let_go,
    the_status_follows_the_table,
    no_hook_raises,
    it_wakes_unless_it_rests,
    an_attempt_has_a_reason,
    no_more_attempts_than_allowed,
    what_never_left_does_not_time_out,
    an_answer_is_taken,
    an_event_that_came_is_taken,
    nothing_new_while_going_back,
    undo_waits_for_do,
    undo_only_what_may_have_happened,
    no_way_back_after_the_pivot,
    undo_goes_backwards,
    *RULES_OF_PARTICIPANTS,
)
