"""Try out all that may happen to a saga, within stated bounds, and check that the rules hold each time.

    def test_orders_survive_whatever_happens() -> None:
        explore(CreateOrderSaga, OrderState(order_id=ORDER, amount_cents=900))

Every order of answers, refusals, faults, late and repeated messages, timeouts, cancels, and the process killed
between any two of: loading, committing, acking, sending. The engine that is run is the one that is shipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from messaging.messages import Command, Event, Failure, Reply
from orchestrator.definition import Leaf, Saga, Step, WaitForEvent
from orchestrator.instance import BlockedReason, SagaStatus, StepKey, StepStatus
from orchestrator.plan import CommandLeaf, DelayLeaf, EventLeaf
from orchestrator.signal_codec import ACTIONS
from orchestrator.testing.exploring.model import Model
from orchestrator.testing.exploring.participants import Participants
from orchestrator.testing.exploring.rules import Change, at_rest, broken
from orchestrator.testing.exploring.search import Bounds, Check, Found, Search
from orchestrator.testing.exploring.shorten import shortened
from orchestrator.testing.exploring.story import actions_of, as_test, told
from orchestrator.testing.exploring.world import Spent, World
from orchestrator.testing.samples import NoSample, sample

S = TypeVar("S", bound=BaseModel)

MAX_ATTEMPTS: Final = 2


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

    def step_status(self, step: type[Leaf[S]]) -> StepStatus | None:
        """Where a step is; None if it has not begun."""
        record = self._world.saga.steps.get(StepKey(step.name))
        return None if record is None else record.status

    def in_effect(self, step: type[Step[S, Any]]) -> bool:
        """Whether the participant has carried the step's command out, and not undone it."""
        return step.name in self._world.in_effect

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


class RuleBroken(AssertionError):
    """A rule does not hold. The text is the shortest story of how, and a test that replays it.

    Attributes:
        rule: what is broken, in words.
        story: the way there, an action a line.
        test: source of a test.
    """

    def __init__(self, saga: str, rule: str, story: str, test: str) -> None:
        self.rule, self.story, self.test = rule, story, test
        super().__init__(
            f"{saga}: {rule}\n\nThe shortest way there:\n\n{story}\n\nAs a test, to be kept until it passes:\n\n{test}"
        )


class NotExplorable(Exception):
    """A saga has what is not modelled, or needs an answer or event that cannot be made up. The text says which."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an exploration has seen, without any rule broken. Print it."""

    saga: str
    states: int
    """Different worlds: the saga with all messages under way and all that participants did."""
    transitions: int
    paths: int
    """Different ways from the start; one that comes to where more was tried already ends there."""
    ends: Mapping[str, int]
    """Worlds in which nothing more can happen, by the saga's status there."""
    seconds: float
    bounds: Mapping[str, int | float]
    cut_off: str = ""
    """Which bound ended the search before all was seen; empty if none did."""

    @property
    def complete(self) -> bool:
        """Whether everything within the bounds was seen."""
        return not self.cut_off

    def __str__(self) -> str:
        seen = "everything within the bounds was seen"
        if self.cut_off:
            seen = f"CUT OFF by {self.cut_off}: not all was seen"
        ends = ", ".join(f"{status} {count}" for status, count in sorted(self.ends.items()))
        bounds = ", ".join(f"{name}={value}" for name, value in self.bounds.items())
        return (
            f"{self.saga}: {self.states} states, {self.transitions} transitions, {self.paths} paths "
            f"in {self.seconds:.1f} s; {seen}\n  ends: {ends}\n  bounds: {bounds}"
        )


def explore(
    saga: type[Saga[S]],
    state: S,
    *,
    answers: Mapping[type[Step[S, Any]], Sequence[Reply | Failure]] | None = None,
    events: Mapping[type[WaitForEvent[S, Any]], Event] | None = None,
    invariants: Sequence[Callable[[Seen[S]], object]] = (),
    operators: Collection[str] = ("cancel", "retry"),
    max_faults: int = 1,
    max_delays: int = 2,
    max_duplicates: int = 1,
    max_crashes: int = 1,
    max_retries: int = 1,
    max_refused_undos: int = 1,
    max_stray_events: int = 1,
    max_requests: int = 1,
    max_refusals: int = 2,
    max_attempts: int = MAX_ATTEMPTS,
    max_states: int = 200_000,
    max_seconds: float = 60.0,
) -> Report:
    """Try out everything that may happen to a saga, and check the rules after each step.

    Args:
        saga: the class.
        state: what it starts with. Answers and events are made up from it by the names of its fields.
        answers: all that a step's command may be answered, for steps whose answers cannot or should not be made up.
        events: what comes for a wait, if it cannot be made up.
        invariants: called with each state that is reached; one that raises, or returns False, is broken.
        operators: what operators may ask for: words of `saga COMMAND`.
        max_faults: how much may go wrong on one path, refusals aside.
        max_delays: commands of which a message, and those of later attempts with it, arrives late or never.
        max_duplicates: copies that the broker makes.
        max_crashes: how often the orchestrator is killed.
        max_retries: commands that a participant cannot handle for now.
        max_refused_undos: undos that a participant refuses.
        max_stray_events: events that come when nobody waits for them.
        max_requests: what operators ask for.
        max_refusals: commands that participants refuse.
        max_attempts: retry policies are cut to so many attempts.
        max_states: when to stop; the report says so.
        max_seconds: when to stop; the report says so.

    Raises:
        RuleBroken: with the shortest story of how, and a test that replays it.
        NotExplorable: a step is of a kind that is not modelled, or an answer or event cannot be made up.
    """
    began = time.monotonic()
    most = Spent(
        max_delays,
        max_duplicates,
        max_crashes,
        max_retries,
        max_refused_undos,
        max_stray_events,
        max_requests,
        max_refusals,
    )
    model, short = _model(saga, state, answers or {}, events or {}, operators, max_attempts)
    checks = [_check(saga, type(state), invariant) for invariant in invariants]
    found = Search(short, model, Bounds(most, max_faults, max_states, max_seconds), checks).run()
    if found.problem:
        arguments = _arguments(answers=answers, events=events, max_attempts=max_attempts)
        raise _rule_broken(saga, state, model, found, arguments, invariants)
    bounds = {"max_faults": max_faults, "max_attempts": max_attempts}
    bounds |= {f"max_{kind}": count for kind, count in most._asdict().items()}
    seconds = time.monotonic() - began
    return Report(
        saga.__name__, found.states, found.transitions, found.paths, dict(found.ends), seconds, bounds, found.cut_off
    )


def replay(
    saga: type[Saga[S]],
    state: S,
    story: str,
    *,
    answers: Mapping[type[Step[S, Any]], Sequence[Reply | Failure]] | None = None,
    events: Mapping[type[WaitForEvent[S, Any]], Event] | None = None,
    invariants: Sequence[Callable[[Seen[S]], object]] = (),
    max_attempts: int = MAX_ATTEMPTS,
) -> str:
    """Walk a story again that `explore` told.

    Returns:
        Where the saga now takes another course: the first line that cannot happen any more, which is usual once
        the code is mended; empty if all of it happened and no rule is broken.

    Raises:
        RuleBroken: it still ends as it did.
    """
    model, short = _model(saga, state, answers or {}, events or {}, tuple(ACTIONS), max_attempts)
    checks = [_check(saga, type(state), invariant) for invariant in invariants]
    world, way = model.begin(), list[Any]()
    for text in actions_of(story):
        action = next((one for one in model.actions(world) if one.text == text), None)
        outcome = None if action is None else model.step(world, action)
        if action is None or outcome is None:
            return text
        way.append(action)
        problem = broken(Change(short, world, action, outcome))
        problem = problem or next((told for check in checks if (told := check(outcome.world))), "")
        world = outcome.world
        if not problem and not any(not one.cost for one in model.actions(world)):
            problem = at_rest(short, world)
        if problem:
            found = Found(problem=problem, way=tuple(way))
            raise _rule_broken(saga, state, model, found, _arguments(answers=answers, events=events), invariants)
    return ""


def _model(
    saga: type[Saga[S]],
    state: S,
    answers: Mapping[type[Step[S, Any]], Sequence[Reply | Failure]],
    events: Mapping[type[WaitForEvent[S, Any]], Event],
    operators: Collection[str],
    max_attempts: int,
) -> tuple[Model, type[Saga[S]]]:
    for leaf in saga.plan.leaves.values():
        if not isinstance(leaf, (CommandLeaf, EventLeaf, DelayLeaf)):
            kinds = (cls.__name__ for cls in type(leaf.step).__mro__ if cls.__module__ == Leaf.__module__)
            raise NotExplorable(f"{leaf.name} of {saga.__name__} is a {next(kinds)}, which is not modelled yet")
    short = shortened(saga, max_attempts)
    try:
        participants = Participants(short(), state, answers)
        to_come = {wait.name: _event(saga, wait, state, events) for wait in saga.plan.waits()}
    except NoSample as error:
        remedy = "Give it: explore(..., answers={Step: [Reply(...)]}, events={Wait: Event(...)})"
        raise NotExplorable(f"{error}. {remedy}") from None
    return Model(short, state, participants, to_come, frozenset(operators)), short


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


def _check(saga: type[Saga[S]], states: type[S], invariant: Callable[[Seen[S]], object]) -> Check:
    def check(world: World) -> str:
        name = getattr(invariant, "__name__", repr(invariant))
        try:
            holds = invariant(Seen(saga, states, world))
        except AssertionError as error:
            return f"{name} does not hold: {error}" if str(error) else f"{name} does not hold"
        return f"{name} does not hold" if holds is False else ""

    return check


def _arguments(**given: Any) -> dict[str, Any]:
    if given.get("max_attempts") == MAX_ATTEMPTS:
        del given["max_attempts"]
    return {name: value for name, value in given.items() if value}


def _rule_broken(
    saga: type[Saga[S]],
    state: S,
    model: Model,
    found: Found,
    arguments: Mapping[str, Any],
    invariants: Sequence[Callable[..., object]],
) -> RuleBroken:
    lines = list(told(model, found.way))
    test = as_test(saga, state, lines, arguments, invariants)
    return RuleBroken(saga.__name__, found.problem, "\n".join(lines), test)
