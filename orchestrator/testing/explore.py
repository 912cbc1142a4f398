"""Try out all that may happen to a saga, within stated bounds, and check that the rules hold each time.

    def test_orders_survive_whatever_happens() -> None:
        explore(CreateOrderSaga, OrderState(order_id=ORDER, amount_cents=900))

Every order of answers, refusals, faults, late and repeated messages, timeouts, cancels, and the process killed
between any two of: loading, committing, acking, sending. The engine that is run is the one that is shipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from messaging.messages import Event
from orchestrator.definition import Saga
from orchestrator.signal_codec import ACTIONS
from orchestrator.steps import WaitForEvent
from orchestrator.testing.exploring.actions import Action
from orchestrator.testing.exploring.functions import Functions, NotExplorable
from orchestrator.testing.exploring.model import Model
from orchestrator.testing.exploring.modelled import model_of
from orchestrator.testing.exploring.participants import Answers
from orchestrator.testing.exploring.report import Report, RuleBroken
from orchestrator.testing.exploring.search import Bounds, Found, Search, endless, problem_of, stuck
from orchestrator.testing.exploring.seen import Seen, check_of
from orchestrator.testing.exploring.story import actions_of, as_test, told
from orchestrator.testing.exploring.world import Spent

__all__ = ["NotExplorable", "Report", "RuleBroken", "Seen", "explore", "replay"]

S = TypeVar("S", bound=BaseModel)

MAX_ATTEMPTS: Final = 2


def explore(
    saga: type[Saga[S]],
    state: S,
    *,
    answers: Answers | None = None,
    events: Mapping[type[WaitForEvent[Any, Any]], Event] | None = None,
    functions: Functions | None = None,
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
    """Try out everything that may happen to a saga and to those it starts, and check the rules after each step.

    Args:
        saga: the class.
        state: what it starts with. Answers and events are made up from it by the names of its fields.
        answers: all that a step's command may be answered, for steps whose answers cannot or should not be made up.
            With `Accepted` among them the command is accepted, and one of the others comes later by its reply token.
        events: what comes for a wait, if it cannot be made up.
        functions: what local steps do to the state, for those that use their session: each is tried, and may refuse.
        invariants: called with each state that is reached; one that raises, or returns False, is broken.
        operators: what operators may ask for: words of `saga COMMAND`.
        max_faults: how much may go wrong on one path, refusals aside.
        max_delays: commands of which a message, and those of later attempts with it, arrives late or never.
        max_duplicates: copies that the broker makes.
        max_crashes: how often the orchestrator is killed.
        max_retries: commands that a participant cannot handle for now, and local steps that raise.
        max_refused_undos: undos that a participant refuses.
        max_stray_events: events that come when nobody waits for them.
        max_requests: what operators ask for.
        max_refusals: commands that participants refuse.
        max_attempts: retry policies are cut to so many attempts.
        max_states: when to stop; the report says so.
        max_seconds: when to stop; the report says so.

    Raises:
        RuleBroken: with the shortest story of how, and a test that replays it.
        NotExplorable: an answer, event or function is needed that cannot be made up.
    """
    began = time.monotonic()
    most = Spent(
        delays=max_delays,
        duplicates=max_duplicates,
        crashes=max_crashes,
        retries=max_retries,
        refused_undos=max_refused_undos,
        stray_events=max_stray_events,
        requests=max_requests,
        refusals=max_refusals,
    )
    model = model_of(saga, state, answers or {}, events or {}, functions or {}, operators, max_attempts)
    checks = [check_of(saga, type(state), invariant) for invariant in invariants]
    found = Search(model, Bounds(most, max_faults, max_states, max_seconds), checks).run()
    if found.problem:
        raise _rule_broken(saga, state, model, found, _given(answers, events, functions, max_attempts), invariants)
    return _report(saga, found, most, {"max_faults": max_faults, "max_attempts": max_attempts}, began)


def replay(
    saga: type[Saga[S]],
    state: S,
    story: str,
    *,
    answers: Answers | None = None,
    events: Mapping[type[WaitForEvent[Any, Any]], Event] | None = None,
    functions: Functions | None = None,
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
    model = model_of(saga, state, answers or {}, events or {}, functions or {}, tuple(ACTIONS), max_attempts)
    checks = [check_of(saga, type(state), invariant) for invariant in invariants]
    world, way = model.begin(), list[Action]()
    for text in actions_of(story):
        action = next((one for one in model.actions(world) if one.text == text), None)
        outcome = None if action is None else model.step(world, action)
        if action is None or outcome is None:
            return text
        way.append(action)
        problem = problem_of(model, world, action, outcome, checks) or stuck(model, outcome.world)
        if problem:
            break
        world = outcome.world
    else:
        problem = endless(model, world)
    if problem:
        found, given = Found(problem=problem, way=tuple(way)), _given(answers, events, functions, max_attempts)
        raise _rule_broken(saga, state, model, found, given, invariants)
    return ""


def _report(saga: type[Saga[Any]], found: Found, most: Spent, bounds: dict[str, int], began: float) -> Report:
    return Report(
        saga=saga.__name__,
        states=found.states,
        transitions=found.transitions,
        paths=found.paths,
        ends=dict(found.ends),
        seconds=time.monotonic() - began,
        bounds=bounds | {f"max_{kind}": count for kind, count in most._asdict().items()},
        cut_off=found.cut_off,
    )


def _given(answers: Any, events: Any, functions: Any, max_attempts: int) -> dict[str, Any]:
    """The arguments that a test which replays a story has to repeat."""
    given = {"answers": answers, "events": events, "functions": functions, "max_attempts": max_attempts}
    return {name: value for name, value in given.items() if value and value != MAX_ATTEMPTS}


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
