"""The functions of local steps as they are explored: each runs as written, and then succeeds, refuses or raises.

There is no database for what they write. That one has run counts as what it wrote, in the transaction in which it ran;
one that touches its session needs somebody to say what it does to the state instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from messaging.messages import Failure
from orchestrator.instance import Direction, StepRecord
from orchestrator.local_runner import Refused
from orchestrator.plan import LocalLeaf, returned_types
from orchestrator.steps import LocalStep
from orchestrator.testing.exploring.world import Seated
from orchestrator.testing.samples import sample

Function: TypeAlias = Callable[[Any], Failure | None]
Functions: TypeAlias = Mapping[type[LocalStep[Any]], Sequence[Function]]


class NotExplorable(Exception):
    """A saga needs an answer, event or function that cannot be made up. The text says which, and how to give it."""


class SessionUsed(BaseException):
    """A function has asked something of its session. No mistake of the saga's, so nothing takes it for one."""

    def __init__(self, place: Seated, name: str) -> None:
        self.place, self.name = place, name
        super().__init__(name)


class Fault(Exception):
    """What a function is made to raise."""


@dataclass(frozen=True, slots=True)
class Ending:
    """One thing that may become of a function once it has run."""

    text: str = ""
    cost: str = ""
    error: Exception | None = None
    """What is raised at its end, instead of what it would have come to."""
    instead: Function | None = None
    """What stands in for it."""


@dataclass(frozen=True, slots=True)
class Running:
    """A function while it runs."""

    place: Seated
    ends: Ending

    @property
    def undo(self) -> bool:
        """Whether it is the one that undoes."""
        return self.place.step.direction is Direction.COMPENSATION


class StandIn:
    """What a function is given as its session."""

    def __init__(self, running: Running) -> None:
        self.explored = running

    def __getattr__(self, name: str) -> NoReturn:
        raise SessionUsed(self.explored.place, name)


def endings(leaf: LocalLeaf, record: StepRecord, given: Functions) -> Iterator[Ending]:
    """What may become of a function that is due: refusals are those that its annotation names."""
    functions = _given(leaf, given)
    if record.key.direction is Direction.COMPENSATION or not functions:
        yield Ending()
    else:
        several = len(functions) > 1
        yield from (Ending(f", as {one.__name__} does" if several else "", instead=one) for one in functions)
    if record.key.direction is Direction.ACTION and not functions:
        for failure in _refusals(leaf):
            yield Ending(f", which refuses: {failure.error_code}", "refusals", Refused(failure))
    again = record.tries > 1  # whatever raises once may go on raising
    yield Ending(", which raises", "" if again else "retries", Fault("explored"))


def stand_in(step: LocalStep[Any], given: Functions) -> None:
    """Have a copy of a step do what is given for it, and its undo nothing."""
    if any(cls.name == step.name for cls in given):
        vars(step).update(run=_run_instead, undo=_nothing)


def _given(leaf: LocalLeaf, given: Functions) -> Sequence[Function]:
    return next((functions for cls, functions in given.items() if cls.name == leaf.name), ())


async def _run_instead(state: Any, session: Any) -> Failure | None:
    instead: Function = session.explored.ends.instead or (lambda _: None)
    return instead(state)


async def _nothing(state: Any, session: Any) -> None:
    """Undo what only counts as written."""


def _refusals(leaf: LocalLeaf) -> Iterator[Failure]:
    try:
        named = returned_types(type(leaf.step).run)
    except NameError:
        return
    for cls in named:
        if issubclass(cls, Failure):
            yield Failure(reason="refused") if cls is Failure else sample(cls)
