"""A saga with its policies cut short, so that their ends are reached within few faults."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from messaging.retry import Retry
from orchestrator.definition import ForEach, Node, Saga

S = TypeVar("S", bound=BaseModel)


def shortened(saga: type[Saga[S]], max_attempts: int) -> type[Saga[S]]:
    """The same saga, every policy of which allows at most so many attempts."""
    steps = tuple(_cut(step, max_attempts) for step in saga().steps)
    body = {"steps": steps, "name": saga.name, "__module__": saga.__module__, "__qualname__": saga.__qualname__}
    return type(saga.__name__, (saga,), body)


def _cut(node: Node[Any], most: int) -> Node[Any]:
    """A copy of a step or a group, with copies of all that is in it."""
    cut = copy.copy(node)
    held: dict[str, Any] = vars(node)
    for name, value in held.items():
        setattr(cut, name, _cut_value(value, most))
    if isinstance(node, ForEach):
        setattr(cut, "steps", _cut_value(node.steps, most))  # noqa: B010 - said on the class, like the policies
    for policy in ("retry", "compensation_retry"):
        if isinstance(getattr(cut, policy, None), Retry):
            setattr(cut, policy, _policy(getattr(cut, policy), most))  # on this copy alone
    return cut


def _cut_value(value: Any, most: int) -> Any:
    if isinstance(value, Node):
        return _cut(value, most)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, tuple):
        return tuple(_cut_value(item, most) for item in value)  # pyright: ignore[reportUnknownVariableType]
    return value


def _policy(policy: Retry, most: int) -> Retry:
    return replace(policy, max_attempts=most if policy.max_attempts is None else min(policy.max_attempts, most))
