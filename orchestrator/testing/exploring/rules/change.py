"""One action as the rules see it: for one of the sagas, with the worlds before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

from orchestrator.definition import Saga
from orchestrator.instance import RESOLVED, SKIPPED, Direction, SagaInstance, StepKey, StepRecord
from orchestrator.plan import Branch, CommandLeaf, ItemsLeaf, LeafPlan
from orchestrator.signal_codec import ACTIONS, signal_from_row
from orchestrator.signals import CompleteRequested, ReplyReceived
from orchestrator.testing.exploring.actions import Action, Kind, Outcome
from orchestrator.testing.exploring.family import FIRST, Family, label_at
from orchestrator.testing.exploring.world import Sent, World


@dataclass(frozen=True)
class Change:
    """What an action did to one saga."""

    family: Family
    before: World
    action: Action
    outcome: Outcome
    seat: str = FIRST
    """Which saga."""

    @property
    def after(self) -> World:
        """The world it led to."""
        return self.outcome.world

    @cached_property
    def saga(self) -> type[Saga[Any]]:
        """The saga's definition."""
        return self.family.definition(self.seat)

    @cached_property
    def now(self) -> SagaInstance:
        """The saga as it is."""
        return self.after.sagas[self.seat]

    @cached_property
    def was(self) -> SagaInstance:
        """The saga as it was; one that has just been started was what it is."""
        return self.before.sagas.get(self.seat, self.now)

    @cached_property
    def records(self) -> tuple[tuple[StepRecord | None, StepRecord], ...]:
        """The rows that changed, as they were and as they are."""
        was, steps = self.was.steps, self.now.steps
        return tuple((was.get(key), record) for key, record in steps.items() if was.get(key) is not record)

    @cached_property
    def sent(self) -> tuple[Sent, ...]:
        """What it sent."""
        return tuple(sent for sent in self.outcome.sent if sent.seat == self.seat)

    @cached_property
    def taken(self) -> tuple[ReplyReceived, ...]:
        """The answers that the engine was given for it: replies, and those by tokens."""
        if self.action.kind is Kind.HANDLE:
            return tuple(
                ReplyReceived(one.to.step, one.to.round, one.to.attempt, one.outcome, one.body, one.error_code)
                for one in self.action.subject
                if one.to.seat == self.seat
            )
        return tuple(asked.reply for asked, _ in self.redeemed)

    @cached_property
    def redeemed(self) -> tuple[tuple[CompleteRequested, str], ...]:
        """The tokens that were redeemed by it, each with why it did not count, if it did not."""
        entries, known = self.after.tables.audit, self.before.tables.audit
        new = [entries[id_] for id_ in sorted(entries) if id_ not in known] if len(entries) > len(known) else []
        mine = [one for one in new if one.saga_id == self.now.id and one.action == "complete" and one.signal_id]
        signals = self.after.tables.signals
        rows = [(signals[one.signal_id].signal, one.refused) for one in mine if one.signal_id]
        told = [(signal_from_row(row.kind, row.body), refused) for row, refused in rows]
        return tuple((asked, refused) for asked, refused in told if isinstance(asked, CompleteRequested))

    @cached_property
    def is_asked(self) -> bool:
        """Whether it is told now what operators, or its parent, want of it."""
        if self.action.kind not in (Kind.WAKE, Kind.SIGNALS):
            return False
        signals = self.before.tables.signals.values()
        return any(one.pending and one.signal.saga_id == self.now.id and one.signal.kind in _ORDERS for one in signals)

    def leaf(self, key: StepKey) -> LeafPlan:
        """The definition of a row's step."""
        return self.saga.plan.leaves[key.step]

    def label(self, key: StepKey) -> str:
        """How the world calls a step of this saga."""
        return label_at(self.seat, key)


_ORDERS: Final = frozenset({*ACTIONS, "child_order"} - {"complete"})
Rule: TypeAlias = Callable[[Change], Iterator[str]]


def rows_of(saga: SagaInstance, direction: Direction) -> Iterator[StepRecord]:
    """Its rows of one direction."""
    return (record for key, record in saga.steps.items() if key.direction is direction)


def undo_of(action: StepKey) -> StepKey:
    """The key of a step's undo."""
    return StepKey(action.step, Direction.COMPENSATION, action.branch)


def by_hand(record: StepRecord) -> bool:
    """Whether an operator ended it."""
    return record.error_code in (RESOLVED, SKIPPED)


def undoable(definition: type[Saga[Any]], step: str) -> bool:
    """Whether something undoes a step itself; of a `ForEach`, what is in it is undone."""
    leaf = definition.plan.leaves[step]
    return not isinstance(leaf, ItemsLeaf) and bool(getattr(leaf, "undoable", False))


def leaves_of(part: Branch | LeafPlan) -> Iterator[LeafPlan]:
    """The leaves below, those of items for a `ForEach`."""
    if isinstance(part, Branch):
        return part.leaves()
    return part.inner.leaves() if isinstance(part, ItemsLeaf) else iter((part,))


def dedupes(leaf: LeafPlan) -> bool:
    """Whether what it asks for is done once."""
    return not isinstance(leaf, CommandLeaf) or leaf.step.participant_dedupes


def told(sent: Sent) -> str:
    """A command in the words of a finding."""
    return f"attempt {sent.attempt} of {sent.wire_name} ({sent.step.step})"


def named(record: StepRecord) -> str:
    """A row in the words of a finding."""
    undo = "the undo of " if record.key.direction is Direction.COMPENSATION else ""
    return f"{undo}{record.key.step}"
