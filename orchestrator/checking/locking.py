"""Locks that sagas take in conflicting order: two such sagas may wait for each other, and one of them fails.

Which resources a step names is computed from the state; what is compared is how their names begin in the source:
`f"account:{state.payer}"` is of the kind `account:`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import combinations
from types import FunctionType
from typing import Any, NamedTuple

from orchestrator.checking.findings import Finding, Level, finding
from orchestrator.checking.source import tree_of
from orchestrator.compiling import names_locks
from orchestrator.definition import Saga
from orchestrator.plan import Branch, ChildLeaf, ItemsLeaf, LeafPlan


class _Taken(NamedTuple):
    """A kind of resource, and the step that takes it."""

    kind: str
    step: type[Any]


def conflicts(sagas: Sequence[type[Saga[Any]]]) -> Iterator[Finding]:
    """Find pairs of kinds that one step takes after the other in one saga, and the other way round in another."""
    orders: dict[tuple[str, str], tuple[type[Saga[Any]], type[Any]]] = {}
    for saga in sagas:
        for first, second in _pairs(saga.plan.root):
            if first.kind != second.kind:
                orders.setdefault((first.kind, second.kind), (saga, second.step))
    for (one, other), (saga, step) in orders.items():
        against = orders.get((other, one))
        if against is not None and one < other:
            yield _told(one, other, saga, step, *against)


def _told(
    one: str, other: str, saga: type[Saga[Any]], step: type[Any], against: type[Saga[Any]], its_step: type[Any]
) -> Finding:
    text = (
        f"takes a lock on {other!r} after one on {one!r}; {its_step.__name__} of {against.name} takes them the other "
        "way round: two sagas may wait for each other, and the later one fails with lock-deadlock"
    )
    remedy = "Take them in one order everywhere, or have one step name both"
    return finding(Level.WARNING, "lock-order", saga, step, text, remedy)


def _pairs(part: Branch) -> Iterator[tuple[_Taken, _Taken]]:
    """What is taken before what, by different steps that run one after the other."""
    for inner in part.parts:
        if isinstance(inner, Branch):
            yield from _pairs(inner)
        elif isinstance(inner, ChildLeaf):
            yield from _pairs(inner.step.saga.plan.root)
    for before, after in combinations(part.parts, 2) if not part.together else ():
        for first in _taken(before):
            yield from ((first, second) for second in _taken(after))


def _taken(part: Branch | LeafPlan) -> Iterator[_Taken]:
    if isinstance(part, Branch):
        for inner in part.parts:
            yield from _taken(inner)
        return
    if names_locks(part.step):
        yield from (_Taken(kind, type(part.step)) for kind in _kinds(type(part.step)))
    if isinstance(part, ChildLeaf):
        yield from _taken(part.step.saga.plan.root)
    elif isinstance(part, ItemsLeaf):
        yield from _taken(part.inner)


def _kinds(step: type[Any]) -> Iterator[str]:
    """How the names begin that the author's function writes; nothing where its source cannot be found."""
    function: object = step.locks
    tree = tree_of(function) if isinstance(function, FunctionType) else None
    if tree is None:
        return
    documented = ast.get_docstring(tree) is not None
    for node in (inner for statement in tree.body[documented:] for inner in _names(statement)):
        first = node.values[0] if isinstance(node, ast.JoinedStr) else node
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
            yield first.value


def _names(node: ast.AST) -> Iterator[ast.JoinedStr | ast.Constant]:
    """The texts in a statement; of one with fields, the whole."""
    if isinstance(node, (ast.JoinedStr, ast.Constant)):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
