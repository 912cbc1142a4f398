"""What the engine finds when it looks at the database, and how long it would wait if it finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from orchestrator.instance import CHILD, SagaInstance, SagaStatus, StepStatus
from orchestrator.signal_codec import ACTIONS
from orchestrator.testing.exploring.actions import Kind
from orchestrator.testing.exploring.world import World


def looks(world: World) -> Iterator[Kind]:
    """What the engine's next look at the database will find. Time does not pass before it has looked."""
    sagas, tables, now = world.sagas.values(), world.tables, world.now
    if any(saga.wake_at is not None and saga.wake_at <= now for saga in sagas):
        yield Kind.WAKE
    pending = [kept.signal for kept in tables.signals.values() if kept.pending]
    if any(tables.sagas[one.saga_id].paused_at is None or one.kind in ACTIONS for one in pending):
        yield Kind.SIGNALS
    if any(not row.held for row in tables.locks.values()):
        yield Kind.LOCKS
    if any(instant <= now for saga in sagas for instant in _sends(saga)):
        yield Kind.RESEND
    kept = {(one.event.wire_name, one.event.key) for one in tables.events.values() if one.consumed_by is None}
    if kept and any(kept & _waits(saga) for saga in sagas):
        yield Kind.SWEEP


def next_due(world: World) -> datetime | None:
    """When the engine has something to do again by itself; None if never."""
    instants = [instant for saga in world.sagas.values() for instant in _sends(saga)]
    instants += [
        saga.wake_at for saga in world.sagas.values() if saga.wake_at is not None and not waits_for_children(saga)
    ]
    return min(instants, default=None)


def waits_for_children(saga: SagaInstance) -> bool:
    """Whether a saga has nothing to wait for but the ends of children, without limit; it looks again, in vain."""
    if saga.status.terminal or (saga.deadline is not None and saga.status is SagaStatus.RUNNING):
        return False
    waits = [record for record in saga.steps.values() if record.status.open]
    return bool(waits) and all(record.wire_name == CHILD and record.deadline is None for record in waits)


def askable(status: SagaStatus, *, paused: bool) -> frozenset[str]:
    """What makes sense to ask of such a saga."""
    if status.terminal:
        return frozenset()
    stuck = {"retry", "skip", "resolve"} if status is SagaStatus.BLOCKED else set[str]()
    return frozenset({"cancel", "compensate", "abandon", "resume" if paused else "pause", *stuck})


def _sends(saga: SagaInstance) -> list[datetime]:
    if saga.paused_at is not None or saga.status.terminal:
        return []
    return [record.send_after for record in saga.steps.values() if record.send_after is not None]


def _waits(saga: SagaInstance) -> set[tuple[str, str]]:
    if saga.paused_at is not None or saga.status.terminal:
        return set()
    return {(r.wire_name, r.awaited_key) for r in saga.steps.values() if r.status is StepStatus.WAITING}
