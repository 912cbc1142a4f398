"""State and messages of a saga as they may be shown: without what its definition marks as secret.

Only the definition says what is secret. Where this process does not have it, nothing of them is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from orchestrator.definition import Saga
from orchestrator.instance import Direction, StepStatus
from orchestrator.plan import CommandLeaf, EventLeaf
from orchestrator.recorded import Recorded, RecordedStep
from orchestrator.redacted import Redaction
from orchestrator.registry import SagaRegistry

HIDDEN: Final = (
    "Only the definition says what is secret in state and messages, and it is not known here. "
    "Start with --app MODULE:ATTRIBUTE, or set ORCHESTRATOR_APP, to see them."
)


@dataclass(frozen=True, slots=True)
class Message:
    """What was sent for a step, and what came back, as JSON text; None where there is nothing."""

    step: str
    direction: Direction
    branch: str
    status: StepStatus
    type: str
    sent: str | None
    received: str | None


@dataclass(frozen=True, slots=True)
class Payloads:
    """State and messages; `hidden` says why there are none."""

    state: str | None
    messages: Sequence[Message]
    hidden: str = ""


def payloads_of(recorded: Recorded, registry: SagaRegistry | None, redaction: Redaction | None = None) -> Payloads:
    """Show what may be shown.

    Args:
        recorded: all that is stored of the saga.
        registry: has its definition, or not.
        redaction: knows all its secrets afterwards.
    """
    saga = None if registry is None else registry.find(recorded.pin)
    if registry is None or saga is None:
        return Payloads(None, (), HIDDEN)
    redaction = redaction or Redaction()
    _all_of(redaction, saga, recorded)  # from then on every secret is known, also where it stands in another field
    for row in recorded.states:
        shown_state(registry, recorded, row.version, row.state, redaction)
    return _all_of(redaction, saga, recorded)


def _all_of(redaction: Redaction, saga: Saga[Any], recorded: Recorded) -> Payloads:
    state = _shown(redaction, saga.state_type, recorded.state)
    return Payloads(state, [_message(redaction, saga, step) for step in recorded.steps])


def shown_state(
    registry: SagaRegistry, recorded: Recorded, version: int, state: str, redaction: Redaction
) -> str | None:
    """A state that a saga has had, as JSON text without secrets; None where its version is not known here."""
    pin = recorded.pin
    saga = registry.find(pin) if version == pin.version else registry.version(pin.name, version)
    return None if saga is None else _shown(redaction, saga.state_type, state)


def _message(redaction: Redaction, saga: Saga[Any], step: RecordedStep) -> Message:
    leaf = saga.plan.leaves.get(step.step)
    sent = received = None
    if isinstance(leaf, CommandLeaf):
        command = leaf.command_type(step.wire_name)
        sent = _shown(redaction, command, step.body)
        received = _shown(redaction, _reply_type(leaf, command, step), step.reply)
    elif isinstance(leaf, EventLeaf):
        received = _shown(redaction, leaf.event, step.reply)
    return Message(step.step, step.direction, step.branch, step.status, step.wire_name, sent, received)


def _reply_type(leaf: CommandLeaf, command: Any, step: RecordedStep) -> type[BaseModel]:
    if step.status is StepStatus.REFUSED:
        failure: type[BaseModel] = command.failure_type(step.error_code)
        return failure
    reply: type[BaseModel] = leaf.reply if step.direction is Direction.ACTION else command.reply_type
    return reply


def _shown(redaction: Redaction, cls: type[BaseModel], body: str | None) -> str | None:
    return None if body is None else json.dumps(json.loads(redaction.text(cls, body)), ensure_ascii=False, indent=2)
