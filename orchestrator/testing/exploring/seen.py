"""What invariants of a saga's author are shown, and how they are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel

from messaging.messages import Command
from orchestrator.definition import ItemStep, Leaf, Saga, Step
from orchestrator.instance import BlockedReason, SagaStatus, StepKey, StepStatus
from orchestrator.plan import CommandLeaf
from orchestrator.testing.exploring.search import Check
from orchestrator.testing.exploring.world import World

S = TypeVar("S", bound=BaseModel)

Sends: TypeAlias = Step[S, Any] | ItemStep[S, Any, Any]
AnyStep: TypeAlias = Leaf[S] | ItemStep[S, Any, Any]


class Seen(Generic[S]):
    """A saga at one moment of an exploration, as an invariant of one's own sees it."""

    def __init__(self, saga: type[Saga[S]], states: type[S], world: World) -> None:
        self._saga, self._states, self._world = saga, states, world

    @property
    def state(self) -> S:
        """The state as committed."""
        return self._states.model_validate_json(self._world.saga.state)

    @property
    def status(self) -> SagaStatus:
        """Where the saga is."""
        return self._world.saga.status

    @property
    def blocked_reason(self) -> BlockedReason | None:
        """Why it needs an operator."""
        return self._world.saga.blocked_reason

    def step_status(self, step: type[AnyStep[S]], *, item: str = "") -> StepStatus | None:
        """Where a step is, of an item with this key; None if it has not begun."""
        record = self._world.saga.steps.get(StepKey(step.name, branch=item))
        return None if record is None else record.status

    def in_effect(self, step: type[Sends[S]], *, item: str = "") -> bool:
        """Whether the participant has carried the step's command out, for an item with this key, and not undone it."""
        return StepKey(step.name, branch=item).label in self._world.in_effect

    @property
    def sent(self) -> list[Command[Any]]:
        """All commands that have left so far, each attempt once, in no particular order."""
        leaves = self._saga.plan.leaves
        commands: list[Command[Any]] = []
        for sent in sorted(self._world.sent):
            leaf = leaves[sent.step.step]
            assert isinstance(leaf, CommandLeaf)
            commands.append(leaf.command_type(sent.wire_name).model_validate_json(sent.body))
        return commands


def check_of(saga: type[Saga[S]], states: type[S], invariant: Callable[[Seen[S]], object]) -> Check:
    """Ask an invariant about each world: empty if it holds, else how it does not."""

    def check(world: World) -> str:
        name = getattr(invariant, "__name__", repr(invariant))
        try:
            holds = invariant(Seen(saga, states, world))
        except AssertionError as error:
            return f"{name} does not hold: {error}" if str(error) else f"{name} does not hold"
        return f"{name} does not hold" if holds is False else ""

    return check
