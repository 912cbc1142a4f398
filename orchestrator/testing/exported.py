"""A stored saga as a test: its messages, without secrets, replayed in virtual time by the probe.

What is not stored is found by trying: the state that a saga began with is that with which the test passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel

from orchestrator.children import CHILD_ABANDONED
from orchestrator.definition import Saga
from orchestrator.instance import TIMER, Direction, StepStatus
from orchestrator.plan import ChildLeaf, CommandLeaf, EventLeaf, LocalLeaf
from orchestrator.recorded import Recorded, RecordedStep
from orchestrator.redacted import Redaction
from orchestrator.signals import STARTED

_HEAD: Final = '''"""Saga {id} of {name}, as it was stored, without its secrets. Time is virtual."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from messaging import Failure
from orchestrator import SagaStatus
from orchestrator.testing import SagaProbe
{imports}

def test_{function}() -> None:
    probe = SagaProbe(
        {saga},
        {state},
        now={now},
        saga_id=UUID("{id}"),
    )
'''


@dataclass(frozen=True, slots=True)
class Exported:
    """The source of a test, and what is wrong when it is run now; empty if it passes."""

    source: str
    problem: str


@dataclass(frozen=True, slots=True)
class _Move:
    """Something that happened, as a line of the test."""

    at: datetime
    line: str


def as_test(saga: type[Saga[Any]], recorded: Recorded) -> Exported:
    """Write a saga as a test, and run that. It is the first of several that passes, if one does."""
    tried = [Exported(source, _run(source)) for source in _first_that_passes(saga, recorded)]
    return next((one for one in tried if not one.problem), tried[0])


def _first_that_passes(saga: type[Saga[Any]], recorded: Recorded) -> Iterator[str]:
    """Sources for the states it may have begun with, up to the first that passes."""
    for state in _beginnings(saga.state_type, recorded):
        source = _Writer(saga, recorded, Redaction()).source(json.dumps(state))
        yield source
        if not _run(source):
            return


def _beginnings(state_type: type[BaseModel], recorded: Recorded) -> Iterator[dict[str, Any]]:
    """What it began with, if that is kept; else what it ended with.

    Of the latter, fields that have a default may have begun with that: all, none, or all but one.
    """
    yield from (
        json.loads(one.state) for one in recorded.states if (one.cause, one.version) == (STARTED, recorded.pin.version)
    )
    end: dict[str, Any] = json.loads(recorded.state)
    optional = [name for name, field in state_type.model_fields.items() if not field.is_required()]
    yield {name: value for name, value in end.items() if name not in optional}
    yield end
    for kept in optional:
        yield {name: value for name, value in end.items() if name not in optional or name == kept}


def _run(source: str) -> str:
    """Run the test of a source; what goes wrong, in words."""
    names: dict[str, Any] = {}
    try:
        exec(compile(source, "exported", "exec"), names)  # noqa: S102 - written above, of reprs and names of classes
        next(value for name, value in names.items() if name.startswith("test_"))()
    except Exception as error:  # noqa: BLE001 - whatever a test may raise
        return f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__}: an assertion fails"
    return ""


class _Writer:
    """Writes one source."""

    def __init__(self, saga: type[Saga[Any]], recorded: Recorded, redaction: Redaction) -> None:
        self._saga, self._recorded, self._redaction = saga, recorded, redaction
        self._imports: set[tuple[str, str]] = set()

    def source(self, state: str) -> str:
        recorded = self._recorded
        self._moves_and_ends()  # all secrets are known before the first line that stays
        began = self._model(self._saga.state_type, state)
        lines = self._moves_and_ends()
        head = _HEAD.format(
            id=recorded.id,
            name=recorded.pin.name,
            saga=self._name(self._saga),
            state=began,
            now=_instant(recorded.started_at),
            function=f"{recorded.pin.name}_{recorded.id}".replace("-", "_").replace(".", "_"),
            imports="".join(f"from {module} import {name}\n" for module, name in sorted(self._imports)),
        )
        return head + "".join(f"    {line}\n" for line in lines)

    def _moves_and_ends(self) -> list[str]:
        return [*self._moves(), *self._ends()]

    def _moves(self) -> Iterator[str]:
        now = self._recorded.started_at
        for move in sorted(self._happened(), key=lambda move: move.at):
            if move.at > now:
                yield f"probe.advance({_duration(move.at - now)})"
                now = move.at
            yield move.line
        if self._recorded.updated_at > now:
            yield f"probe.advance({_duration(self._recorded.updated_at - now)})"

    def _ends(self) -> Iterator[str]:
        recorded = self._recorded
        yield ""
        yield f"assert probe.status is SagaStatus.{recorded.status.name}"
        for step in recorded.steps:
            leaf = self._saga.plan.leaves.get(step.step)
            if isinstance(leaf, CommandLeaf) and step.body and step.sent:
                yield f"assert {self._model(leaf.command_type(step.wire_name), step.body)} in probe.sent"
        yield f"assert probe.state == {self._model(self._saga.state_type, recorded.state)}"

    # -- what happened

    def _happened(self) -> Iterator[_Move]:
        for step in self._recorded.steps:
            yield from self._retries(step)
            if step.ended_at is not None and (line := self._end_of(step)):
                yield _Move(step.ended_at, line)
        for asked in self._recorded.audit:
            if not asked.refused:
                reason = (
                    f"reason={asked.reason!r}" if asked.action in ("retry", "skip", "resolve") else repr(asked.reason)
                )
                yield _Move(asked.at, f"probe.{asked.action}({reason})")
        for note in self._recorded.history:
            if note.kind == "late_reply":
                yield _Move(note.at, f"# {note.step} was answered late, without effect: {note.text}")

    def _retries(self, step: RecordedStep) -> Iterator[_Move]:
        """Faults that the participant reported, and more time that it was given."""
        leaf = self._saga.plan.leaves.get(step.step)
        if not isinstance(leaf, CommandLeaf):
            return
        action = step.direction is Direction.ACTION
        notes = [note for note in self._recorded.history if note.step == step.step and self._is_of(step, note.at)]
        for note in notes:
            if note.kind == "retry":
                method, code = "answer_retry" if action else "compensation_retry", note.text.rpartition(": ")[2]
                yield _Move(note.at, f"probe.{method}({self._name(type(leaf.step))}, {code!r})")
        tried = max([note.at for note in notes if note.kind in ("retry", "timeout")], default=step.started_at)
        if action and step.reply is not None and step.ended_at is not None:
            yield from self._more_time(leaf, tried, step.ended_at)

    def _more_time(self, leaf: CommandLeaf, tried: datetime, answered: datetime) -> Iterator[_Move]:
        """For an answer that came so late that here, where nothing takes time, it might be too late."""
        timeout = leaf.step.timeout
        if answered - tried > timeout / 2:
            at = tried + min(answered - tried, timeout) / 2
            longer = _duration(answered - at + timeout)
            yield _Move(
                at, "# It had longer: it said `accepted`, or sending took its time, or the orchestrator was away."
            )
            yield _Move(at, f"probe.accepted({self._name(type(leaf.step))}, {longer})")

    def _is_of(self, step: RecordedStep, at: datetime) -> bool:
        """Whether a note is from the time of this direction of a step; what makes the undo begin is the action's."""
        undo = [
            other.started_at
            for other in self._recorded.steps
            if (other.step, other.branch) == (step.step, step.branch) and other.direction is Direction.COMPENSATION
        ]
        return not undo or (at > undo[0]) == (step.direction is Direction.COMPENSATION)

    def _end_of(self, step: RecordedStep) -> str:
        leaf = self._saga.plan.leaves.get(step.step)
        if isinstance(leaf, EventLeaf) and step.status is StepStatus.SUCCEEDED and step.reply:
            return f"probe.event({self._name(type(leaf.step))}, {self._model(leaf.event, step.reply)})"
        if isinstance(leaf, LocalLeaf) and step.status is StepStatus.SUCCEEDED:
            method = "ran" if step.direction is Direction.ACTION else "undone"
            return f"probe.{method}({self._name(type(leaf.step))})"
        if isinstance(leaf, ChildLeaf):
            return self._end_of_child(leaf, step)
        if not isinstance(leaf, CommandLeaf) or step.wire_name in ("", TIMER) or step.reply is None:
            return ""
        name, item = self._name(type(leaf.step)), f", item={step.branch!r}" if step.branch else ""
        if step.status is StepStatus.REFUSED:
            method = "reply" if step.direction is Direction.ACTION else "compensation_failed"
            failure = leaf.command_type(step.wire_name).failure_type(step.error_code)
            return f"probe.{method}({name}, {self._model(failure, step.reply)}{item})"
        if step.status is not StepStatus.SUCCEEDED:
            return ""
        if step.direction is Direction.COMPENSATION:
            return f"probe.compensated({name}{item})"
        return f"probe.reply({name}, {self._model(leaf.reply, step.reply)}{item})"

    def _end_of_child(self, leaf: ChildLeaf, step: RecordedStep) -> str:
        name = self._name(type(leaf.step))
        if step.error_code == CHILD_ABANDONED:
            return f"probe.child_abandoned({name})"
        if step.child_state is None:
            return ""
        completed = step.status is StepStatus.SUCCEEDED and step.direction is Direction.ACTION
        method = "child_completed" if completed else "child_compensated"
        return f"probe.{method}({name}, {self._model(leaf.step.saga.state_type, step.child_state)})"

    # -- expressions

    def _model(self, cls: type[BaseModel], body: str) -> str:
        return f"{self._name(cls)}.model_validate_json({self._redaction.text(cls, body)!r})"

    def _name(self, cls: type[Any]) -> str:
        top = cls.__qualname__.partition(".")[0]
        if (cls.__module__, top) != ("messaging.messages", "Failure"):
            self._imports.add((cls.__module__, top))
        return cls.__qualname__


def _instant(at: datetime) -> str:
    return (
        f"datetime({at.year}, {at.month}, {at.day}, {at.hour}, {at.minute}, {at.second}, {at.microsecond}, tzinfo=UTC)"
    )


def _duration(length: timedelta) -> str:
    seconds, microseconds = divmod(length // timedelta(microseconds=1), 1_000_000)
    return f"timedelta(seconds={seconds}" + (f", microseconds={microseconds})" if microseconds else ")")
