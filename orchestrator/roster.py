"""Where a `ForEach` is, in a few words kept with its row, so that nobody needs to read all its items' rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from orchestrator.instance import ITEMS, Item, SagaInstance, StepRecord


@dataclass(frozen=True, slots=True)
class Roster:
    """Of a group that goes forward: items before `position` have begun, `out` are those of them not yet done.

    Of one that is undone: items from `position` on have been looked at, `out` are those of them not yet undone.
    """

    steps: tuple[str, ...]
    """The names of the steps that each item has."""
    size: int
    position: int
    ahead: int
    """How many items may begin at once: so many are read in advance."""
    out: tuple[str, ...] = ()
    excepted: bool = False
    """Whether an operator skipped some undo."""
    back: bool = False

    @classmethod
    def of(cls, record: StepRecord) -> Roster:
        """Read the one of a row."""
        fields: dict[str, Any] = json.loads(record.memo)
        fields.update(steps=tuple(fields["steps"]), out=tuple(fields["out"]))
        return cls(**fields)

    @property
    def memo(self) -> str:
        """As the row keeps it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, separators=(",", ":"))

    @property
    def exhausted(self) -> bool:
        """Whether no item is left that has not begun."""
        return self.position == (0 if self.back else self.size)

    @property
    def upcoming(self) -> range:
        """The positions that may begin next, in that order."""
        if self.back:
            return range(self.position - 1, max(self.position - self.ahead, 0) - 1, -1)
        return range(self.position, min(self.position + self.ahead, self.size))

    def without(self, done: Iterable[str]) -> Roster:
        """The same, but these are over."""
        over = set(done)
        return replace(self, out=tuple(key for key in self.out if key not in over))

    def with_next(self, key: str) -> Roster:
        """The same, but the next item, which has this key, has begun."""
        return replace(self, position=self.position + (-1 if self.back else 1), out=(*self.out, key))


class Wanted(NamedTuple):
    """Which items of a `ForEach` a decision may need, and the steps they have."""

    step: str
    steps: tuple[str, ...]
    keys: tuple[str, ...]
    positions: tuple[int, ...]


def wanted(records: Iterable[StepRecord]) -> list[Wanted]:
    """What to load beside the rows that are no item's: items that are under way, or next."""
    found: list[Wanted] = []
    for record in records:
        if record.memo and record.wire_name == ITEMS:
            roster = Roster.of(record)
            positions = tuple(roster.upcoming) if record.status.open else ()
            if roster.out or positions:
                found.append(Wanted(record.key.step, roster.steps, roster.out, positions))
    return found


def at_hand(saga: SagaInstance, items: Iterable[Item]) -> SagaInstance:
    """A saga with those of all its rows and items that a store loads."""
    near = {
        (item.step, item.key): item
        for one in wanted(saga.steps.values())
        for item in items
        if item.step == one.step and (item.key in one.keys or item.position in one.positions)
    }
    if not items and not near:
        return saga
    steps = {one.step: one.steps for one in wanted(saga.steps.values())}
    rows = {(step, item.key) for item in near.values() for step in steps[item.step]}
    records = {key: row for key, row in saga.steps.items() if not key.branch or (key.step, key.branch) in rows}
    return replace(saga, steps=records, items=near)
