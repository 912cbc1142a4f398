"""Sagas in words: how one stands, what it waits for, what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.instance import BlockedReason, SagaStatus
from orchestrator.words import duration

if TYPE_CHECKING:
    from orchestrator.status import SagaRow

_RETRY: Final = 'saga retry {id} --reason "..."'
_RESOLVE: Final = 'saga resolve {id} --reason "..."'
_REMEDIES: Final = {
    BlockedReason.RETRIES_EXHAUSTED: f"bring the participant back, then: {_RETRY}",
    BlockedReason.PIVOT_UNKNOWN: f"bring the participant back; asking again with the same key is safe: {_RETRY}",
    BlockedReason.COMPENSATION_FAILED: f"see to it that the undo can succeed, then: {_RETRY}; "
    f"or undo it by hand, then: {_RESOLVE}",
    BlockedReason.CODE_ERROR: f"mend the saga's code, deploy it, then: {_RETRY}",
    BlockedReason.NEEDS_VERSION: "start an engine that has this version of the saga: saga run ...",
    BlockedReason.CHILD_ABANDONED: f"settle by hand what the child left, then: {_RETRY}",
}


def how_it_stands(row: SagaRow) -> str:
    """One line on a saga: its id, its status, and why if it went wrong or waits."""
    saga = f"saga {row.saga_id}"
    if row.status is SagaStatus.BLOCKED:
        return f"{saga} is blocked: {blocked_because(row)}"
    if row.status is SagaStatus.COMPLETED:
        return f"{saga} completed in {duration(age(row))}"
    if row.status.terminal:
        return f"{saga} is {row.status.value} after {duration(age(row))}: {first_cause(row) or 'no cause is kept'}"
    waiting = f", waiting for {row.waiting_for}" if row.waiting_for else ""
    return f"{saga} is {row.status.value}{waiting}"


def first_cause(row: SagaRow) -> str:
    """What made it turn back first, or what blocks it; empty if nothing did."""
    if not (row.failed_step or row.error_code):
        return ""
    what = ": ".join(part for part in (row.error_code, row.error_text) if part)
    return f"{row.failed_step or 'the saga'}: {what}" if what else str(row.failed_step)


def blocked_because(row: SagaRow) -> str:
    """The reason and the step."""
    reason = row.blocked_reason or "for an unknown reason"
    return f"{reason} at {row.blocked_step}" if row.blocked_step else reason


def remedy(row: SagaRow) -> str:
    """What is safe to do about a blocked saga; empty for others."""
    if row.status is not SagaStatus.BLOCKED or row.blocked_reason is None:
        return ""
    return _REMEDIES[BlockedReason(row.blocked_reason)].format(id=row.saga_id)


def age(row: SagaRow) -> timedelta:
    """How long it took, or has taken so far."""
    return (row.ended_at or datetime.now(UTC)) - row.started_at
