"""What the engine owes its database and its broker, and the status of a saga."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.draft import TRANSITIONS
from orchestrator.instance import LOCKS, BlockedReason, Direction, SagaStatus
from orchestrator.testing.exploring.actions import Kind
from orchestrator.testing.exploring.rules.change import Change, named, told
from orchestrator.testing.exploring.world import SAGA_ID, Sent


def the_engine_works(change: Change) -> Iterator[str]:
    """It neither raises nor gives a message up."""
    yield from change.outcome.problems


def acked_after_the_commit(change: Change) -> Iterator[str]:
    """Nothing is settled before its effect is committed."""
    if change.outcome.acked_too_early:
        yield "a message was acked before its effect was committed: killed in between, it is lost"


def all_or_nothing(change: Change) -> Iterator[str]:
    """A transaction that did not commit leaves nothing behind, and nothing of it leaves."""
    if change.outcome.committed or change.action.kind in (Kind.DO, Kind.ASK, Kind.TOKEN, Kind.TAKEN):
        return
    for sent in change.outcome.sent:
        yield f"{told(sent)} was sent without a commit"
    if change.after.tables != change.before.tables:
        yield "rows were written although their transaction was not committed"


def one_id_for_one_attempt(change: Change) -> Iterator[str]:
    """A re-sent attempt is the same message; all attempts of a round are one order with one key."""
    for sent in change.outcome.sent:
        for other in (*change.before.sent, *change.outcome.sent):
            attempt = (sent.seat, sent.step, sent.attempt)
            if (other.seat, other.step, other.attempt) == attempt and other.message_id != sent.message_id:
                yield f"{told(sent)} left under two message ids"
            if other.message_id == sent.message_id and (other.seat, other.step, other.attempt) != attempt:
                yield f"{told(sent)} and attempt {other.attempt} of {other.step.step} have one message id"
            if (other.seat, other.step, other.round) == (sent.seat, sent.step, sent.round):
                yield from _one_order(sent, other)


def _one_order(sent: Sent, other: Sent) -> Iterator[str]:
    """All attempts of a round are one and the same order."""
    if sent.idempotency_key != other.idempotency_key:
        yield f"{told(sent)} has another idempotency key than attempt {other.attempt}: it would be done twice"
    if sent.body != other.body:
        yield f"{told(sent)} has another body than attempt {other.attempt}"


def it_moves_on(change: Change) -> Iterator[str]:
    """Whatever happens makes a difference: nothing goes on for ever."""
    if change.after.under_way == change.before.under_way and change.after == change.before:
        yield "this changes nothing, so that it would go on for ever"


# -- of each saga


def nothing_after_the_end(change: Change) -> Iterator[str]:
    """An ended saga sends nothing and awaits nothing."""
    saga = change.now
    if change.was.status.terminal and saga.status.terminal:
        for sent in change.sent:
            yield f"{told(sent)} was sent after the saga had ended {change.was.status}"
    for record in saga.steps.values():
        if saga.status.terminal and (record.status.open or record.send_after is not None):
            yield f"the saga ended {saga.status}, and {named(record)} is still {record.status}"


def what_is_locked_is_let_go(change: Change) -> Iterator[str]:
    """A step sends only what it holds the locks for; an ended saga holds none, a child until the first has ended."""
    saga, root = change.now, change.after.tables.sagas[SAGA_ID]
    rows = [row for row in change.after.tables.locks.values() if row.saga_id == saga.id]
    for row in rows if saga.status.terminal and root.status.terminal else ():
        yield f"the saga ended {saga.status}, and {row.step} still has {row.resource}"
    asked = {row.step for row in rows if not row.held}
    for record in saga.steps.values():
        if record.key.direction is Direction.ACTION and record.key.step in asked and record.wire_name != LOCKS:
            yield f"{named(record)} was begun without its locks"


def the_status_follows_the_table(change: Change) -> Iterator[str]:
    """From each status only those that the table allows; blocked with a reason."""
    before, after = change.was, change.now
    if after.status not in _REACHABLE[before.status]:
        yield f"the saga went from {before.status} to {after.status}"
    if (after.status is SagaStatus.BLOCKED) != (after.blocked_reason is not None):
        yield f"the saga is {after.status} with the reason {after.blocked_reason}"


def no_hook_raises(change: Change) -> Iterator[str]:
    """The author's code copes with whatever comes."""
    saga = change.now
    if saga.blocked_reason is BlockedReason.CODE_ERROR and change.was.blocked_reason is not saga.blocked_reason:
        notes = [note.text for _, note in change.after.tables.history.values() if note.kind == "code_error"]
        yield f"the definition raised: {notes[-1] if notes else saga.blocked_step}"


def it_wakes_unless_it_rests(change: Change) -> Iterator[str]:
    """A saga wakes up, or is terminal, paused or blocked; and once it has been looked at it waits for something."""
    saga = change.now
    resting = saga.status.terminal or saga.status is SagaStatus.BLOCKED or saga.paused_at is not None
    if (saga.wake_at is None) != resting:
        yield f"the saga is {saga.status} and wakes at {saga.wake_at}"
    looked_at = change.action.kind is Kind.WAKE and not change.action.kill_at and saga is not change.was
    if looked_at and not resting and not any(record.status.open for record in saga.steps.values()):
        yield f"the saga is {saga.status} and waits for nothing"


def _reachable() -> dict[SagaStatus, set[SagaStatus]]:
    """What one transaction may end at: any number of transitions."""
    reached = {status: {status} for status in SagaStatus}
    for _ in SagaStatus:
        for found in reached.values():
            found |= {after for status in found for after in TRANSITIONS[status]}
    return reached


_REACHABLE: Final = _reachable()
