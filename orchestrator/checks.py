"""The rules a definition must keep, checked when the class is created: the error names class and remedy."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeAlias, cast

from pydantic import BaseModel, TypeAdapter

from messaging.messages import Command
from messaging.retry import Retry

# The module, not its classes: it imports this one, and either may be imported first.
from orchestrator import definition
from orchestrator.errors import SagaDefinitionError
from orchestrator.plan import (
    Branch,
    ChildLeaf,
    CommandLeaf,
    DelayLeaf,
    EventLeaf,
    EventStart,
    ItemsLeaf,
    LeafPlan,
    LocalLeaf,
    Plan,
    fingerprint_of,
    overrides,
    returned_types,
    type_arguments,
)
from orchestrator.searchable import searchable_fields

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_NAME_RULE: Final = "Use 1 to 64 of the characters A-Z a-z 0-9 _ . -"
_STEP_HOOKS: Final = ("when", "events", "command", "on_reply", "on_failure", "compensation")
_WAIT_HOOKS: Final = ("when", "events", "awaited_key", "event_key", "on_event", "on_expired")
_DELAY_HOOKS: Final = ("when", "events", "until")
_ITEM_HOOKS: Final = ("when", "command", "on_reply", "on_failure", "compensation")
_FOR_EACH_HOOKS: Final = ("when", "events", "items", "item_key")
_CHILD_HOOKS: Final = ("when", "events", "child_state", "on_completed", "on_compensated")
_LOCAL_HOOKS: Final = ("when", "events", "on_failure")
_MOST_AT_ONCE: Final = 1000
_SAGA_HOOKS: Final = ("on_completed", "on_compensated")
_START_HOOKS: Final = ("event_key", "state")


_WithRole: TypeAlias = "definition.Step[Any, Any] | definition.ItemStep[Any, Any, Any] | definition.LocalStep[Any]"


def checked_step(cls: type[Any]) -> None:
    """Check what can be seen from a step class alone.

    Raises:
        SagaDefinitionError: the class contradicts itself.
    """
    where = f"step {cls.__name__}"
    if not _NAME.match(cls.name):
        _refuse(where, f"has the name {cls.name!r}. {_NAME_RULE}")
    if definition.Locking in cls.__mro__:
        _check_locks(where, cls)
    elif named := next((name for name in ("locks", "lock_timeout", "on_locked") if hasattr(cls, name)), ""):
        _refuse(
            where,
            f"has {named}, but a Step, a LocalStep or a SubSaga alone holds locks. Name them in one before it: "
            "what a saga holds it holds until it has ended, for its items too",
        )
    if definition.Sending in cls.__mro__:
        _check_hooks(where, cls, _STEP_HOOKS if definition.Step in cls.__mro__ else _ITEM_HOOKS)
        _check_durations(where, cls, "timeout", "compensation_timeout")
        _check_policies(where, cls)
        _check_role(where, cls)
    elif definition.LocalStep in cls.__mro__:
        _check_hooks(where, cls, _LOCAL_HOOKS)
        _check_functions(where, cls)
        _check_durations(where, cls, "timeout")
        _check_policies(where, cls)
        _check_role(where, cls)
    elif definition.WaitForEvent in cls.__mro__:
        _check_hooks(where, cls, _WAIT_HOOKS)
        _check_durations(where, cls, "timeout", "accepts_events_up_to", optional=True)
        _check_word(where, cls, "on_timeout", ("compensate", "continue", "block"))
    elif definition.Delay in cls.__mro__:
        _check_hooks(where, cls, _DELAY_HOOKS)
    elif definition.ForEach in cls.__mro__:
        _check_hooks(where, cls, _FOR_EACH_HOOKS)
        _check_numbers(where, cls, "concurrency", "compensation_concurrency")
    elif definition.SubSaga in cls.__mro__:
        _check_hooks(where, cls, _CHILD_HOOKS)
        _check_durations(where, cls, "timeout", optional=True)


def _refuse(where: str, problem: str) -> NoReturn:
    raise SagaDefinitionError(where, problem)


def _check_hooks(where: str, cls: type, names: Iterable[str]) -> None:
    for name in names:
        if inspect.iscoroutinefunction(getattr(cls, name)):
            _refuse(where, f"has an async {name}(). Hooks only look at the state: write a plain def")


def _check_functions(where: str, cls: type) -> None:
    for name in ("run", "undo"):
        if not inspect.iscoroutinefunction(getattr(cls, name)):
            _refuse(where, f"has a plain {name}(). It works on an AsyncSession: write async def {name}")


def _check_durations(where: str, cls: type, *names: str, optional: bool = False) -> None:
    for name in names:
        value = getattr(cls, name)
        if value is None and optional:
            continue
        if not isinstance(value, timedelta):
            _refuse(where, f"has {name} = {value!r}. Write a timedelta, such as timedelta(seconds=30)")
        if value <= timedelta(0):
            article = "an" if name[0] in "aeiou" else "a"
            _refuse(where, f"has {article} {name} that is not positive ({value})")


def _check_numbers(where: str, cls: type, *names: str) -> None:
    for name in names:
        value: object = getattr(cls, name)
        if not isinstance(value, int) or not 1 <= value <= _MOST_AT_ONCE:
            _refuse(where, f"has {name} = {value!r}. Write a number from 1 to {_MOST_AT_ONCE}")


def _check_policies(where: str, cls: type) -> None:
    for name in ("retry", "compensation_retry"):
        if not isinstance(getattr(cls, name), Retry):
            _refuse(where, f"has {name} = {getattr(cls, name)!r}. Write a policy, such as Retry(max_attempts=3)")
    _check_word(where, cls, "on_exhausted", ("compensate", "block"))


def _check_word(where: str, cls: type, name: str, words: tuple[str, ...]) -> None:
    if getattr(cls, name) not in words:
        _refuse(where, f"has {name} = {getattr(cls, name)!r}. Use one of: {', '.join(words)}")


def _check_role(where: str, cls: type[_WithRole]) -> None:
    undoable = _is_undoable(cls)
    if cls.pivot and cls.retriable:
        _refuse(where, "is both pivot and retriable. The pivot comes once; what follows it is retriable")
    if (cls.pivot or cls.retriable) and undoable:
        _refuse(where, f"defines {_undo_of(cls)}(), but nothing is undone at or after the pivot. Remove one of the two")
    known_not_to_happen = definition.LocalStep in cls.__mro__ and cls.pivot
    if (cls.pivot or cls.retriable) and _says_compensate(cls) and not known_not_to_happen:
        _refuse(where, 'cannot have on_exhausted = "compensate" at or after the pivot. It blocks; remove the line')
    if undoable and cls.nothing_to_undo:
        _refuse(where, f"says nothing_to_undo and defines {_undo_of(cls)}(). Remove one of the two")


def _base_of(cls: type[_WithRole]) -> type[Any]:
    bases: tuple[type[Any], ...] = (definition.LocalStep, definition.ItemStep, definition.Step)
    return next(base for base in bases if base in cls.__mro__)


def _undo_of(cls: type[_WithRole]) -> str:
    """What undoes a step of this kind."""
    return "undo" if _base_of(cls) is definition.LocalStep else "compensation"


def _is_undoable(cls: type[_WithRole]) -> bool:
    return overrides(cls, _base_of(cls), _undo_of(cls))


def _says_compensate(cls: type[_WithRole]) -> bool:
    own = cls.__mro__[: cls.__mro__.index(_base_of(cls))]
    return cls.on_exhausted == "compensate" and any("on_exhausted" in vars(base) for base in own)


def names_locks(step: object) -> bool:
    """Whether the author says which resources a step holds."""
    return definition.Locking in type(step).__mro__ and overrides(type(step), definition.Locking, "locks")


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
    starts = _starts_of(where, saga, compiler.state)
    return Plan(
        root,
        compiler.leaves,
        compiler.pivot,
        fingerprint_of(root),
        saga.deadline,
        starts,
        _locks(compiler.leaves),
        _searchable(compiler.state),
    )


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


def _locks(leaves: Mapping[str, LeafPlan]) -> bool:
    return any(
        names_locks(leaf.step) or (isinstance(leaf, ChildLeaf) and leaf.step.saga.plan.locking)
        for leaf in leaves.values()
    )


def _searchable(state: type[BaseModel]) -> tuple[str, ...]:
    try:
        return searchable_fields(state)
    except ValueError as error:
        _refuse(f"state {state.__name__}", str(error))


def _check_locks(where: str, cls: type[Any]) -> None:
    _check_hooks(where, cls, ("locks",))
    _check_durations(where, cls, "lock_timeout", optional=True)
    _check_word(where, cls, "on_locked", ("wait", "fail"))
    if not overrides(cls, definition.Locking, "locks"):
        return
    if cls.on_locked == "wait" and cls.lock_timeout is None:
        _refuse(where, 'names locks and would wait for them without end. Set lock_timeout, or on_locked = "fail"')


def _starts_of(where: str, saga: Any, state: type[BaseModel]) -> tuple[EventStart, ...]:
    listed: tuple[Any, ...] = saga.starts_on
    if type(listed) is not tuple:
        _refuse(where, "has starts_on that is no tuple. Write starts_on = (TheStart(),), with a comma even after one")
    starts = tuple(_start_of(where, one, state) for one in listed)
    names = [start.event.wire_name for start in starts]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        _refuse(where, f"starts on event {twice!r} twice. One event starts one saga: remove one of the two")
    return starts


def _start_of(where: str, start: Any, state: type[BaseModel]) -> EventStart:
    if isinstance(start, type):
        _refuse(where, f"lists the class {start.__name__} in starts_on. List an instance: {start.__name__}()")
    if definition.StartOnEvent not in type(start).__mro__:
        _refuse(where, f"lists {start!r} in starts_on, which is no StartOnEvent")
    cls: type[Any] = start.__class__
    arguments = type_arguments(cls, definition.StartOnEvent)
    if not arguments:
        form = f"{cls.__name__}(StartOnEvent[{state.__name__}, Event])"
        _refuse(cls.__name__, f"does not say its types. Write class {form}")
    if not issubclass(arguments[0], state):
        _refuse(cls.__name__, f"makes {arguments[0].__name__}, but the state of {where} is {state.__name__}")
    _check_hooks(cls.__name__, cls, _START_HOOKS)
    return EventStart(start, arguments[1])


def _check_saga(where: str, saga: type[definition.Saga[Any]]) -> None:
    if not isinstance(_steps_of(saga), tuple):
        _refuse(where, "has steps that are no tuple. Write steps = (FirstStep(), ...), with a comma even after one")
    _check_hooks(where, saga, _SAGA_HOOKS)
    _check_durations(where, saga, "deadline", "alarm_after", optional=True)
    _check_word(where, saga, "on_compensation_failure", ("block", "continue_others"))
    if not isinstance(cast("object", saga.keep_states), bool):
        _refuse(where, f"has keep_states = {saga.keep_states!r}. Write True or False")


class _Compiler:
    """Walks the steps in order and keeps what the rules need: the leaves so far, and the pivot once seen."""

    def __init__(self, saga: type[definition.Saga[Any]], where: str) -> None:
        self.saga, self.where = saga, where
        self.state = state_type_of(saga)
        self.leaves: dict[str, LeafPlan] = {}
        self.pivot = ""
        self.group: definition.ForEach[Any, Any] | None = None
        """The `ForEach` whose steps are being compiled, and the type of its items."""
        self.item: type[Any] = object

    def compile(self, node: Any, *, top: bool) -> LeafPlan | Branch:
        """Compile one node of the tree; `top` says that it stands in the saga's own sequence."""
        kinds = type(node).__mro__  # isinstance would bring in type parameters that nobody knows here
        if definition.Parallel in kinds and node.settle_all and self.group is not None:
            _refuse(
                self.where, f"has a Parallel with settle_all in the ForEach {self.group.name}. Leave settle_all out"
            )
        if definition.Parallel in kinds:
            return self._group(node.branches, together=True, settle_all=node.settle_all)
        if definition.Sequence in kinds:
            return self._group(node.steps, together=False)
        if definition.Named in kinds and (self.group is None) == (definition.ItemStep in kinds):
            self._misplaced(node)
        if definition.Sending in kinds:
            leaf: LeafPlan = self._command_leaf(node, top=top)
        elif definition.ForEach in kinds:
            leaf = self._items_leaf(node)
        elif definition.SubSaga in kinds:
            leaf = self._child_leaf(node)
        elif definition.WaitForEvent in kinds:
            leaf = self._event_leaf(node)
        elif definition.Delay in kinds:
            leaf = self._delay_leaf(node)
        elif definition.LocalStep in kinds:
            leaf = self._local_leaf(node, top=top)
        elif isinstance(node, type):
            _refuse(self.where, f"lists the class {node.__name__}. List an instance: {node.__name__}()")
        else:
            _refuse(self.where, f"lists {node!r}, which is no step")
        if leaf.after_pivot and names_locks(leaf.step):
            problem = f"comes after the pivot {self.pivot} and names locks, for which nothing can fail there"
            _refuse(f"step {leaf.name} of saga {self.saga.name!r}", f"{problem}. Name them in a step before it")
        self.leaves[leaf.name] = leaf
        return leaf

    def _group(self, parts: tuple[definition.Node[Any], ...], *, together: bool, settle_all: bool = False) -> Branch:
        if not parts:
            kind = "Parallel" if together else "Sequence"
            _refuse(self.where, f"has an empty {kind}. Give it steps, or remove it")
        return Branch(tuple(self.compile(part, top=False) for part in parts), together, settle_all)

    def _misplaced(self, node: definition.Named[Any]) -> NoReturn:
        where = f"step {node.name} of saga {self.saga.name!r}"
        if self.group is None:
            _refuse(where, "is an ItemStep outside of a ForEach. List it in the steps of one, or make it a Step")
        _refuse(where, f"stands in the ForEach {self.group.name}, which takes ItemSteps alone, in groups if need be")

    def _items_leaf(self, step: definition.ForEach[Any, Any]) -> ItemsLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        item = self._types_of(where, step, definition.ForEach, "Item")[1]
        if not step.steps:
            _refuse(where, "has no steps for its items. Set steps = (SomeItemStep(), ...)")
        self.group, self.item = step, item
        position, after_pivot = len(self.leaves), bool(self.pivot)
        inner = self._group(step.steps, together=False)
        self.group = None
        return ItemsLeaf(step, position, inner, TypeAdapter(item), after_pivot)

    def _child_leaf(self, step: definition.SubSaga[Any, Any]) -> ChildLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        child = self._types_of(where, step, definition.SubSaga, "ChildState")[1]
        saga: type[Any] | None = getattr(step, "saga", None)
        if saga is None or not hasattr(saga, "plan"):
            _refuse(where, "does not say which saga it starts. Set saga = TheChildSaga on the class")
        if not issubclass(saga.state_type, child):
            _refuse(where, f"starts {saga.__name__}, whose state is {saga.state_type.__name__}, not {child.__name__}")
        if step.retriable and not self.pivot:
            _refuse(where, "is retriable but comes before any pivot. Only what follows the pivot is")
        if self.pivot and not step.retriable:
            _refuse(where, f"comes after the pivot {self.pivot} and cannot be undone there. Set retriable = True")
        if saga.plan.pivot and not (self.pivot or step.nothing_to_undo):
            problem = f"cannot be undone, for {saga.__name__} has a pivot, {saga.plan.pivot}"
            _refuse(where, f"{problem}. Set nothing_to_undo = True, or put the step after the pivot")
        return ChildLeaf(step, len(self.leaves), after_pivot=bool(self.pivot))

    def _command_leaf(
        self, step: definition.Step[Any, Any] | definition.ItemStep[Any, Any, Any], *, top: bool
    ) -> CommandLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        base = _base_of(type(step))
        *others, reply = self._types_of(where, step, base, *(("Item",) if self.group else ()), "Reply")
        if self.group is not None and not issubclass(self.item, others[1]):
            _refuse(
                where, f"works on {others[1].__name__}, but the items of {self.group.name} are {self.item.__name__}"
            )
        if not step.participant:
            _refuse(where, 'has no participant. Set participant = "<queue name>" on the class')
        self._check_place(where, step, top=top)
        commands = self._commands_of(where, step, "command")
        for command in commands:
            self._check_reply(where, command, reply)
        undoable = _is_undoable(type(step))
        compensations = self._commands_of(where, step, "compensation") if undoable else ()
        after_pivot = bool(self.pivot) and not step.pivot
        group = self.group.name if self.group else ""
        return CommandLeaf(step, len(self.leaves), commands, compensations, reply, after_pivot, base, group)

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

    def _local_leaf(self, step: definition.LocalStep[Any], *, top: bool) -> LocalLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        self._types_of(where, step, definition.LocalStep)
        self._check_place(where, step, top=top)
        after_pivot = bool(self.pivot) and not step.pivot
        return LocalLeaf(step, len(self.leaves), _is_undoable(type(step)), after_pivot)

    def _types_of(self, where: str, step: definition.Named[Any], base: type, *messages: str) -> tuple[type[Any], ...]:
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

    def _check_place(self, where: str, step: _WithRole, *, top: bool) -> None:
        if step.pivot:
            self._take_pivot(where, step, top=top)
        elif step.retriable and not self.pivot:
            _refuse(where, "is retriable but comes before any pivot. Only what follows the pivot is")
        elif not step.retriable and self.pivot:
            problem = f"comes after the pivot {self.pivot} and cannot be undone there"
            _refuse(where, f"{problem}. Set retriable = True, or move it")
        if not (_is_undoable(type(step)) or step.nothing_to_undo or step.pivot or step.retriable):
            undo = _undo_of(type(step))
            _refuse(where, f"says nothing about undoing it. Define {undo}(), or set nothing_to_undo = True")

    def _take_pivot(self, where: str, step: _WithRole, *, top: bool) -> None:
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

    def _commands_of(self, where: str, step: _WithRole, method: str) -> tuple[type[Command[Any]], ...]:
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
