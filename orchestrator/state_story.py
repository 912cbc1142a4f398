"""How a saga's state became what it is: what each step changed, without what its definition marks as secret.

Kept only where the definition says so (`Saga.keep_states`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from orchestrator.definition import Saga
from orchestrator.differences import Difference, differences
from orchestrator.instance import Direction, StepKey
from orchestrator.payloads import HIDDEN, Payloads, payloads_of, shown_state
from orchestrator.recorded import Recorded
from orchestrator.redacted import Redaction
from orchestrator.registry import SagaRegistry
from orchestrator.signals import STARTED
from orchestrator.views import StateRow


@dataclass(frozen=True, slots=True)
class StateStep:
    """A state that a saga has had, and what was changed to come to it.

    `changes` is None where what was before is not kept, or cannot be shown; then `state` may be None as well.
    """

    revision: int
    position: int
    at: datetime
    version: int
    step: str
    direction: Direction
    branch: str
    cause: str
    """The hook that changed it, such as `on_reply`; `start`; `upgrade`."""
    changes: Sequence[Difference] | None
    state: Any

    @property
    def label(self) -> str:
        """Step and item in one word; empty at the start and for an upgrade."""
        return StepKey(self.step, self.direction, self.branch).label


@dataclass(frozen=True, slots=True)
class StateStory:
    """The states that were read, in order; `note` tells what is missing and how to have it, or is empty."""

    steps: Sequence[StateStep]
    note: str = ""


def state_story(recorded: Recorded, registry: SagaRegistry | None) -> tuple[Payloads, StateStory]:
    """What may be shown of a saga, and of the states that were read of it.

    Args:
        recorded: with states; what the first of them changed is not known, unless it is what the saga began with.
        registry: has its definition, or not.
    """
    redaction = Redaction()
    payloads = payloads_of(recorded, registry, redaction)
    saga = None if registry is None else registry.find(recorded.pin)
    if registry is None or saga is None:
        return payloads, StateStory((), HIDDEN)
    steps = list(_steps(recorded, registry, redaction))
    return payloads, StateStory(steps, _note(saga, recorded.states))


def _steps(recorded: Recorded, registry: SagaRegistry, redaction: Redaction) -> Iterator[StateStep]:
    texts = [shown_state(registry, recorded, row.version, row.state, redaction) for row in recorded.states]
    values = [None if text is None else json.loads(text) for text in texts]
    for row, (before, after) in zip(recorded.states, pairwise([None, *values]), strict=True):
        known = before is not None and after is not None
        yield StateStep(
            row.revision,
            row.position,
            row.at,
            row.version,
            row.step,
            Direction(row.direction),
            row.branch,
            row.cause,
            differences(before, after) if known else None,
            after,
        )


def _note(saga: Saga[Any], rows: Sequence[StateRow]) -> str:
    name = type(saga).__name__
    if not rows and not saga.keep_states:
        return (
            f"What the state was between the steps is not kept. Set keep_states = True on {name}: sagas then keep "
            "what they begin with and what each step changes. No new version is needed."
        )
    if not rows:
        return f"Nothing has changed since {name} has keep_states = True, which this saga was started before."
    if rows[0].cause != STARTED:
        return f"This saga was started before {name} had keep_states = True: what came before is not known."
    return ""
