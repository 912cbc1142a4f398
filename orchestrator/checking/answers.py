"""Replies and failures that no hook looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from messaging.messages import Failure
from orchestrator.checking.findings import Finding, Level, finding
from orchestrator.definition import Saga
from orchestrator.plan import CommandLeaf


def findings(saga: type[Saga[Any]]) -> Iterator[Finding]:
    """Find answers that nobody takes."""
    for leaf in saga.plan.leaves.values():
        if isinstance(leaf, CommandLeaf):
            yield from _of_reply(saga, leaf)
            yield from _of_failures(saga, leaf)


def _of_reply(saga: type[Saga[Any]], leaf: CommandLeaf) -> Iterator[Finding]:
    fields = ", ".join(leaf.reply.model_fields)
    if fields and not leaf.says("on_reply"):
        text = f"nobody reads what {leaf.reply.__name__} says: {fields}"
        remedy = f"Define on_reply(self, state, reply: {leaf.reply.__name__}), if the saga needs it"
        yield finding(Level.ADVICE, "unread-reply", saga, type(leaf.step), text, remedy)


def _of_failures(saga: type[Saga[Any]], leaf: CommandLeaf) -> Iterator[Finding]:
    declared = dict.fromkeys(failure for command in leaf.commands for failure in command.failure_types)
    if declared and not leaf.says("on_failure"):
        text = f"nobody handles {', '.join(map(_named, declared))}, with which the participant may refuse"
        remedy = "Define on_failure(self, state, failure), to keep in the state why it was refused"
        yield finding(Level.WARNING, "unhandled-failure", saga, type(leaf.step), text, remedy)


def _named(failure: type[Failure]) -> str:
    return failure.__name__
