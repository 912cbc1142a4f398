"""Breadth-first through all worlds: the first rule that breaks is told by the shortest way there."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import ge, sub
from typing import Final, TypeAlias

from orchestrator.testing.exploring.actions import Action, Outcome
from orchestrator.testing.exploring.model import Model
from orchestrator.testing.exploring.rules import at_rest, broken, ending
from orchestrator.testing.exploring.world import Spent, World

Check: TypeAlias = Callable[[World], str]
Left: TypeAlias = tuple[int, ...]
Place: TypeAlias = tuple[bytes, Left]
"""A world, and how much may yet go wrong in it."""

FOR_EVER: Final = "from here it goes on for ever, though nothing goes wrong any more"
_MOST_LOOKED_AT: Final = 10_000
_DUPLICATES: Final = Spent._fields.index("duplicates")


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

    def left(self, spent: Spent) -> Left:
        """How much of each kind may yet happen: whoever has no fault left is alike, whatever went wrong before."""
        *faults, refusals = map(sub, self.most, spent)
        any_kind = self.faults - spent.faults
        return *(min(left, any_kind) for left in faults), refusals


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


def problem_of(model: Model, before: World, action: Action, outcome: Outcome, checks: Sequence[Check]) -> str:
    """The first rule, or check of the author's own, that does not hold after an action; empty if all do."""
    problem = broken(model.family, before, action, outcome)
    return problem or next((problem for check in checks if (problem := check(outcome.world))), "")


def stuck(model: Model, world: World) -> str:
    """What is wrong with a world in which nothing happens by itself any more; empty if that is as it should be."""
    return "" if any(not action.cost for action in model.actions(world)) else at_rest(world)


def endless(model: Model, world: World) -> str:
    """What is wrong with a world from which no end is reached by what happens by itself; empty if one is."""
    seen, waiting = {world.identity}, [world]
    while waiting and len(seen) < _MOST_LOOKED_AT:
        one = waiting.pop()
        steps = [model.step(one, action) for action in model.actions(one) if not action.cost]
        if not steps:
            return ""
        new = [step.world for step in steps if step and step.world.identity not in seen]
        seen.update(world.identity for world in new)
        waiting += new
    return "" if waiting else FOR_EVER


class Search:
    """One search. Worlds that are equal are looked at once."""

    def __init__(self, model: Model, bounds: Bounds, checks: Sequence[Check]) -> None:
        self._model, self._bounds, self._checks = model, bounds, checks
        self._came_by: dict[Place, tuple[Place, Action]] = {}
        self._next: dict[Place, list[Place]] = {}
        self._by_itself: dict[Place, list[Place]] = {}
        """Where each leads if nothing goes wrong any more, nor anybody refuses or asks for anything."""
        self._seen: dict[bytes, list[Left]] = {}
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
        if not self.found.problem and not self.found.cut_off:
            self._check_that_all_end()
        if not self.found.problem:
            self.found.paths = self._count_paths(self._place(first))
        return self.found

    def _is_new(self, world: World) -> bool:
        """Whether no equal world was seen from which at least as much may still go wrong; takes it in."""
        identity, left = self._place(world)
        seen = self._seen.setdefault(identity, [])
        if any(all(map(ge, earlier, left)) for earlier in seen):
            return False
        seen.append(left)
        self._next[identity, left] = []
        return True

    def _place(self, world: World) -> Place:
        left = self._bounds.left(world.spent)
        return world.identity if left[_DUPLICATES] else world.identity_without_copies, left

    def _look_at(self, world: World) -> Iterator[World]:
        found, place = self.found, self._place(world)
        successors = self._next[place]
        by_itself = self._by_itself[place] = []
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
            problem = problem_of(self._model, world, action, outcome, self._checks)
            if problem:
                found.problem, found.way = problem, (*self._way_to(place), action)
                return
            successors.append(self._place(after))
            if not action.cost:
                by_itself.append(successors[-1])
            if self._is_new(after):
                self._came_by[self._place(after)] = place, action
                yield after
        if ended:
            self._ended(world)

    def _ended(self, world: World) -> None:
        problem = at_rest(world)
        if problem:
            self.found.problem, self.found.way = problem, self._way_to(self._place(world))
        self.found.ends[ending(world)] += 1

    def _check_that_all_end(self) -> None:
        """From every world an end is reached by what happens by itself; what was seen with more left ends there."""
        came_from: dict[Place, list[Place]] = {}
        for place, following in self._by_itself.items():
            for one in following:
                came_from.setdefault(one, []).append(place)
        reached = {place for place, following in self._by_itself.items() if not following}
        reached |= {one for one in came_from if one not in self._by_itself}
        waiting = list(reached)
        while waiting:
            more = [one for one in came_from.get(waiting.pop(), ()) if one not in reached]
            reached.update(more)
            waiting.extend(more)
        endless = next((place for place in self._by_itself if place not in reached), None)
        if endless is not None:
            self.found.problem, self.found.way = FOR_EVER, self._way_to(endless)

    def _way_to(self, place: Place) -> tuple[Action, ...]:
        way: list[Action] = []
        while place in self._came_by:
            place, action = self._came_by[place]
            way.append(action)
        return tuple(reversed(way))

    def _count_paths(self, first: Place) -> int:
        """How many ways there are from the beginning to an end, or to a world from which more was tried already."""
        counts: dict[Place, int] = {}
        entered: set[Place] = set()
        stack = [first]
        while stack:
            place = stack[-1]
            following = self._next.get(place, [])
            open_ones = [one for one in following if one not in counts and one not in entered]
            entered.add(place)
            if open_ones:
                stack.extend(open_ones)
            else:
                stack.pop()
                counts[place] = sum(counts.get(one, 0) for one in following) or 1
        return counts[first]
