"""Turns the steps that a saga's author listed into a plan, and refuses what is out of order or missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from pydantic import TypeAdapter

from orchestrator.plan import (
    Branch,
    ChildLeaf,
    CommandLeaf,
    DelayLeaf,
    EventLeaf,
    ItemsLeaf,
    LeafPlan,
    LocalLeaf,
    Plan,
    fingerprint_of,
    overrides,
    type_arguments,
)
from orchestrator.saga_checks import named, searchable, starts_of, steps_of
from orchestrator.step_checks import refuse
from orchestrator.step_commands import check_reply, commands_of
from orchestrator.steps import (
    KINDS,
    Delay,
    ForEach,
    ItemStep,
    LocalStep,
    Locking,
    Named,
    Node,
    Parallel,
    Sending,
    Sequence,
    Step,
    SubSaga,
    WaitForEvent,
)

if TYPE_CHECKING:
    from orchestrator.definition import Saga

WithRole: TypeAlias = "Step[Any, Any] | ItemStep[Any, Any, Any] | LocalStep[Any]"


def compiled(saga: type[Saga[Any]]) -> Plan:
    """Compile a saga's steps; its state is known.

    Raises:
        SagaDefinitionError: names clash, roles are out of order, or something is missing.
    """
    compiler = _Compiler(saga, named(saga))
    root = Branch(tuple(compiler.compile(node, top=True) for node in steps_of(saga)), together=False)
    return Plan(
        root,
        compiler.leaves,
        compiler.pivot,
        fingerprint_of(root),
        saga.deadline,
        starts_of(saga),
        _locking(compiler.leaves),
        searchable(saga.state_type),
    )


def names_locks(step: object) -> bool:
    """Whether the author says which resources a step holds."""
    return Locking in type(step).__mro__ and overrides(type(step), Locking, "locks")


def _locking(leaves: Mapping[str, LeafPlan]) -> bool:
    return any(
        names_locks(leaf.step) or (isinstance(leaf, ChildLeaf) and leaf.step.saga.plan.locking)
        for leaf in leaves.values()
    )


def _base_of(step: WithRole) -> type[Any]:
    return next(base for base in type(step).__mro__ if base in KINDS)


def _is_undoable(step: WithRole) -> bool:
    base = _base_of(step)
    return overrides(type(step), base, KINDS[base].undo)


class _Compiler:
    """Walks the steps in order and keeps what the rules need: the leaves so far, and the pivot once seen."""

    def __init__(self, saga: type[Saga[Any]], where: str) -> None:
        self.saga, self.where, self.state = saga, where, saga.state_type
        self.leaves: dict[str, LeafPlan] = {}
        self.pivot = ""
        self.group: ForEach[Any, Any] | None = None
        """The `ForEach` whose steps are being compiled, and the type of its items."""
        self.item: type[Any] = object

    def compile(self, node: Any, *, top: bool) -> LeafPlan | Branch:
        """Compile one node of the tree; `top` says that it stands in the saga's own sequence."""
        kinds = type(node).__mro__  # isinstance would bring in type parameters that nobody knows here
        if Parallel in kinds and node.settle_all and self.group is not None:
            refuse(self.where, f"has a Parallel with settle_all in the ForEach {self.group.name}. Leave settle_all out")
        if Parallel in kinds:
            return self._group(node.branches, together=True, settle_all=node.settle_all)
        if Sequence in kinds:
            return self._group(node.steps, together=False)
        if Named in kinds and (self.group is None) == (ItemStep in kinds):
            self._misplaced(node)
        if Sending in kinds:
            leaf: LeafPlan = self._command_leaf(node, top=top)
        elif ForEach in kinds:
            leaf = self._items_leaf(node)
        elif SubSaga in kinds:
            leaf = self._child_leaf(node)
        elif WaitForEvent in kinds:
            leaf = self._event_leaf(node)
        elif Delay in kinds:
            leaf = self._delay_leaf(node)
        elif LocalStep in kinds:
            leaf = self._local_leaf(node, top=top)
        elif isinstance(node, type):
            refuse(self.where, f"lists the class {node.__name__}. List an instance: {node.__name__}()")
        else:
            refuse(self.where, f"lists {node!r}, which is no step")
        if leaf.after_pivot and names_locks(leaf.step):
            problem = f"comes after the pivot {self.pivot} and names locks, for which nothing can fail there"
            refuse(f"step {leaf.name} of saga {self.saga.name!r}", f"{problem}. Name them in a step before it")
        self.leaves[leaf.name] = leaf
        return leaf

    def _group(self, parts: tuple[Node[Any], ...], *, together: bool, settle_all: bool = False) -> Branch:
        if not parts:
            kind = "Parallel" if together else "Sequence"
            refuse(self.where, f"has an empty {kind}. Give it steps, or remove it")
        return Branch(tuple(self.compile(part, top=False) for part in parts), together, settle_all)

    def _misplaced(self, node: Named[Any]) -> NoReturn:
        where = f"step {node.name} of saga {self.saga.name!r}"
        if self.group is None:
            refuse(where, "is an ItemStep outside of a ForEach. List it in the steps of one, or make it a Step")
        refuse(where, f"stands in the ForEach {self.group.name}, which takes ItemSteps alone, in groups if need be")

    def _items_leaf(self, step: ForEach[Any, Any]) -> ItemsLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        item = self._types_of(where, step, ForEach, "Item")[1]
        if not step.steps:
            refuse(where, "has no steps for its items. Set steps = (SomeItemStep(), ...)")
        self.group, self.item = step, item
        position, after_pivot = len(self.leaves), bool(self.pivot)
        inner = self._group(step.steps, together=False)
        self.group = None
        return ItemsLeaf(step, position, inner, TypeAdapter(item), after_pivot)

    def _child_leaf(self, step: SubSaga[Any, Any]) -> ChildLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        child = self._types_of(where, step, SubSaga, "ChildState")[1]
        saga: type[Any] | None = getattr(step, "saga", None)
        if saga is None or not hasattr(saga, "plan"):
            refuse(where, "does not say which saga it starts. Set saga = TheChildSaga on the class")
        if not issubclass(saga.state_type, child):
            refuse(where, f"starts {saga.__name__}, whose state is {saga.state_type.__name__}, not {child.__name__}")
        if step.retriable and not self.pivot:
            refuse(where, "is retriable but comes before any pivot. Only what follows the pivot is")
        if self.pivot and not step.retriable:
            refuse(where, f"comes after the pivot {self.pivot} and cannot be undone there. Set retriable = True")
        if saga.plan.pivot and not (self.pivot or step.nothing_to_undo):
            problem = f"cannot be undone, for {saga.__name__} has a pivot, {saga.plan.pivot}"
            refuse(where, f"{problem}. Set nothing_to_undo = True, or put the step after the pivot")
        return ChildLeaf(step, len(self.leaves), after_pivot=bool(self.pivot))

    def _command_leaf(self, step: Step[Any, Any] | ItemStep[Any, Any, Any], *, top: bool) -> CommandLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        base = _base_of(step)
        *others, reply = self._types_of(where, step, base, *(("Item",) if self.group else ()), "Reply")
        if self.group is not None and not issubclass(self.item, others[1]):
            refuse(where, f"works on {others[1].__name__}, but the items of {self.group.name} are {self.item.__name__}")
        if not step.participant:
            refuse(where, 'has no participant. Set participant = "<queue name>" on the class')
        self._check_place(where, step, top=top)
        commands = commands_of(where, step, "command")
        for command in commands:
            check_reply(where, self.state, command, reply)
        undoable = _is_undoable(step)
        compensations = commands_of(where, step, "compensation") if undoable else ()
        after_pivot = bool(self.pivot) and not step.pivot
        group = self.group.name if self.group else ""
        return CommandLeaf(step, len(self.leaves), commands, compensations, reply, after_pivot, base, group)

    def _event_leaf(self, step: WaitForEvent[Any, Any]) -> EventLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        event = self._types_of(where, step, WaitForEvent, "Event")[1]
        if step.timeout is None and self.saga.deadline is None:
            refuse(where, "waits without bound. Set timeout on it, or deadline on the saga")
        if step.timeout is None and self.pivot:
            refuse(where, "comes after the pivot, where no saga deadline ends it. Set timeout on it")
        base, cls = WaitForEvent, type(step)
        if overrides(cls, base, "event_key") != overrides(cls, base, "awaited_key"):
            refuse(where, "defines one of awaited_key and event_key. Define both, or neither")
        return EventLeaf(step, len(self.leaves), event, after_pivot=bool(self.pivot))

    def _delay_leaf(self, step: Delay[Any]) -> DelayLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        self._types_of(where, step, Delay)
        return DelayLeaf(step, len(self.leaves), after_pivot=bool(self.pivot))

    def _local_leaf(self, step: LocalStep[Any], *, top: bool) -> LocalLeaf:
        where = f"step {step.name} of saga {self.saga.name!r}"
        self._types_of(where, step, LocalStep)
        self._check_place(where, step, top=top)
        after_pivot = bool(self.pivot) and not step.pivot
        return LocalLeaf(step, len(self.leaves), _is_undoable(step), after_pivot)

    def _types_of(self, where: str, step: Named[Any], base: type, *messages: str) -> tuple[type[Any], ...]:
        """The state and message types of a step, which is new here and works on the saga's state."""
        if step.name in self.leaves:
            refuse(where, "is listed twice. State belongs to names: give one of them another")
        arguments = type_arguments(type(step), base)
        if not arguments:
            types = ", ".join((self.state.__name__, *messages))
            form = f"{type(step).__name__}({base.__name__}[{types}])"
            refuse(where, f"does not say its types. Write class {form}")
        if not issubclass(self.state, arguments[0]):
            refuse(where, f"works on {arguments[0].__name__}, but the saga's state is {self.state.__name__}")
        return arguments

    def _check_place(self, where: str, step: WithRole, *, top: bool) -> None:
        if step.pivot:
            self._take_pivot(where, step, top=top)
        elif step.retriable and not self.pivot:
            refuse(where, "is retriable but comes before any pivot. Only what follows the pivot is")
        elif not step.retriable and self.pivot:
            problem = f"comes after the pivot {self.pivot} and cannot be undone there"
            refuse(where, f"{problem}. Set retriable = True, or move it")
        if not (_is_undoable(step) or step.nothing_to_undo or step.pivot or step.retriable):
            undo = KINDS[_base_of(step)].undo
            refuse(where, f"says nothing about undoing it. Define {undo}(), or set nothing_to_undo = True")

    def _take_pivot(self, where: str, step: WithRole, *, top: bool) -> None:
        if self.pivot:
            refuse(where, f"is a second pivot, after {self.pivot}. A saga has one at most")
        if not top:
            refuse(where, "is a pivot inside a group. The pivot stands in the saga's own sequence")
        self.pivot = step.name
