"""A saga, and those it starts, as they are explored: policies cut short, so that their ends are reached; stand-ins."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from messaging.retry import Retry
from orchestrator.definition import Saga
from orchestrator.steps import ForEach, LocalStep, Node, SubSaga
from orchestrator.testing.exploring.functions import Functions, stand_in

S = TypeVar("S", bound=BaseModel)


def shortened(saga: type[Saga[S]], max_attempts: int, functions: Functions) -> type[Saga[S]]:
    """The same saga, every policy of which, and of those it starts, allows at most so many attempts.

    Args:
        saga: the class.
        max_attempts: how many.
        functions: what local steps do instead of what they say.
    """
    return _Shortening(max_attempts, functions).of(saga)


class _Shortening:
    """Each definition once, however many steps start it."""

    def __init__(self, most: int, functions: Functions) -> None:
        self._most, self._functions = most, functions
        self._done: dict[type[Saga[Any]], type[Saga[Any]]] = {}

    def of(self, saga: type[Saga[Any]]) -> type[Saga[Any]]:
        """A subclass in all but name."""
        if saga not in self._done:
            steps = tuple(self._cut(step) for step in saga().steps)
            body = {"steps": steps, "name": saga.name, "__module__": saga.__module__, "__qualname__": saga.__qualname__}
            self._done[saga] = type(saga.__name__, (saga,), body)
        return self._done[saga]

    def _cut(self, node: Node[Any]) -> Node[Any]:
        """A copy of a step or a group, with copies of all that is in it."""
        cut = copy.copy(node)
        held = vars(cut)  # of this copy alone, also what is said on the class
        held.update((name, self._cut_value(value)) for name, value in list(held.items()))
        if isinstance(node, ForEach):
            held["steps"] = self._cut_value(node.steps)
        if isinstance(node, SubSaga):
            held["saga"] = self.of(node.saga)
        if isinstance(cut, LocalStep):
            stand_in(cut, self._functions)
        for policy in ("retry", "compensation_retry"):
            if isinstance(getattr(cut, policy, None), Retry):
                held[policy] = _policy(getattr(cut, policy), self._most)
        return cut

    def _cut_value(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self._cut(value)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, tuple):
            return tuple(self._cut_value(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
        return value


def _policy(policy: Retry, most: int) -> Retry:
    return replace(policy, max_attempts=most if policy.max_attempts is None else min(policy.max_attempts, most))
