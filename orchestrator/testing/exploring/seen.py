"""What invariants of a saga's author are shown, and how they are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel

from messaging.messages import Command
from orchestrator.definition import Saga
from orchestrator.instance import BlockedReason, SagaStatus, StepKey, StepStatus
from orchestrator.plan import CommandLeaf
from orchestrator.steps import ItemStep, Leaf, LocalStep, Step, SubSaga
from orchestrator.testing.exploring.family import FIRST, label_at
from orchestrator.testing.exploring.search import Check
from orchestrator.testing.exploring.world import World

S = TypeVar("S", bound=BaseModel)
C = TypeVar("C", bound=BaseModel)

Does: TypeAlias = Step[S, Any] | ItemStep[S, Any, Any] | LocalStep[S]
AnyStep: TypeAlias = Leaf[S] | ItemStep[S, Any, Any]


class Seen(Generic[S]):
    """A saga at one moment of an exploration, as an invariant of one's own sees it."""

    def __init__(self, saga: type[Saga[S]], states: type[S], world: World, seat: str = FIRST) -> None:
        self._saga, self._states, self._world, self._seat = saga, states, world, seat
        self._row = world.sagas[seat]

    @property
    def state(self) -> S:
        """The state as committed."""
        return self._states.model_validate_json(self._row.state)

    @property
    def status(self) -> SagaStatus:
        """Where the saga is."""
        return self._row.status

    @property
    def blocked_reason(self) -> BlockedReason | None:
        """Why it needs an operator."""
        return self._row.blocked_reason

    def step_status(self, step: type[AnyStep[S]], *, item: str = "") -> StepStatus | None:
        """Where a step is, of an item with this key; None if it has not begun."""
        record = self._row.steps.get(StepKey(step.name, branch=item))
        return None if record is None else record.status

    def in_effect(self, step: type[Does[S]], *, item: str = "") -> bool:
        """Whether the participant has carried the step's command out, for an item with this key, and not undone it.

        Of a local step, whether its function has run and is not undone; of a command that was accepted, whether its
        reply token was redeemed for a success which counts.
        """
        return label_at(self._seat, StepKey(step.name, branch=item)) in self._world.happened

    def children(self, step: type[SubSaga[S, C]]) -> list[Seen[C]]:
        """The sagas that a step has started so far, in no particular order."""
        states: type[Any] = step.saga.state_type
        rows = self._world.sagas.items()
        mine = [
            seat for seat, row in rows if row.parent and (row.parent.id, row.parent.step) == (self._row.id, step.name)
        ]
        return [Seen(step.saga, states, self._world, seat) for seat in mine]

    @property
    def sent(self) -> list[Command[Any]]:
        """All commands that it has sent so far, each attempt once, in no particular order."""
        leaves = self._saga.plan.leaves
        commands: list[Command[Any]] = []
        for sent in sorted(sent for sent in self._world.sent if sent.seat == self._seat):
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
