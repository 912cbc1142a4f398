"""Messages that have one name on the wire and are not the same class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from messaging.messages import Message
from orchestrator.checking.findings import Finding, Level, finding
from orchestrator.definition import Saga
from orchestrator.plan import CommandLeaf


@dataclass(frozen=True, slots=True)
class _Use:
    saga: type[Saga[Any]]
    message: type[Message]
    where: str
    """The participant of a command; empty for an event."""


def collisions(sagas: Sequence[type[Saga[Any]]]) -> Iterator[Finding]:
    """Find commands and events with one name. Replies are found by correlation: theirs do not matter."""
    by_name: dict[str, dict[tuple[type[Message], str], _Use]] = {}
    for use in (use for saga in sagas for use in _uses(saga)):
        by_name.setdefault(use.message.wire_name, {}).setdefault((use.message, use.where), use)
    for uses in by_name.values():
        told: set[frozenset[type[Message]]] = set()
        for one, other in combinations(uses.values(), 2):
            pair = frozenset((one.message, other.message))
            if one.message is not other.message and not _is_newer(one, other) and pair not in told:
                told.add(pair)
                yield _told(one, other)


def _uses(saga: type[Saga[Any]]) -> Iterator[_Use]:
    for leaf in saga.plan.leaves.values():
        if isinstance(leaf, CommandLeaf):
            for command in (*leaf.commands, *leaf.compensations):
                yield _Use(saga, command, leaf.step.participant)
    for wait in saga.plan.waits():
        yield _Use(saga, wait.event, "")
    for start in saga.plan.starts:
        yield _Use(saga, start.event, "")


def _is_newer(one: _Use, other: _Use) -> bool:
    """Whether both are the message of one step in two versions of a saga."""
    return one.saga.name == other.saga.name and one.saga is not other.saga and one.where == other.where


def _told(one: _Use, other: _Use) -> Finding:
    same_reader = one.where == other.where
    level = Level.ERROR if same_reader else Level.WARNING
    reader = (
        (f"{one.where!r} reads" if one.where else "the orchestrator reads") if same_reader else "logs and tools see"
    )
    text = (
        f"has the wire name {other.message.wire_name!r} of {one.message.__module__}.{one.message.__name__} "
        f"({one.saga.name}): {reader} one as the other"
    )
    remedy = f'Give one of them another: class {other.message.__name__}(..., name="...")'
    return finding(level, "wire-name", other.saga, other.message, text, remedy)
