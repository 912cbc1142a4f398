"""What would follow if a saga was asked for something now: the core is asked, and nothing is written or sent. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.definition import Saga
from orchestrator.errors import HookRaised
from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepRecord
from orchestrator.signals import ActionRequested, Decision
from orchestrator.transitions import decide


@dataclass(frozen=True, slots=True)
class Simulated:
    """What an action would do at once; what comes later depends on answers."""

    before: SagaStatus
    after: SagaStatus
    at: str
    """The steps something would be awaited from."""
    refused: str
    """Why it would be refused; empty if it would not be."""
    effects: tuple[str, ...]
    """What would be sent, published, begun and ended, a line each."""


def simulated(saga: Saga[Any], instance: SagaInstance, asked: ActionRequested, *, now: datetime) -> Simulated:
    """Ask the core what it would decide. The saga's hooks run; a hook that raises is a refusal that says so."""
    try:
        decision = decide(saga, instance, asked, now=now)
    except HookRaised as error:
        return Simulated(instance.status, instance.status, instance.current_step, str(error), ())
    after = decision.instance
    effects = () if decision.refused else tuple(_effects(instance, decision))
    return Simulated(instance.status, after.status, after.current_step, decision.refused, effects)


def _effects(before: SagaInstance, decision: Decision) -> Iterator[str]:
    for key in dict.fromkeys((*decision.changed, *decision.added)):
        record = decision.steps[key]
        yield from _of_step(before.steps.get(key), record)
    for child in decision.children:
        yield f"start a saga {child.pin.name}"
    for told in decision.tells:
        yield f"tell saga {told.saga_id}: {type(told.incoming).__name__}"
    for event in decision.events:
        yield f"publish {type(event).wire_name}"
    if decision.instance.paused_at is not None and before.paused_at is None:
        yield "nothing is sent until it is resumed"


def _of_step(before: StepRecord | None, record: StepRecord) -> Iterator[str]:
    undo = "the undo of " if record.key.direction is Direction.COMPENSATION else ""
    step = f"{undo}{record.key.step}" + (f"[{record.key.branch}]" if record.key.branch else "")
    anew = before is None or (before.command_id, before.send_after) != (record.command_id, record.send_after)
    if record.status.open and record.send_after is not None and anew:
        yield f"send {record.wire_name} to {record.participant} ({step}, attempt {record.attempt})"
    elif record.status.open and before is None:
        yield f"begin {step}"
    elif not record.status.open and (before is None or before.status is not record.status):
        yield f"count {step} as {record.status.value}"
