"""The sagas of one exploration, one inside the other: each has a seat, the way to it from the first.

The seat of the first is empty. That of a child is the seat of its parent with the step that started it, and which
child of that step it is from the second on: `BringingMeal`, `BringingMeal#2`, `BringingMeal>Riding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from orchestrator.definition import Saga
from orchestrator.ids import child_id
from orchestrator.instance import Direction, SagaInstance, StepKey
from orchestrator.plan import ChildLeaf

FIRST: Final = ""
_INSIDE, _WHICH = ">", "#"
_MOST_CHILDREN: Final = 50
STRAY: Final = 0
"""Which child of its step one is whose id says nothing."""


class Family:
    """The definitions that may take part, by their seats."""

    def __init__(self, first: type[Saga[Any]]) -> None:
        self._definitions = dict(_below(FIRST, first))
        self.seats = tuple(self._definitions)

    def definition(self, seat: str) -> type[Saga[Any]]:
        """What is run at a seat, or by a later child of the same step."""
        known = self._definitions.get(seat)
        return known or self._definitions[bare(seat)]

    def __iter__(self) -> Iterator[tuple[str, type[Saga[Any]]]]:
        return iter(self._definitions.items())


def _below(seat: str, saga: type[Saga[Any]]) -> Iterator[tuple[str, type[Saga[Any]]]]:
    yield seat, saga
    for leaf in saga.plan.leaves.values():
        if isinstance(leaf, ChildLeaf):
            yield from _below(seat_of_child(seat, leaf.name, 1), leaf.step.saga)


def bare(seat: str) -> str:
    """A seat whichever child has it."""
    return _INSIDE.join(part.partition(_WHICH)[0] for part in seat.split(_INSIDE))


def is_later(seat: str) -> bool:
    """Whether somebody sat there before."""
    return _WHICH in seat


def seat_of_child(parent: str, step: str, round_: int) -> str:
    """The seat of the child that a step has in this round."""
    which = "" if round_ == 1 else f"{_WHICH}{round_}"
    return f"{parent}{_INSIDE if parent else ''}{step}{which}"


def seated(sagas: Mapping[UUID, SagaInstance]) -> dict[str, SagaInstance]:
    """All sagas by their seats, in order."""
    if len(sagas) == 1:
        return dict.fromkeys((FIRST,), next(iter(sagas.values())))
    return dict(sorted((_seat(saga, sagas), saga) for saga in sagas.values()))


def _seat(saga: SagaInstance, sagas: Mapping[UUID, SagaInstance]) -> str:
    parent = saga.parent
    if parent is None:
        return FIRST
    round_ = round_of(saga.id, parent.id, parent.step)
    seat = seat_of_child(_seat(sagas[parent.id], sagas), parent.step, round_)
    return seat if round_ != STRAY else f"{seat}{saga.id.hex}"


@lru_cache(maxsize=10_000)
def round_of(child: UUID, parent: UUID, step: str) -> int:
    """Which child of a step one is, from 1; `STRAY` if its id is not derived from its attempt."""
    key = StepKey.labelled(step, Direction.ACTION)
    return next((one for one in range(1, _MOST_CHILDREN) if child_id(parent, key, one) == child), STRAY)


def label_at(seat: str, key: StepKey) -> str:
    """A step of one of the sagas in one word; of the first one its own label."""
    return f"{seat}:{key.label}" if seat else key.label
