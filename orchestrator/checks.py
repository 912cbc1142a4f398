"""The rules a definition must keep, checked when the class is created: the error names class and remedy."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final, NoReturn, cast

from pydantic import BaseModel

from messaging.messages import Command
from messaging.retry import Retry

# The module, not its classes: it imports this one, and either may be imported first.
from orchestrator import definition
from orchestrator.errors import SagaDefinitionError
from orchestrator.plan import (
    Branch,
    CommandLeaf,
    DelayLeaf,
    EventLeaf,
    LeafPlan,
    Plan,
    fingerprint_of,
    overrides,
    returned_types,
    type_arguments,
)

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_NAME_RULE: Final = "Use 1 to 64 of the characters A-Z a-z 0-9 _ . -"
_STEP_HOOKS: Final = ("when", "events", "command", "on_reply", "on_failure", "compensation")
_WAIT_HOOKS: Final = ("when", "events", "awaited_key", "event_key", "on_event", "on_expired")
_DELAY_HOOKS: Final = ("when", "events", "until")
_SAGA_HOOKS: Final = ("on_completed", "on_compensated")


def checked_step(cls: type[Any]) -> None:
    """Check what can be seen from a step class alone.

    Raises:
        SagaDefinitionError: the class contradicts itself.
    """
    where = f"step {cls.__name__}"
    if not _NAME.match(cls.name):
        _refuse(where, f"has the name {cls.name!r}. {_NAME_RULE}")
    if definition.Step in cls.__mro__:
        _check_hooks(where, cls, _STEP_HOOKS)
        _check_durations(where, cls, "timeout", "compensation_timeout")
        _check_policies(where, cls)
        _check_role(where, cls)
    elif definition.WaitForEvent in cls.__mro__:
        _check_hooks(where, cls, _WAIT_HOOKS)
        _check_durations(where, cls, "timeout", "accepts_events_up_to", optional=True)
        _check_word(where, cls, "on_timeout", ("compensate", "continue", "block"))
    elif definition.Delay in cls.__mro__:
        _check_hooks(where, cls, _DELAY_HOOKS)


def _refuse(where: str, problem: str) -> NoReturn:
    raise SagaDefinitionError(where, problem)


def _check_hooks(where: str, cls: type, names: Iterable[str]) -> None:
    for name in names:
        if inspect.iscoroutinefunction(getattr(cls, name)):
            _refuse(where, f"has an async {name}(). Hooks only look at the state: write a plain def")


def _check_durations(where: str, cls: type, *names: str, optional: bool = False) -> None:
    for name in names:
        value = getattr(cls, name)
        if value is None and optional:
            continue
        if not isinstance(value, timedelta):
            _refuse(where, f"has {name} = {value!r}. Write a timedelta, such as timedelta(seconds=30)")
        if value <= timedelta(0):
            _refuse(where, f"has a {name} that is not positive ({value})")


def _check_policies(where: str, cls: type) -> None:
    for name in ("retry", "compensation_retry"):
        if not isinstance(getattr(cls, name), Retry):
            _refuse(where, f"has {name} = {getattr(cls, name)!r}. Write a policy, such as Retry(max_attempts=3)")
    _check_word(where, cls, "on_exhausted", ("compensate", "block"))


def _check_word(where: str, cls: type, name: str, words: tuple[str, ...]) -> None:
    if getattr(cls, name) not in words:
        _refuse(where, f"has {name} = {getattr(cls, name)!r}. Use one of: {', '.join(words)}")


def _check_role(where: str, cls: type[definition.Step[Any, Any]]) -> None:
    undoable = _is_undoable(cls)
    if cls.pivot and cls.retriable:
        _refuse(where, "is both pivot and retriable. The pivot comes once; what follows it is retriable")
    if (cls.pivot or cls.retriable) and undoable:
        _refuse(where, "has a compensation, but nothing is undone at or after the pivot. Remove one of the two")
    if (cls.pivot or cls.retriable) and _says_compensate(cls):
        _refuse(where, 'cannot have on_exhausted = "compensate" at or after the pivot. It blocks; remove the line')
    if undoable and cls.nothing_to_undo:
        _refuse(where, "says nothing_to_undo and has a compensation. Remove one of the two")


def _is_undoable(cls: type[definition.Step[Any, Any]]) -> bool:
    return overrides(cls, definition.Step, "compensation")


def _says_compensate(cls: type[definition.Step[Any, Any]]) -> bool:
    own = cls.__mro__[: cls.__mro__.index(definition.Step)]
    return cls.on_exhausted == "compensate" and any("on_exhausted" in vars(base) for base in own)


def checked_plan(saga: type[definition.Saga[Any]]) -> Plan:
    """Compile a saga's steps.

    Raises:
        SagaDefinitionError: names clash, roles are out of order, or something is missing.
    """
    where = f"saga {saga.name!r} ({saga.__name__})"
    if not _NAME.match(saga.name):
        _refuse(where, f"has an unusable name. {_NAME_RULE}")
    _check_saga(where, saga)
    compiler = _Compiler(saga, where)
    root = Branch(tuple(compiler.compile(node, top=True) for node in _steps_of(saga)), together=False)
    return Plan(root, compiler.leaves, compiler.pivot, fingerprint_of(root), saga.deadline)


def state_type_of(saga: type[definition.Saga[Any]]) -> type[BaseModel]:
    """Read the state out of the base `Saga[OrderState]`.

    Raises:
        SagaDefinitionError: it is not there, or no pydantic model.
    """
    where = f"saga {saga.name!r} ({saga.__name__})"
    arguments = type_arguments(saga, definition.Saga)
    if not arguments or not issubclass(arguments[0], BaseModel):
        _refuse(
            where, f"does not say its state. Write class {saga.__name__}(Saga[State]), State being a pydantic model"
        )
    state: type[BaseModel] = arguments[0]
    return state


def _steps_of(saga: Any) -> Iterable[object]:
    """What the author listed, be it steps or not."""
    steps: Iterable[object] = saga.steps
    return steps


def _check_saga(where: str, saga: type[definition.Saga[Any]]) -> None:
    if not isinstance(_steps_of(saga), tuple):
        _refuse(where, "has steps that are no tuple. Write steps = (FirstStep(), ...), with a comma even after one")
    _check_hooks(where, saga, _SAGA_HOOKS)
    _check_durations(where, saga, "deadline", optional=True)
    _check_word(where, saga, "on_compensation_failure", ("block", "continue_others"))


class _Compiler:
    """Walks the steps in order and keeps what the rules need: the leaves so far, and the pivot once seen."""

    def __init__(self, saga: type[definition.Saga[Any]], where: str) -> None:
        self.saga, self.where = saga, where
        self.state = state_type_of(saga)
        self.leaves: dict[str, LeafPlan] = {}
        self.pivot = ""

    def compile(self, node: Any, *, top: bool) -> LeafPlan | Branch:
        """Compile one node of the tree; `top` says that it stands in the saga's own sequence."""
        kinds = type(node).__mro__  # isinstance would bring in type parameters that nobody knows here
        if definition.Parallel in kinds:
            return self._group(node.branches, together=True, settle_all=node.settle_all)
        if definition.Sequence in kinds:
            return self._group(node.steps, together=False)
        if definition.Step in kinds:
            leaf: LeafPlan = self._command_leaf(node, top=top)
        elif definition.WaitForEvent in kinds:
            leaf = self._event_leaf(node)
        elif definition.Delay in kinds:
            leaf = self._delay_leaf(node)
        elif isinstance(node, type):
            _refuse(self.where, f"lists the class {node.__name__}. List an instance: {node.__name__}()")
        else:
            _refuse(self.where, f"lists {node!r}, which is no step")
        self.leaves[leaf.name] = leaf
        return leaf

    def _group(self, parts: tuple[definition.Node[Any], ...], *, together: bool, settle_all: bool = False) -> Branch:
        if not parts:
            kind = "Parallel" if together else "Sequence"
            _refuse(self.where, f"has an empty {kind}. Give it steps, or remove it")
        return Branch(tuple(self.compile(part, top=False) for part in parts), together, settle_all)

    def _command_leaf(self, step: definition.Step[Any, Any], *, top: bool) -> CommandLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        reply = self._types_of(where, step, definition.Step, "Reply")[1]
        if not step.participant:
            _refuse(where, 'has no participant. Set participant = "<queue name>" on the class')
        self._check_place(where, step, top=top)
        commands = self._commands_of(where, step, "command")
        for command in commands:
            self._check_reply(where, command, reply)
        undoable = _is_undoable(type(step))
        compensations = self._commands_of(where, step, "compensation") if undoable else ()
        after_pivot = bool(self.pivot) and not step.pivot
        return CommandLeaf(step, len(self.leaves), commands, compensations, reply, after_pivot)

    def _event_leaf(self, step: definition.WaitForEvent[Any, Any]) -> EventLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        event = self._types_of(where, step, definition.WaitForEvent, "Event")[1]
        if step.timeout is None and self.saga.deadline is None:
            _refuse(where, "waits without bound. Set timeout on it, or deadline on the saga")
        if step.timeout is None and self.pivot:
            _refuse(where, "comes after the pivot, where no saga deadline ends it. Set timeout on it")
        base, cls = definition.WaitForEvent, type(step)
        if overrides(cls, base, "event_key") != overrides(cls, base, "awaited_key"):
            _refuse(where, "defines one of awaited_key and event_key. Define both, or neither")
        return EventLeaf(step, len(self.leaves), event, after_pivot=bool(self.pivot))

    def _delay_leaf(self, step: definition.Delay[Any]) -> DelayLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        self._types_of(where, step, definition.Delay)
        return DelayLeaf(step, len(self.leaves), after_pivot=bool(self.pivot))

    def _types_of(self, where: str, step: definition.Leaf[Any], base: type, *messages: str) -> tuple[type[Any], ...]:
        """The state and message types of a step, which is new here and works on the saga's state."""
        if step.name in self.leaves:
            _refuse(where, "is listed twice. State belongs to names: give one of them another")
        arguments = type_arguments(type(step), base)
        if not arguments:
            types = ", ".join((self.state.__name__, *messages))
            form = f"{type(step).__name__}({base.__name__}[{types}])"
            _refuse(where, f"does not say its types. Write class {form}")
        if not issubclass(self.state, arguments[0]):
            _refuse(where, f"works on {arguments[0].__name__}, but the saga's state is {self.state.__name__}")
        return arguments

    def _check_place(self, where: str, step: definition.Step[Any, Any], *, top: bool) -> None:
        if step.pivot:
            self._take_pivot(where, step, top=top)
        elif step.retriable and not self.pivot:
            _refuse(where, "is retriable but comes before any pivot. Only what follows the pivot is")
        elif not step.retriable and self.pivot:
            problem = f"comes after the pivot {self.pivot} and cannot be undone there"
            _refuse(where, f"{problem}. Set retriable = True, or move it")
        if not (_is_undoable(type(step)) or step.nothing_to_undo or step.pivot or step.retriable):
            _refuse(where, "says nothing about undoing it. Define compensation(), or set nothing_to_undo = True")

    def _take_pivot(self, where: str, step: definition.Step[Any, Any], *, top: bool) -> None:
        if self.pivot:
            _refuse(where, f"is a second pivot, after {self.pivot}. A saga has one at most")
        if not top:
            _refuse(where, "is a pivot inside a group. The pivot stands in the saga's own sequence")
        self.pivot = step.name

    def _check_reply(self, where: str, command: type[Command[Any]], awaited: type) -> None:
        if issubclass(command.reply_type, awaited):
            return
        answer = command.reply_type.__name__
        problem = f"sends {command.__name__}, which is answered with {answer}, but awaits {awaited.__name__}"
        _refuse(where, f"{problem}. Write Step[{self.state.__name__}, {answer}]")

    def _commands_of(self, where: str, step: definition.Step[Any, Any], method: str) -> tuple[type[Command[Any]], ...]:
        try:
            types = returned_types(getattr(type(step), method))
        except NameError as error:
            problem = f"has a {method}() whose return annotation cannot be read ({error})"
            _refuse(where, f"{problem}. Define the class it names at module level")
        commands = cast("list[type[Command[Any]]]", [t for t in types if issubclass(t, Command)])
        # Command itself, or Command[SomeReply], is a spelling and no message: nothing on the wire is called that.
        if not commands or any(c is Command or c.__pydantic_generic_metadata__["args"] for c in commands):
            problem = f"has a {method}() that does not name its command"
            _refuse(where, f"{problem}. Annotate it: def {method}(...) -> TheCommand")
        return tuple(commands)
