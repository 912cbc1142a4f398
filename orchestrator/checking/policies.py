"""Timeouts, attempts and deadlines that do not go together, and participants that do not dedupe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from messaging.retry import Retry, wait_before
from orchestrator.checking.findings import Finding, Level, finding
from orchestrator.definition import Saga
from orchestrator.graph import spoken
from orchestrator.plan import CommandLeaf, EventLeaf
from orchestrator.steps import WaitForEvent

_DEDUPE: Final = "Have the participant answer a repeated idempotency-key from an inbox, then remove the line"


def findings(saga: type[Saga[Any]]) -> Iterator[Finding]:
    """Find settings of steps that contradict each other."""
    for leaf in saga.plan.leaves.values():
        if isinstance(leaf, CommandLeaf):
            yield from _without_dedupe(saga, leaf)
            yield from _never_exhausted(saga, leaf)
            yield from _longer_than_deadline(saga, leaf)
    for wait in saga.plan.waits():
        yield from _waits(saga, wait)


def _without_dedupe(saga: type[Saga[Any]], leaf: CommandLeaf) -> Iterator[Finding]:
    step = leaf.step
    if step.participant_dedupes:
        return
    if leaf.compensations:
        text = f"{step.participant!r} does not dedupe: an undo that comes first undoes nothing, and then it happens"
        yield finding(Level.WARNING, "no-dedupe", saga, type(step), text, _DEDUPE)
    elif step.retry.max_attempts != 1:
        text = f"{step.participant!r} does not dedupe: a second attempt does it twice, if only the answer was lost"
        yield finding(
            Level.WARNING, "no-dedupe", saga, type(step), text, f"{_DEDUPE}. Or set retry = Retry(max_attempts=1)"
        )


def _never_exhausted(saga: type[Saga[Any]], leaf: CommandLeaf) -> Iterator[Finding]:
    step, cls = leaf.step, type(leaf.step)
    if step.retry.max_attempts is not None or step.retriable:
        return
    if _says(cls, leaf.base, "on_exhausted"):
        text = f"on_exhausted = {step.on_exhausted!r} never comes to pass: its attempts have no end"
        yield finding(Level.WARNING, "on-exhausted", saga, cls, text, "Give retry a max_attempts, or remove the line")
    elif saga.deadline is None or step.pivot:
        text = "is tried for ever: while the participant does not answer, nobody is told"
        yield finding(Level.WARNING, "endless", saga, cls, text, "Give retry a max_attempts, or the saga a deadline")


def _longer_than_deadline(saga: type[Saga[Any]], leaf: CommandLeaf) -> Iterator[Finding]:
    """The deadline turns no saga back after the pivot, so only what comes before is compared with it."""
    deadline, policy = saga.deadline, leaf.step.retry
    if deadline is None or leaf.after_pivot or leaf.step.pivot or policy.max_attempts is None:
        return
    longest = _longest(policy, leaf.step.timeout, deadline)
    if longest > deadline:
        text = (
            f"{policy.max_attempts} attempts of {spoken(leaf.step.timeout)} each take longer than the saga's deadline, "
            f"{spoken(deadline)}: the last are never made"
        )
        yield finding(Level.WARNING, "deadline", saga, type(leaf.step), text, "Give it fewer or shorter attempts")


def _longest(policy: Retry, timeout: timedelta, enough: timedelta) -> timedelta:
    """How long all attempts take at most; no longer reckoned once it is enough."""
    even, total, tries = replace(policy, jitter=0.0), timeout, 1
    while tries < (policy.max_attempts or 1) and total <= enough:
        total += wait_before(even, tries, seed="") + timeout
        tries += 1
    return total


def _waits(saga: type[Saga[Any]], leaf: EventLeaf) -> Iterator[Finding]:
    step, cls = leaf.step, type(leaf.step)
    if leaf.after_pivot and step.on_timeout == "compensate" and _says(cls, WaitForEvent, "on_timeout"):
        text = 'on_timeout = "compensate" means "block" after the pivot: nothing turns back there'
        yield finding(Level.WARNING, "on-timeout", saga, cls, text, 'Write on_timeout = "block", or "continue"')
    if step.timeout is not None and saga.deadline is not None and not leaf.after_pivot and step.timeout > saga.deadline:
        text = f"its timeout, {spoken(step.timeout)}, is longer than the saga's deadline, {spoken(saga.deadline)}"
        yield finding(Level.WARNING, "deadline", saga, cls, text, "Shorten it, or leave it out")


def _says(cls: type, base: type, name: str) -> bool:
    """Whether a class of the author's sets this, rather than leave it at its default."""
    return any(name in vars(one) for one in cls.__mro__[: cls.__mro__.index(base)])
