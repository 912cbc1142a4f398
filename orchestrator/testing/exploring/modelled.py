"""From a saga's class to the model that is explored: what is not modelled is refused, what is not given is made up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from messaging.messages import Event, Failure, Reply
from orchestrator.definition import Leaf, Saga, Step, WaitForEvent
from orchestrator.plan import CommandLeaf, DelayLeaf, EventLeaf, ItemsLeaf
from orchestrator.testing.exploring.model import Model
from orchestrator.testing.exploring.participants import Participants
from orchestrator.testing.exploring.shorten import shortened
from orchestrator.testing.samples import NoSample, sample

S = TypeVar("S", bound=BaseModel)


class NotExplorable(Exception):
    """A saga has what is not modelled, or needs an answer or event that cannot be made up. The text says which."""


def model_of(
    saga: type[Saga[S]],
    state: S,
    answers: Mapping[type[Step[S, Any]], Sequence[Reply | Failure]],
    events: Mapping[type[WaitForEvent[S, Any]], Event],
    operators: Collection[str],
    max_attempts: int,
) -> Model:
    """A saga with everything around it, its policies cut to so many attempts.

    Raises:
        NotExplorable: a step is of a kind that is not modelled, or an answer or event cannot be made up.
    """
    for leaf in saga.plan.leaves.values():
        if not isinstance(leaf, (CommandLeaf, EventLeaf, DelayLeaf, ItemsLeaf)):
            kinds = (cls.__name__ for cls in type(leaf.step).__mro__ if cls.__module__ == Leaf.__module__)
            raise NotExplorable(f"{leaf.name} of {saga.__name__} is a {next(kinds)}, which is not modelled yet")
    short = shortened(saga, max_attempts)
    try:
        participants = Participants(short(), state, answers)
        to_come = {wait.name: _event(saga, wait, state, events) for wait in saga.plan.waits()}
    except NoSample as error:
        remedy = "Give it: explore(..., answers={Step: [Reply(...)]}, events={Wait: Event(...)})"
        raise NotExplorable(f"{error}. {remedy}") from None
    return Model(short, state, participants, to_come, frozenset(operators))


def _event(saga: type[Saga[Any]], wait: EventLeaf, state: BaseModel, given: Mapping[Any, Event]) -> Event:
    """What will come for a wait; made up so that its key is the one awaited, if the state says it from the start."""
    for cls, event in given.items():
        if cls.name == wait.name:
            return event
    event = sample(wait.event, state)
    awaited, key = wait.step.awaited_key(state.model_copy(deep=True)), wait.step.event_key(event)
    if awaited is not None and key != awaited:
        raise NoSample(f"{wait.name} of {saga.__name__} awaits the key {awaited!r}; that of {event!r} is {key!r}")
    return event
