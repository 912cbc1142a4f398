"""Hooks that read from the state what nobody can have put there yet.

A compensation is asked for a step whose answer never came: what only that answer says is not known then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from orchestrator.checking.findings import Finding, Level, finding
from orchestrator.checking.hooks import Touched, touched
from orchestrator.checking.source import Place
from orchestrator.definition import Saga
from orchestrator.plan import Branch, ItemsLeaf, LeafPlan

_FORWARD: Final = ("on_reply", "on_event", "run", "on_completed")
_TURNING: Final = ("on_failure", "on_expired", "on_compensated")
"""What these say may be read by every compensation: it is why the saga turned back."""
_READERS: Final = ("compensation", "awaited_key", "command", "child_state")
_START: Final = "Or give it to the saga at its start, in a field without default"


@dataclass(frozen=True, slots=True)
class _Knowledge:
    """Who sets which field, and which steps are over before each one begins."""

    setters: Mapping[str, set[str]]
    told_when_turning: frozenset[str]
    opaque: frozenset[str]
    before: Mapping[str, frozenset[str]]


def findings(saga: type[Saga[Any]]) -> Iterator[Finding]:
    """Find hooks that read too early."""
    known = _knowledge_of(saga)
    for leaf in saga.plan.leaves.values():
        for hook in _READERS:
            for name, place in _looked_at(leaf, hook, saga.state_type).reads.items():
                if _may_be_unknown(known, saga.state_type, leaf.name, name):
                    yield _told(saga, leaf, hook, name, known.setters[name], place)


def _knowledge_of(saga: type[Saga[Any]]) -> _Knowledge:
    setters: dict[str, set[str]] = {}
    told: set[str] = set()
    opaque: set[str] = set()
    for leaf in saga.plan.leaves.values():
        for hook in (*_FORWARD, *_TURNING):
            looked = _looked_at(leaf, hook, saga.state_type)
            opaque |= {leaf.name} if looked.opaque else set()
            told |= looked.sets.keys() if hook in _TURNING else set()
            for name in looked.sets:
                setters.setdefault(name, set()).add(leaf.name)
    before: dict[str, frozenset[str]] = {}
    _put_in_order(saga.plan.root, frozenset(), before)
    return _Knowledge(setters, frozenset(told), frozenset(opaque), before)


def _looked_at(leaf: LeafPlan, hook: str, state: type[BaseModel]) -> Touched:
    """What a step's hook does; nothing if its kind of step has none, or the author wrote none."""
    cls: type[Any] = type(leaf.step)
    written = getattr(getattr(cls, hook, None), "__module__", Saga.__module__) != Saga.__module__
    return touched(cls, hook, state) if written else Touched()


def _put_in_order(part: LeafPlan | Branch, over: frozenset[str], before: dict[str, frozenset[str]]) -> frozenset[str]:
    """Note what is over before each step begins; returns what is over after this part."""
    if isinstance(part, ItemsLeaf):
        before[part.name] = over
        return _put_in_order(part.inner, over, before) | {part.name}
    if not isinstance(part, Branch):
        before[part.name] = over
        return over | {part.name}
    if part.together:
        return over.union(*(_put_in_order(inner, over, before) for inner in part.parts))
    for inner in part.parts:
        over = _put_in_order(inner, over, before)
    return over


def _may_be_unknown(known: _Knowledge, state: type[BaseModel], step: str, name: str) -> bool:
    """Whether a field has but its default when a step begins."""
    setters, before = known.setters.get(name), known.before[step]
    if not setters or name in known.told_when_turning or state.model_fields[name].is_required():
        return False
    return not (setters & before or known.opaque & before)


def _told(saga: type[Saga[Any]], leaf: LeafPlan, hook: str, name: str, setters: set[str], place: Place) -> Finding:
    own = leaf.name in setters
    told = "this step's own answer" if own else " or ".join(sorted(setters))
    default = _default(saga.state_type, name)
    text = f"{hook}() reads state.{name}, which only {told} sets"
    level, rule, remedy = Level.ERROR, "own-answer", ""
    if hook == "compensation" and own:
        text += f": {default} when no answer came, and the step is to be undone all the same"
        remedy = "Name what is undone by an id chosen before the step runs, and sent with its command"
    elif hook == "awaited_key":
        text += f": {default} when the wait begins"
        rule, remedy = "set-later", f"Wait for a key that is known by then. {_START}"
    else:
        text += f": {default}" + ("" if own else ", unless that step was over before")
        level, rule, remedy = Level.WARNING, "set-later", f"Move this step behind it. {_START}"
    return finding(level, rule, saga, type(leaf.step), text, remedy, at=place)


def _default(state: type[BaseModel], name: str) -> str:
    field = state.model_fields[name]
    return "it has its default" if field.default_factory is not None else f"it is {field.default!r}"
