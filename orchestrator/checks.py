"""The rules a definition must keep, checked when the class is created: the error names class and remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from messaging.messages import Command, Event
from orchestrator.errors import SagaDefinitionError
from orchestrator.plan import (
    Branch,
    CommandLeaf,
    EventLeaf,
    LeafPlan,
    Plan,
    fingerprint_of,
    returned_types,
    type_arguments,
)

if TYPE_CHECKING:
    from orchestrator.definition import Leaf, Node, Saga, Step, WaitForEvent

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def checked_step(cls: type[Leaf[Any]]) -> None:
    """Check what can be seen from a step class alone.

    Raises:
        SagaDefinitionError: the class contradicts itself.
    """
    from orchestrator.definition import Step

    where = f"step {cls.__name__}"
    if not _NAME.match(cls.name):
        raise SagaDefinitionError(where, f"has the name {cls.name!r}. Use 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    if issubclass(cls, Step) and not getattr(cls, "__abstractmethods__", None) and type_arguments(cls, Step):
        _check_role(where, cls)


def _check_role(where: str, cls: type[Step[Any, Any]]) -> None:
    from orchestrator.definition import Step

    undoable = cls.compensation is not Step.compensation
    if cls.pivot and cls.retriable:
        raise SagaDefinitionError(where, "is both pivot and retriable. The pivot comes once; what follows it is retriable")
    if (cls.pivot or cls.retriable) and undoable:
        raise SagaDefinitionError(where, "has a compensation, but nothing is undone at or after the pivot. Remove one of the two")
    if (cls.pivot or cls.retriable) and "on_exhausted" in vars(cls) and cls.on_exhausted == "compensate":
        raise SagaDefinitionError(where, 'cannot have on_exhausted = "compensate" at or after the pivot. It blocks; remove the line')
    if undoable and cls.nothing_to_undo:
        raise SagaDefinitionError(where, "says nothing_to_undo and has a compensation. Remove one of the two")
    if cls.timeout.total_seconds() <= 0 or cls.compensation_timeout.total_seconds() <= 0:
        raise SagaDefinitionError(where, "has a timeout that is not positive")


def checked_plan(saga: type[Saga[Any]]) -> Plan:
    """Compile a saga's steps.

    Raises:
        SagaDefinitionError: names clash, roles are out of order, or something is missing.
    """
    where = f"saga {saga.name!r} ({saga.__name__})"
    if not _NAME.match(saga.name):
        raise SagaDefinitionError(where, "has an unusable name. Use 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    compiler = _Compiler(saga, where)
    root = Branch(tuple(compiler.compile(node, top=True) for node in saga.steps), together=False)
    return Plan(root, compiler.leaves, compiler.pivot, fingerprint_of(root), saga.deadline)


class _Compiler:
    def __init__(self, saga: type[Saga[Any]], where: str) -> None:
        self.saga, self.where = saga, where
        self.leaves: dict[str, LeafPlan] = {}
        self.pivot = ""

    def compile(self, node: Node[Any], *, top: bool) -> LeafPlan | Branch:
        from orchestrator.definition import Parallel, Sequence, Step, WaitForEvent

        if isinstance(node, type):
            raise SagaDefinitionError(self.where, f"lists the class {node.__name__}. List an instance: {node.__name__}()")
        if isinstance(node, (Parallel, Sequence)):
            parts = node.branches if isinstance(node, Parallel) else node.steps
            if not parts:
                raise SagaDefinitionError(self.where, f"has an empty {type(node).__name__}. Give it steps, or remove it")
            return Branch(tuple(self.compile(part, top=False) for part in parts), together=isinstance(node, Parallel))
        if isinstance(node, Step):
            leaf: LeafPlan = self.command_leaf(node, top=top)
        elif isinstance(node, WaitForEvent):
            leaf = self.event_leaf(node)
        else:
            raise SagaDefinitionError(self.where, f"lists {node!r}, which is no step")
        self.leaves[leaf.name] = leaf
        return leaf

    def command_leaf(self, step: Step[Any, Any], *, top: bool) -> CommandLeaf:
        from orchestrator.definition import Step

        where = f"step {step.name} of saga {self.saga.name!r}"
        self.check_leaf(where, step, Step)
        if not step.participant:
            raise SagaDefinitionError(where, 'has no participant. Set participant = "<queue name>" on the class')
        if step.pivot:
            self.take_pivot(where, step, top=top)
        elif step.retriable and not self.pivot:
            raise SagaDefinitionError(where, "is retriable but comes before any pivot. Only what follows the pivot is")
        elif not step.retriable and self.pivot:
            raise SagaDefinitionError(
                where, f"comes after the pivot {self.pivot} and cannot be undone there. Set retriable = True, or move it"
            )
        undoable = type(step).compensation is not Step.compensation
        if not (undoable or step.nothing_to_undo or step.pivot or step.retriable):
            raise SagaDefinitionError(
                where, "says nothing about undoing it. Define compensation(), or set nothing_to_undo = True"
            )
        commands = self.commands_of(where, step, "command")
        reply_type = type_arguments(type(step), Step)[1]
        for command in commands:
            if not issubclass(command.reply_type, reply_type):
                raise SagaDefinitionError(
                    where,
                    f"sends {command.__name__}, which is answered with {command.reply_type.__name__}, but awaits "
                    f"{reply_type.__name__}. Write Step[{self.saga.state_type.__name__}, {command.reply_type.__name__}]",
                )
        compensations = self.commands_of(where, step, "compensation") if undoable else ()
        after_pivot = bool(self.pivot) and not step.pivot
        return CommandLeaf(step, len(self.leaves), commands, compensations, reply_type, after_pivot)

    def event_leaf(self, step: WaitForEvent[Any, Any]) -> EventLeaf:
        from orchestrator.definition import WaitForEvent

        where = f"step {step.name} of saga {self.saga.name!r}"
        self.check_leaf(where, step, WaitForEvent)
        if step.timeout is None and self.saga.deadline is None:
            raise SagaDefinitionError(where, "waits without bound. Set timeout on it, or deadline on the saga")
        if step.timeout is None and self.pivot:
            raise SagaDefinitionError(where, "comes after the pivot, where no saga deadline ends it. Set timeout on it")
        keyed = type(step).event_key is not WaitForEvent.event_key
        if keyed != (type(step).awaited_key is not WaitForEvent.awaited_key):
            raise SagaDefinitionError(where, "defines one of awaited_key and event_key. Define both, or neither")
        event: type[Event] = type_arguments(type(step), WaitForEvent)[1]
        return EventLeaf(step, len(self.leaves), event, after_pivot=bool(self.pivot))

    def check_leaf(self, where: str, step: Leaf[Any], origin: type) -> None:
        arguments = type_arguments(type(step), origin)
        if step.name in self.leaves:
            raise SagaDefinitionError(where, "is listed twice. State belongs to names: give one of them another")
        if not arguments:
            raise SagaDefinitionError(where, f"does not say its types. Write class {type(step).__name__}({origin.__name__}[State, ...])")
        if not issubclass(self.saga.state_type, arguments[0]):
            raise SagaDefinitionError(
                where, f"works on {arguments[0].__name__}, but the saga's state is {self.saga.state_type.__name__}"
            )

    def take_pivot(self, where: str, step: Step[Any, Any], *, top: bool) -> None:
        if self.pivot:
            raise SagaDefinitionError(where, f"is a second pivot, after {self.pivot}. A saga has one at most")
        if not top:
            raise SagaDefinitionError(where, "is a pivot inside a group. The pivot stands in the saga's own sequence")
        self.pivot = step.name

    def commands_of(self, where: str, step: Step[Any, Any], method: str) -> tuple[type[Command[Any]], ...]:
        try:
            types = returned_types(getattr(type(step), method))
        except NameError as error:
            raise SagaDefinitionError(
                where, f"has a {method}() whose return annotation cannot be read ({error}). Define the class at module level"
            ) from None
        commands = tuple(t for t in types if issubclass(t, Command))
        if not commands or Command in commands:
            raise SagaDefinitionError(where, f"has a {method}() that does not name its command. Annotate it: def {method}(...) -> TheCommand")
        return commands
