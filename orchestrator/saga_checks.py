"""The rules a saga must keep beside those of its steps, checked when its class is created."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel

from orchestrator.plan import EventStart, type_arguments
from orchestrator.searchable import searchable_fields
from orchestrator.step_checks import check_durations, check_hooks, check_name, check_word, refuse
from orchestrator.steps import StartOnEvent

if TYPE_CHECKING:
    from orchestrator.definition import Saga

_SAGA_HOOKS: Final = ("on_completed", "on_compensated")
_START_HOOKS: Final = ("event_key", "state")


def named(saga: type[Saga[Any]]) -> str:
    """How errors call a saga: by its name, and by that of its class."""
    return f"saga {saga.name!r} ({saga.__name__})"


def state_type_of(saga: type[Saga[Any]], base: type[Saga[Any]]) -> type[BaseModel]:
    """Read the state out of the base `Saga[OrderState]`.

    Raises:
        SagaDefinitionError: it is not there, or no pydantic model.
    """
    arguments = type_arguments(saga, base)
    if not arguments or not issubclass(arguments[0], BaseModel):
        refuse(
            named(saga),
            f"does not say its state. Write class {saga.__name__}(Saga[State]), State being a pydantic model",
        )
    state: type[BaseModel] = arguments[0]
    return state


def check_saga(saga: type[Saga[Any]]) -> None:
    """Check what can be seen without looking at the steps.

    Raises:
        SagaDefinitionError: the class contradicts itself.
    """
    where = named(saga)
    check_name(where, saga.name, "has an unusable name")
    if not isinstance(steps_of(saga), tuple):
        refuse(where, "has steps that are no tuple. Write steps = (FirstStep(), ...), with a comma even after one")
    check_hooks(where, saga, _SAGA_HOOKS)
    check_durations(where, saga, "deadline", "alarm_after", optional=True)
    check_word(where, saga, "on_compensation_failure", ("block", "continue_others"))
    if not isinstance(cast("object", saga.keep_states), bool):
        refuse(where, f"has keep_states = {saga.keep_states!r}. Write True or False")


def steps_of(saga: Any) -> Iterable[object]:
    """What the author listed, be it steps or not."""
    steps: Iterable[object] = saga.steps
    return steps


def searchable(state: type[BaseModel]) -> tuple[str, ...]:
    """Fields of the state that sagas can be found by.

    Raises:
        SagaDefinitionError: what is marked cannot be searched.
    """
    try:
        return searchable_fields(state)
    except ValueError as error:
        refuse(f"state {state.__name__}", str(error))


def starts_of(saga: Any) -> tuple[EventStart, ...]:
    """What the author listed of events that start the saga.

    Raises:
        SagaDefinitionError: one is none, works on another state, or is listed twice.
    """
    where = named(saga)
    listed: tuple[Any, ...] = saga.starts_on
    if type(listed) is not tuple:
        refuse(where, "has starts_on that is no tuple. Write starts_on = (TheStart(),), with a comma even after one")
    starts = tuple(_start_of(where, one, saga.state_type) for one in listed)
    names = [start.event.wire_name for start in starts]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        refuse(where, f"starts on event {twice!r} twice. One event starts one saga: remove one of the two")
    return starts


def _start_of(where: str, start: Any, state: type[BaseModel]) -> EventStart:
    if isinstance(start, type):
        refuse(where, f"lists the class {start.__name__} in starts_on. List an instance: {start.__name__}()")
    if StartOnEvent not in type(start).__mro__:
        refuse(where, f"lists {start!r} in starts_on, which is no StartOnEvent")
    cls: type[Any] = start.__class__
    arguments = type_arguments(cls, StartOnEvent)
    if not arguments:
        form = f"{cls.__name__}(StartOnEvent[{state.__name__}, Event])"
        refuse(cls.__name__, f"does not say its types. Write class {form}")
    if not issubclass(arguments[0], state):
        refuse(cls.__name__, f"makes {arguments[0].__name__}, but the state of {where} is {state.__name__}")
    check_hooks(cls.__name__, cls, _START_HOOKS)
    return EventStart(start, arguments[1])
