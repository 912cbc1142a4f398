"""From a saga's class to the model that is explored: what is not given is made up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from messaging.messages import Event
from orchestrator.definition import Saga
from orchestrator.plan import ChildLeaf, EventLeaf
from orchestrator.steps import WaitForEvent
from orchestrator.testing.exploring.choices import Surroundings
from orchestrator.testing.exploring.family import FIRST, Family, seat_of_child
from orchestrator.testing.exploring.functions import Functions, NotExplorable
from orchestrator.testing.exploring.model import Model
from orchestrator.testing.exploring.participants import Answers, Participants
from orchestrator.testing.exploring.shorten import shortened
from orchestrator.testing.samples import NoSample, sample

S = TypeVar("S", bound=BaseModel)


def model_of(
    saga: type[Saga[S]],
    state: S,
    answers: Answers,
    events: Mapping[type[WaitForEvent[Any, Any]], Event],
    functions: Functions,
    operators: Collection[str],
    max_attempts: int,
) -> Model:
    """A saga with everything around it, its policies cut to so many attempts.

    Raises:
        NotExplorable: an answer or event cannot be made up.
    """
    short = shortened(saga, max_attempts, functions)
    family = Family(short)
    try:
        states = dict(_states(FIRST, short, state))
        participants = Participants(family, states, answers)
        to_come = {
            (seat, wait.name): _event(definition, wait, states[seat], events)
            for seat, definition in family
            for wait in definition.plan.waits()
        }
    except NoSample as error:
        remedy = "Give it: explore(..., answers={Step: [Reply(...)]}, events={Wait: Event(...)})"
        raise NotExplorable(f"{error}. {remedy}") from None
    return Model(short, state, Surroundings(participants, to_come, functions, frozenset(operators)))


def _states(seat: str, saga: type[Saga[Any]], state: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    """What each saga may start with, as far as that can be said before the way there: for samples alone."""
    yield seat, state
    for leaf in saga.plan.leaves.values():
        if isinstance(leaf, ChildLeaf):
            yield from _states(seat_of_child(seat, leaf.name, 1), leaf.step.saga, _state_of_child(leaf, state))


def _state_of_child(leaf: ChildLeaf, state: BaseModel) -> BaseModel:
    try:
        child: BaseModel = leaf.step.child_state(state.model_copy(deep=True))
    except Exception:  # noqa: BLE001 - it may need what steps before it set
        return sample(leaf.step.saga.state_type, state)
    return child


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
