"""What becomes of sagas whose definition is not at hand: transitions that need none, and touch no state. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.definition import Saga
from orchestrator.draft import Draft
from orchestrator.instance import BlockedReason, SagaInstance, SagaStatus
from orchestrator.signals import Decision, Note


def due(instance: SagaInstance, now: datetime) -> Decision | None:
    """Have a saga looked at, since something is kept for it; None where it rests, or is due already."""
    if instance.wake_at is None or instance.wake_at <= now:
        return None
    return Decision(replace(instance, wake_at=now))


def needing_version(instance: SagaInstance, now: datetime) -> Decision:
    """Block a saga since nobody can decide for it: one that goes forward or back, or a child that is ordered back."""
    pin = instance.pin
    blocked = replace(
        instance,
        status=SagaStatus.BLOCKED,
        blocked_reason=BlockedReason.NEEDS_VERSION,
        blocked_step="",
        blocked_from=instance.status,
        blocked_at=now,
        wake_at=None,
        updated_at=now,
        ended_at=None,
    )
    text = f"{BlockedReason.NEEDS_VERSION.value}: no engine that runs has {pin.name} v{pin.version} ({pin.fingerprint})"
    return Decision(blocked, notes=(Note("blocked", text),))


def lifted(saga: Saga[Any], instance: SagaInstance, now: datetime) -> Decision:
    """Let a saga go on that was blocked for want of this definition; deadlines move by the time it stood still."""
    draft = Draft(saga, instance, now)
    draft.unblock()
    draft.wake_now = True
    draft.note("unblocked", f"an engine runs that has {instance.pin.name} v{instance.pin.version}")
    return draft.decision()
