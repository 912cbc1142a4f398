"""Whatever comes in whatever order, the rules hold and every saga ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.messages import Command, Event, Reply
from orchestrator import (
    Delay,
    ForEach,
    ItemStep,
    LocalStep,
    Parallel,
    Retry,
    Saga,
    Sequence,
    Step,
    SubSaga,
    WaitForEvent,
)
from tests.unit.orchestrator.walk import START, Walk

MINUTE = timedelta(minutes=1)
TWICE = Retry(max_attempts=2, backoff=timedelta(seconds=5))


class State(BaseModel):
    replies: int = 0


class Ok(Reply):
    pass


class Do(Command[Ok]):
    step: str


class Undo(Command[Ok]):
    step: str


class Told(Event):
    pass


class Forward(Step[State, Ok]):
    participant = "anybody"
    retry = TWICE
    compensation_retry = TWICE
    nothing_to_undo = True

    def command(self, state: State) -> Do:
        return Do(step=self.name)

    def on_reply(self, state: State, reply: Ok) -> None:
        state.replies += 1


class Undoable(Forward):
    nothing_to_undo = False

    def compensation(self, state: State) -> Undo:
        return Undo(step=self.name)


class Seldom(Undoable):
    def when(self, state: State) -> bool:
        return state.replies % 2 == 0


class Wait(WaitForEvent[State, Told]):
    timeout = 3 * MINUTE


def a(name: str, base: Any = Undoable, **settings: Any) -> Any:
    """An instance of a step with this name."""
    return type(name, (base,), settings)()


class InSequence(Saga[State]):
    steps = (a("A"), a("B"), a("C", Seldom), a("D", Forward), a("E"))


class InGroups(Saga[State]):
    steps = (
        a("A"),
        Parallel(Sequence(a("B"), a("C")), Sequence(a("D", Seldom), Parallel(a("E"), a("F"))), a("G")),
        a("H"),
    )


class WithWaits(Saga[State]):
    steps = (
        a("A"),
        Parallel(a("W1", Wait), Sequence(a("B"), a("W2", Wait, on_timeout="continue"))),
        a("W3", Wait, timeout=None),
        a("W4", Wait, on_timeout="block"),
        a("C"),
    )
    deadline = 60 * MINUTE


class Pause(Delay[State]):
    def until(self, state: State) -> timedelta:
        return MINUTE * state.replies


class Dated(Delay[State]):
    def until(self, state: State) -> datetime:
        return START + 3 * MINUTE


class WithDelays(Saga[State]):
    steps = (
        a("A"),
        Parallel(a("D1", Pause), Sequence(a("B"), a("D2", Dated), a("C"))),
        a("D3", Pause),
        a("P", Forward, pivot=True),
        a("D4", Pause),
        a("R", Forward, retriable=True),
    )
    deadline = 30 * MINUTE


class Local(LocalStep[State]):
    retry = TWICE
    compensation_retry = TWICE
    nothing_to_undo = True

    async def run(self, state: State, session: AsyncSession) -> None:
        raise NotImplementedError

    def when(self, state: State) -> bool:
        return state.replies % 4 != 3


class LocalUndoable(Local):
    nothing_to_undo = False

    async def undo(self, state: State, session: AsyncSession) -> None:
        raise NotImplementedError


class WithLocals(Saga[State]):
    steps = (
        a("L1", LocalUndoable),
        Parallel(a("L2", LocalUndoable, on_exhausted="block"), Sequence(a("A"), a("L3", Local), a("B"))),
        a("L4", LocalUndoable),
        a("P", Local, pivot=True),
        Parallel(a("L5", Local, retriable=True), a("R", Forward, retriable=True)),
    )
    deadline = 30 * MINUTE


class ForwardOne(ItemStep[State, int, Ok]):
    participant = "anybody"
    retry = TWICE
    compensation_retry = TWICE
    nothing_to_undo = True

    def when(self, state: State, item: int) -> bool:
        return item % 4 != 3

    def command(self, state: State, item: int) -> Do:
        return Do(step=f"{self.name} {item}")

    def on_reply(self, state: State, item: int, reply: Ok) -> None:
        state.replies += 1


class UndoableOne(ForwardOne):
    nothing_to_undo = False

    def compensation(self, state: State, item: int) -> Undo | None:
        return Undo(step=f"{self.name} {item}")


class Each(ForEach[State, int]):
    concurrency = 2
    compensation_concurrency = 2

    def items(self, state: State) -> range:
        return range(5)

    def item_key(self, item: int) -> str:
        return f"/{item}"


class WithItems(Saga[State]):
    steps = (
        a("A"),
        a("I", Each, steps=(a("J", UndoableOne), Parallel(a("K", ForwardOne), a("L", UndoableOne)))),
        Parallel(
            a("M", Each, concurrency=3, steps=(a("N", UndoableOne, on_exhausted="block"),)), a("B"), settle_all=True
        ),
    )


class WithItemsAfterThePivot(Saga[State]):
    steps = (
        a("I", Each, compensation_concurrency=1, steps=(a("J", UndoableOne),)),
        a("P", Forward, pivot=True),
        Parallel(a("K", Each, steps=(a("L", ForwardOne, retriable=True),)), a("R", Forward, retriable=True)),
    )
    on_compensation_failure = "continue_others"
    deadline = 15 * MINUTE


class Small(Saga[State]):
    steps = (a("A"),)


class Child(SubSaga[State, State]):
    saga = Small
    timeout = 2 * MINUTE

    def child_state(self, state: State) -> State:
        return State()

    def on_completed(self, state: State, child: State) -> None:
        state.replies += 1


class WithChildren(Saga[State]):
    steps = (
        a("A"),
        Parallel(a("C1", Child), Sequence(a("B"), a("C2", Child, timeout=None)), settle_all=True),
        a("C3", Child),
        a("P", Forward, pivot=True),
        a("C4", Child, retriable=True),
    )
    deadline = 15 * MINUTE


class SettlingAll(Saga[State]):
    steps = (
        a("A"),
        Parallel(
            Sequence(a("B"), a("W", Wait), a("C", Seldom)),
            Parallel(a("D"), Sequence(a("E"), a("F", Seldom)), settle_all=True),
            a("G"),
            settle_all=True,
        ),
        a("H"),
    )


class WithPivot(Saga[State]):
    steps = (
        a("A"),
        Parallel(a("B"), a("C")),
        a("P", Forward, pivot=True),
        Parallel(a("R1", Forward, retriable=True), Sequence(a("R2", Forward, retriable=True), a("W", Wait))),
        a("R3", Forward, retriable=True),
    )
    deadline = 15 * MINUTE


class Locked(Undoable):
    lock_timeout = 4 * MINUTE

    def locks(self, state: State) -> list[str]:
        return [self.name, "shared"] if state.replies % 3 else [self.name]


class WithLocks(Saga[State]):
    steps = (
        a("A", Locked),
        Parallel(a("B", Locked), Sequence(a("C"), a("D", Locked)), settle_all=True),
        a("P", Locked, pivot=True, compensation=Forward.compensation),
        a("R", Forward, retriable=True),
    )
    deadline = 30 * MINUTE


class ContinuingOthers(Saga[State]):
    steps = (a("A"), Parallel(Sequence(a("B"), a("C")), a("D")), a("E"))
    on_compensation_failure = "continue_others"


class Blocking(Saga[State]):
    steps = (
        Parallel(a("A", on_exhausted="block"), Sequence(a("B", on_exhausted="block"), a("C"))),
        Parallel(a("D", participant_dedupes=False), a("E", on_exhausted="block", participant_dedupes=False)),
    )


SHAPES = [InSequence, InGroups, WithWaits, WithDelays, SettlingAll, WithPivot, WithLocks, ContinuingOthers, Blocking]
EACH = 400
"""Thirty times as many, and longer ones, in the torture."""
OF_MORE_ROWS = [WithLocals, WithItems, WithItemsAfterThePivot, WithChildren]
"""Slower: each has fewer walks, and as many in the torture."""
WALKS = st.binary(min_size=8, max_size=48)


def walk(shape: type[Saga[State]], choices: bytes) -> Walk:
    walked = Walk(shape(), "{}")
    walked.go(choices)
    return walked


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=EACH, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=WALKS)
def test_whatever_comes_in_whatever_order_the_rules_hold(shape: type[Saga[State]], choices: bytes) -> None:
    walk(shape, choices)


@pytest.mark.parametrize("shape", OF_MORE_ROWS)
@settings(max_examples=EACH // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=WALKS)
def test_with_items_children_and_functions_they_hold_as_well(shape: type[Saga[State]], choices: bytes) -> None:
    walk(shape, choices)


@pytest.mark.torture
@pytest.mark.parametrize("shape", [*SHAPES, *OF_MORE_ROWS])
@settings(max_examples=30 * EACH, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(min_size=8, max_size=160))
def test_on_longer_walks_too(shape: type[Saga[State]], choices: bytes) -> None:
    walk(shape, choices)
