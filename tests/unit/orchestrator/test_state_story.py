"""What each step changed, as it may be shown: without secrets, and with what is missing and why."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from messaging.messages import Command, Reply
from orchestrator import Saga, Step
from orchestrator.instance import Pin, SagaStatus
from orchestrator.recorded import Recorded
from orchestrator.registry import SagaRegistry, pin_of
from orchestrator.state_story import StateStory, state_story
from orchestrator.views import StateRow
from tests.conformance.stores import NOON

SAGA = UUID(int=1)


class Order(BaseModel):
    card: str = Field(default="", repr=False)
    note: str = ""
    lines: list[dict[str, int]] = []


class Done(Reply): ...


class Do(Command[Done]): ...


class Packing(Step[Order, Done]):
    participant = "warehouse"
    nothing_to_undo = True

    def command(self, state: Order) -> Do:
        return Do()


class Ship(Saga[Order]):
    version = 2
    keep_states = True
    steps = (Packing(),)


class Forget(Saga[Order]):
    steps = (Packing(),)


PIN = pin_of(Ship)


def row(cause: str, revision: int, version: int = 2, **state: Any) -> StateRow:
    step = "" if cause in ("start", "upgrade") else "Packing"
    text = json.dumps(state)
    return StateRow(SAGA, "ship", None, version, revision, 0, step, "action", "", cause, text, NOON)


def recorded(*states: StateRow, pin: Pin = PIN, now: str = "{}") -> Recorded:
    return Recorded(SAGA, pin, SagaStatus.RUNNING, now, NOON, NOON, (), (), (), states)


def story(*states: StateRow) -> StateStory:
    return state_story(recorded(*states), SagaRegistry([Ship]))[1]


def told(found: StateStory) -> list[list[str] | None]:
    return [None if one.changes is None else [str(change) for change in one.changes] for one in found.steps]


def test_each_state_is_told_by_what_differs_from_the_one_before() -> None:
    found = story(
        row("start", 0, note="", lines=[{"quantity": 2}]),
        row("on_reply", 2, note="x", lines=[{"quantity": 3}, {"quantity": 1}]),
        row("on_failure", 3, note="x" * 400, lines=[]),
    )

    assert told(found) == [
        None,
        ['note: "" → "x"', "lines[0].quantity: 2 → 3", 'lines[1] = {"quantity": 1}'],
        [
            f'note: "x" → "{"x" * 299}… (402 characters)',
            'lines[1] removed, was {"quantity": 1}',
            'lines[0] removed, was {"quantity": 3}',
        ],
    ]
    assert (found.note, found.steps[0].state["lines"]) == ("", [{"quantity": 2}])


def test_secrets_are_replaced_and_that_they_changed_is_told() -> None:
    found = story(row("start", 0, card="4929"), row("on_reply", 1, card="4930"), row("on_reply", 2, card=""))

    assert told(found) == [None, ['card: "redacted-1" → "redacted-2"'], ['card: "redacted-2" → ""']]


def test_a_secret_of_an_earlier_state_is_none_anywhere_else() -> None:
    states = (row("start", 0, card="4929", note=""), row("on_reply", 1, card="", note="4929"))

    payloads, found = state_story(recorded(*states, now=states[1].state), SagaRegistry([Ship]))

    assert payloads.state is not None and json.loads(payloads.state)["note"] == "redacted-1"
    assert told(found)[1] == ['card: "redacted-1" → ""', 'note: "" → "redacted-1"']


def test_a_state_of_a_version_that_is_not_known_is_not_shown_nor_compared() -> None:
    found = story(row("start", 0, 1, card="4929"), row("upgrade", 1, card="4929"), row("on_reply", 2, note="x"))

    assert [(one.version, one.state is None) for one in found.steps] == [(1, True), (2, False), (2, False)]
    assert told(found) == [None, None, ['card removed, was "redacted-1"', 'note = "x"']]
    assert "4929" not in repr(found)


def test_without_the_definition_nothing_is_shown() -> None:
    for registry in (None, SagaRegistry([]), SagaRegistry([Forget])):
        _, found = state_story(recorded(row("start", 0, note="x")), registry)
        assert not found.steps and "--app" in found.note
    changed = replace(PIN, fingerprint="another")
    assert not state_story(recorded(row("start", 0, note="x"), pin=changed), SagaRegistry([Ship]))[1].steps


def test_what_is_missing_is_told_with_what_to_do() -> None:
    _, not_asked = state_story(recorded(pin=pin_of(Forget)), SagaRegistry([Forget]))

    assert "Set keep_states = True on Forget" in not_asked.note
    assert "Nothing has changed since Ship has keep_states = True" in story().note
    later = story(row("on_reply", 4, note="x"), row("on_reply", 5, note="y"))
    assert "what came before is not known" in later.note and told(later) == [None, ['note: "x" → "y"']]
