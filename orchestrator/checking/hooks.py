"""What the hooks of a step do with the state, read from their source."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, Final

from pydantic import BaseModel

from orchestrator.checking.source import Place, tree_of

_MUTATORS: Final = frozenset(
    ("append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear")
)


@dataclass(slots=True)
class Touched:
    """The fields of the state that a hook reads and sets, each with where it first does."""

    reads: dict[str, Place] = field(default_factory=dict[str, Place])
    sets: dict[str, Place] = field(default_factory=dict[str, Place])
    opaque: bool = False
    """It hands the state to something that cannot be followed, which may do anything to it."""


def touched(cls: type[Any], hook: str, state: type[BaseModel]) -> Touched:
    """Read what a hook, and the functions it passes the state to, do with the state."""
    function = inspect.unwrap(getattr(cls, hook))
    found = Touched()
    if not isinstance(function, FunctionType):
        found.opaque = True
    else:
        _Reader(found, cls, state, set()).follow(function, 1)
    return found


class _Reader(ast.NodeVisitor):
    """Walks one function after the other; `state` and `me` are what it calls the state and itself."""

    def __init__(self, found: Touched, cls: type[Any], state: type[BaseModel], seen: set[CodeType]) -> None:
        self.found, self.cls, self.state_type, self.seen = found, cls, state, seen
        self.function: FunctionType | None = None
        self.state = self.me = ""

    def follow(self, function: FunctionType, position: int | str) -> None:
        """Read a function that is given the state, at a position or by a name."""
        if function.__code__ in self.seen:
            return
        self.seen.add(function.__code__)
        tree = tree_of(function)
        names = [argument.arg for argument in (*tree.args.posonlyargs, *tree.args.args)] if tree else []
        if tree is None or (isinstance(position, int) and position >= len(names)):
            self.found.opaque = True
            return
        inner = _Reader(self.found, self.cls, self.state_type, self.seen)
        inner.function, inner.me = function, names[0] if names else ""
        inner.state = names[position] if isinstance(position, int) else position
        for statement in tree.body:
            inner.visit(statement)

    # -- what is done with the state

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._is_state(node.value):
            self.generic_visit(node)
        elif isinstance(node.ctx, ast.Load):
            self._read(node.attr, node)
        else:
            self._set(node.attr, node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._set_within(node)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == self.state:
            self.found.opaque = True  # it goes by another name from here

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr in _MUTATORS:
            self._set_of(called.value)
        if isinstance(called, ast.Name) and called.id in ("getattr", "setattr") and self._by_name(node):
            return
        for position, argument in enumerate(node.args):
            self._argument(node, argument, position)
        for keyword in node.keywords:
            self._argument(node, keyword.value, keyword.arg or "")
        self.visit(called)

    def _argument(self, call: ast.Call, argument: ast.expr, position: int | str) -> None:
        if not self._is_state(argument):
            self.visit(argument)
            return
        callee, is_method = self._callee(call.func)
        if callee is None:
            self.found.opaque = True
        else:
            self.follow(callee, position + is_method if isinstance(position, int) else position)

    def _by_name(self, call: ast.Call) -> bool:
        """Take `getattr(state, "x")` and `setattr(state, "x", ...)` as what they are."""
        if len(call.args) < 2 or not self._is_state(call.args[0]):
            return False
        name = call.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            return False
        if isinstance(call.func, ast.Name) and call.func.id == "setattr":
            self._set(name.value, call)
        else:
            self._read(name.value, call)
        for argument in call.args[2:]:
            self.visit(argument)
        return True

    def _set_within(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._set_of(node.value)

    def _set_of(self, node: ast.expr) -> None:
        """Take a change of something inside a field as a change of the field."""
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            if isinstance(node, ast.Attribute) and self._is_state(node.value):
                self._set(node.attr, node)
                return
            node = node.value

    # -- names

    def _is_state(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == self.state

    def _read(self, name: str, node: ast.expr) -> None:
        if name in self.state_type.model_fields:
            self.found.reads.setdefault(name, self._place(node))
            return
        member = inspect.getattr_static(self.state_type, name, None)
        getter = member.fget if isinstance(member, property) else getattr(member, "func", member)
        if isinstance(getter, FunctionType) and not getter.__module__.startswith("pydantic"):
            self.follow(getter, 0)

    def _set(self, name: str, node: ast.expr) -> None:
        self.found.sets.setdefault(name, self._place(node))

    def _place(self, node: ast.expr) -> Place:
        return Place(self.function.__code__.co_filename if self.function else "", node.lineno)

    def _callee(self, called: ast.expr) -> tuple[FunctionType | None, bool]:
        """The function that is called, if it can be told, and whether it is bound to the step."""
        if isinstance(called, ast.Name) and self.function is not None:
            return _plain(self.function.__globals__.get(called.id)), False
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == self.me:
            static = isinstance(inspect.getattr_static(self.cls, called.attr, None), staticmethod)
            return _plain(getattr(self.cls, called.attr, None)), not static
        if isinstance(called, ast.Attribute) and ast.unparse(called.value) == "super()":
            return self._next(called.attr), True
        return None, False

    def _next(self, name: str) -> FunctionType | None:
        """What `super().name` is in the function being read."""
        functions = [vars(base)[name] for base in self.cls.__mro__ if name in vars(base)]
        codes = [getattr(function, "__code__", None) for function in functions]
        here = self.function.__code__ if self.function else None
        follows = functions[codes.index(here) + 1 :] if here in codes else []
        return _plain(follows[0]) if follows else None


def _plain(value: Any) -> FunctionType | None:
    plain = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else None
    return plain if isinstance(plain, FunctionType) else None
