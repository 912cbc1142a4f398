"""Breadth-first through all worlds: the first rule that breaks is told by the shortest way there."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import le
from typing import Any, TypeAlias

from orchestrator.definition import Saga
from orchestrator.testing.exploring.model import Action, Model
from orchestrator.testing.exploring.rules import Change, at_rest, broken
from orchestrator.testing.exploring.world import Spent, World

Check: TypeAlias = Callable[[World], str]
Place: TypeAlias = tuple[bytes, Spent]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may go wrong on one way, and when to stop looking."""

    most: Spent
    faults: int
    states: int
    seconds: float

    def allow(self, spent: Spent, cost: str) -> bool:
        """Whether one more of this kind may happen."""
        if not cost:
            return True
        is_fault = cost != "refusals"
        return getattr(spent, cost) < getattr(self.most, cost) and (spent.faults < self.faults or not is_fault)


@dataclass(slots=True)
class Found:
    """What a search saw."""

    states: int = 0
    transitions: int = 0
    ends: Counter[str] = field(default_factory=Counter[str])
    """Worlds in which nothing can happen any more, by how the saga ended."""
    paths: int = 0
    cut_off: str = ""
    problem: str = ""
    way: tuple[Action, ...] = ()
    """To where the problem is."""


class Search:
    """One search. Worlds that are equal are looked at once."""

    def __init__(self, saga: type[Saga[Any]], model: Model, bounds: Bounds, checks: Sequence[Check]) -> None:
        self._saga, self._model, self._bounds, self._checks = saga, model, bounds, checks
        self._came_by: dict[Place, tuple[Place, Action]] = {}
        self._next: dict[Place, list[Place]] = {}
        self._seen: dict[bytes, list[Spent]] = {}
        self.found = Found()

    def run(self) -> Found:
        """Look at every world within the bounds, or up to the first problem."""
        until = time.monotonic() + self._bounds.seconds
        first = self._model.begin()
        waiting = deque([first]) if self._is_new(first) else deque[World]()
        while waiting and not self.found.problem:
            if len(self._next) > self._bounds.states:
                self.found.cut_off = f"max_states={self._bounds.states}"
                break
            if time.monotonic() > until:
                self.found.cut_off = f"max_seconds={self._bounds.seconds:g}"
                break
            waiting.extend(self._look_at(waiting.popleft()))
        self.found.states = len(self._next)
        if not self.found.problem:
            self.found.paths = self._count_paths((first.identity, first.spent))
        return self.found

    def _is_new(self, world: World) -> bool:
        """Whether no equal world was seen from which at least as much may still go wrong; takes it in."""
        seen = self._seen.setdefault(world.identity, [])
        if any(all(map(le, spent, world.spent)) for spent in seen):
            return False
        seen.append(world.spent)
        self._next[world.identity, world.spent] = []
        return True

    def _look_at(self, world: World) -> Iterator[World]:
        found, place = self.found, (world.identity, world.spent)
        successors = self._next[place]
        ended = True
        for action in self._model.actions(world):
            if not self._bounds.allow(world.spent, action.cost):
                continue
            outcome = self._model.step(world, action)
            if outcome is None:
                continue
            ended = ended and bool(action.cost)
            found.transitions += 1
            after = outcome.world
            problem = broken(Change(self._saga, world, action, outcome)) or self._checked(after)
            if problem:
                found.problem, found.way = problem, (*self._way_to(place), action)
                return
            successors.append((after.identity, after.spent))
            if self._is_new(after):
                self._came_by[after.identity, after.spent] = place, action
                yield after
        if ended:
            self._ended(world)

    def _checked(self, world: World) -> str:
        return next((problem for check in self._checks if (problem := check(world))), "")

    def _ended(self, world: World) -> None:
        problem = at_rest(self._saga, world)
        if problem:
            self.found.problem, self.found.way = problem, self._way_to((world.identity, world.spent))
        saga = world.saga
        self.found.ends[f"{saga.status}: {saga.blocked_reason}" if saga.blocked_reason else str(saga.status)] += 1

    def _way_to(self, place: Place) -> tuple[Action, ...]:
        way: list[Action] = []
        while place in self._came_by:
            place, action = self._came_by[place]
            way.append(action)
        return tuple(reversed(way))

    def _count_paths(self, first: Place) -> int:
        """How many ways there are from the beginning to an end, or to a world from which more was tried already."""
        counts: dict[Place, int] = {}
        stack = [first]
        while stack:
            place = stack[-1]
            following = self._next.get(place, [])
            open_ones = [one for one in following if one not in counts]
            if open_ones:
                stack.extend(open_ones)
            else:
                stack.pop()
                counts[place] = sum(counts[one] for one in following) or 1
        return counts[first]
