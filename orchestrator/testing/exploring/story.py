"""A way through the worlds as a story that people read, and as a test that walks it again."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from messaging.messages import Accepted
from orchestrator.instance import SagaInstance
from orchestrator.testing.exploring.actions import Action, Outcome
from orchestrator.testing.exploring.family import FIRST
from orchestrator.testing.exploring.model import Model
from orchestrator.testing.exploring.world import World

EFFECT = "    -> "


def told(model: Model, way: Iterable[Action]) -> Iterator[str]:
    """Each action on a line, and what came of it on lines below."""
    world = model.begin()
    for number, action in enumerate(way, 1):
        outcome = model.step(world, action)
        assert outcome is not None
        yield f"{number:3}. {action.text}"
        yield from (EFFECT + text for text in _effects(model, world, outcome))
        world = outcome.world


def _effects(model: Model, before: World, outcome: Outcome) -> Iterator[str]:
    after = outcome.world
    if after.now > before.now:
        yield f"{after.now - before.now} later"
    for sent in outcome.sent:
        yield f"{model.names.command(sent)} is sent to {sent.participant}"
    for seat, saga in after.sagas.items():
        was = before.sagas.get(seat)
        if was is None or _shown(saga) != _shown(was):
            yield f"{model.names.saga(seat)} is {'started' if was is None and seat != FIRST else _shown(saga)}"


def _shown(saga: SagaInstance) -> str:
    paused = ", paused" if saga.paused_at else ""
    why = f" ({saga.blocked_reason} at {saga.blocked_step})" if saga.blocked_reason else ""
    return f"{saga.status}{why}{paused}"


def actions_of(story: str) -> list[str]:
    """The texts of the actions in a story, whatever their numbers and indentation."""
    lines = [line.strip() for line in story.strip().splitlines()]
    return [_without_number(line) for line in lines if line and not line.startswith("->")]


def _without_number(line: str) -> str:
    number, dot, rest = line.partition(". ")
    return rest.strip() if dot and number.isdigit() else line


def as_test(
    saga: type[Any],
    state: BaseModel,
    lines: Sequence[str],
    arguments: Mapping[str, Any],
    checks: Sequence[Callable[..., Any]],
) -> str:
    """The source of a test that replays a story."""
    imports = _Imports()
    body = [f"{imports.name_of(saga)},", f"{imports.model(state)},", '"""', *lines, '""",']
    body += [f"{name}={imports.value(value)}," for name, value in arguments.items()]
    if checks:
        body.append(f"invariants=[{', '.join(imports.name_of(check) for check in checks)}],")
    call = textwrap.indent("\n".join(body), " " * 8)
    return (
        f"{imports.lines()}from orchestrator.testing import replay\n\n\n"
        f"def test_{saga.__name__}_as_it_was_explored() -> None:\n    replay(\n{call}\n    )\n"
    )


class _Imports:
    """What a piece of source needs to import."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], None] = {}

    def name_of(self, thing: Any) -> str:
        top = thing.__qualname__.partition(".")[0]
        self._names[thing.__module__, top] = None
        return str(thing.__qualname__)

    def model(self, model: BaseModel) -> str:
        return f"{self.name_of(type(model))}.model_validate_json({model.model_dump_json()!r})"

    def value(self, value: Any) -> str:
        if isinstance(value, BaseModel):
            return self.model(value)
        if isinstance(value, Mapping):
            items = ((self.value(key), self.value(item)) for key, item in value.items())  # pyright: ignore
            return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(self.value, value)) + "]"  # pyright: ignore
        if isinstance(value, Accepted):
            self._names["datetime", "timedelta"] = None
            return f"{self.name_of(Accepted)}(within=timedelta(seconds={value.within.total_seconds():g}))"
        return self.name_of(value) if hasattr(value, "__qualname__") else repr(value)

    def lines(self) -> str:
        return "".join(f"from {module} import {name}\n" for module, name in sorted(self._names))
