"""A saga's steps compiled once: the tree, the leaves by name, what each sends, and the fingerprint."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter

from messaging.messages import Command, Event, Reply

if TYPE_CHECKING:
    from orchestrator.definition import Saga
    from orchestrator.steps import Delay, ForEach, ItemStep, LocalStep, StartOnEvent, Step, SubSaga, WaitForEvent


@dataclass(frozen=True, slots=True)
class CommandLeaf:
    """A step of the plan that sends a command."""

    step: Step[Any, Any] | ItemStep[Any, Any, Any]
    position: int
    commands: tuple[type[Command[Any]], ...]
    compensations: tuple[type[Command[Any]], ...]
    reply: type[Reply]
    after_pivot: bool
    base: type[Any]
    """`Step` or `ItemStep`, which say what hooks do that the author did not write."""
    group: str = ""
    """The `ForEach` it belongs to; hooks are given the item then."""

    def says(self, hook: str) -> bool:
        """Whether the author wrote this hook."""
        return overrides(type(self.step), self.base, hook)

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def undoable(self) -> bool:
        """Whether something undoes it."""
        return bool(self.compensations)

    def command_type(self, wire_name: str) -> type[Command[Any]]:
        """The class of a command this step has sent; names are kept with the row as first written."""
        known = (*self.commands, *self.compensations)
        return next((c for c in known if c.wire_name == wire_name), known[0])


@dataclass(frozen=True, slots=True)
class EventLeaf:
    """A step of the plan that waits for an event."""

    step: WaitForEvent[Any, Any]
    position: int
    event: type[Event]
    after_pivot: bool
    group: str = ""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name


@dataclass(frozen=True, slots=True)
class DelayLeaf:
    """A step of the plan that waits for time to pass."""

    step: Delay[Any]
    position: int
    after_pivot: bool
    group: str = ""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name


@dataclass(frozen=True, slots=True)
class LocalLeaf:
    """A step of the plan that runs a function of the author's."""

    step: LocalStep[Any]
    position: int
    undoable: bool
    after_pivot: bool
    group: str = ""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name


@dataclass(frozen=True, slots=True)
class ItemsLeaf:
    """A step of the plan that does something for each of some items."""

    step: ForEach[Any, Any]
    position: int
    inner: Branch
    adapter: TypeAdapter[Any]
    after_pivot: bool
    group: str = ""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps that each item has."""
        return tuple(leaf.name for leaf in self.inner.leaves())

    @property
    def undoable(self) -> bool:
        """Whether something undoes what is done for an item."""
        return any(isinstance(leaf, CommandLeaf) and leaf.undoable for leaf in self.inner.leaves())


@dataclass(frozen=True, slots=True)
class ChildLeaf:
    """A step of the plan that awaits a child saga."""

    step: SubSaga[Any, Any]
    position: int
    after_pivot: bool
    group: str = ""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def undoable(self) -> bool:
        """Whether a completed child is had to go back."""
        return not (self.step.nothing_to_undo or self.after_pivot)


LeafPlan: TypeAlias = CommandLeaf | EventLeaf | DelayLeaf | LocalLeaf | ItemsLeaf | ChildLeaf


@dataclass(frozen=True, slots=True)
class Branch:
    """A group of the plan: in sequence, or all at once."""

    parts: tuple[LeafPlan | Branch, ...]
    together: bool
    settle_all: bool = False

    def leaves(self) -> Iterator[LeafPlan]:
        """All leaves below."""
        for part in self.parts:
            if isinstance(part, Branch):
                yield from part.leaves()
            else:
                yield part
                yield from part.inner.leaves() if isinstance(part, ItemsLeaf) else ()


@dataclass(frozen=True, slots=True)
class EventStart:
    """An event that starts a saga."""

    start: StartOnEvent[Any, Any]
    event: type[Event]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the core walks: a tree whose leaves are looked up by the names the rows have."""

    root: Branch
    leaves: Mapping[str, LeafPlan]
    pivot: str
    fingerprint: str
    deadline: timedelta | None = None
    starts: tuple[EventStart, ...] = ()
    """Not part of the fingerprint: what starts a saga does not concern one that has started."""
    locking: bool = False
    """Whether some step of it, or of a child, names resources."""
    searchable: tuple[str, ...] = ()
    """Fields of the state it can be found by. Not part of the fingerprint: no row of a step depends on them."""

    def waits(self) -> Iterator[EventLeaf]:
        """The leaves that wait for events."""
        return (leaf for leaf in self.leaves.values() if isinstance(leaf, EventLeaf))

    def children(self) -> Iterator[type[Saga[Any]]]:
        """The sagas that this one starts."""
        return (leaf.step.saga for leaf in self.leaves.values() if isinstance(leaf, ChildLeaf))

    @property
    def longest_timeout(self) -> timedelta:
        """How long some command of the saga may wait for its answer."""
        steps = [leaf.step for leaf in self.leaves.values() if isinstance(leaf, CommandLeaf)]
        return max((max(step.timeout, step.compensation_timeout) for step in steps), default=timedelta(0))

    @property
    def shortest_timeout(self) -> timedelta:
        """The least that some command of the saga waits for its answer; without commands, for ever."""
        steps = [leaf.step for leaf in self.leaves.values() if isinstance(leaf, CommandLeaf)]
        return min((min(step.timeout, step.compensation_timeout) for step in steps), default=timedelta.max)


def fingerprint_of(root: Branch) -> str:
    """Digest names, kinds, nesting, roles and wire names: what an instance in flight depends on."""
    text = json.dumps(shape_of(root), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shape_of(part: LeafPlan | Branch) -> list[Any]:
    """What the fingerprint digests: of a step its kind, its name and more, of a group its kind and its parts."""
    if isinstance(part, Branch):
        return ["parallel" if part.together else "sequence", [shape_of(p) for p in part.parts]]
    if isinstance(part, EventLeaf):
        return ["event", part.name, part.event.wire_name]
    if isinstance(part, DelayLeaf):
        return ["delay", part.name]
    if isinstance(part, ItemsLeaf):
        return ["for-each", part.name, shape_of(part.inner)]
    if isinstance(part, ChildLeaf):
        return ["saga", part.name, part.step.saga.name, part.undoable]
    role = _role(part)
    if isinstance(part, LocalLeaf):
        return ["local", part.name, role, part.undoable]
    wire_names = [[c.wire_name for c in part.commands], [c.wire_name for c in part.compensations]]
    return ["command", part.name, role, *wire_names]


def _role(part: CommandLeaf | LocalLeaf) -> str:
    return "pivot" if part.step.pivot else "retriable" if part.step.retriable else "compensatable"


def type_arguments(cls: type, origin: type) -> tuple[Any, ...]:
    """The arguments a class gave to a generic base: `(OrderState, CreditReserved)` of a `Step`.

    Looks through the bases, so a class that inherits from a concrete step has the same arguments, and one that
    completes a step of one's own, `class OrderStep(Step[OrderState, R])`, has what both say together.
    """
    arguments = _arguments(cls, origin)
    return arguments if all(isinstance(argument, type) for argument in arguments) else ()


def _arguments(cls: type, origin: type) -> tuple[Any, ...]:
    """As `type_arguments`, with the class' own parameters where it leaves them open."""
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        plain = get_origin(base) or base
        if plain is origin:
            return get_args(base)
        if isinstance(plain, type) and issubclass(plain, origin):
            given = dict(zip(getattr(plain, "__parameters__", ()), get_args(base), strict=False))
            return tuple(given.get(argument, argument) for argument in _arguments(plain, origin))
    return ()


def overrides(cls: type, base: type, hook: str) -> bool:
    """Whether a step or saga class defines a hook of its base anew."""
    return getattr(cls, hook) is not getattr(base, hook)


def returned_types(method: Any) -> tuple[type, ...]:
    """The classes a method's return annotation names; a union gives several, None is left out.

    Only that annotation is read: what the others name may be imported for type checkers alone.

    Raises:
        NameError: the annotation names something that the module does not have.
    """
    plain = inspect.unwrap(method)
    returned = SimpleNamespace(__annotations__={"return": plain.__annotations__.get("return")})
    hint = get_type_hints(returned, globalns=plain.__globals__)["return"]
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(m for m in members if isinstance(m, type) and m is not type(None))
