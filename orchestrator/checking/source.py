"""Where classes and functions stand in their files, and their syntax trees; each file is parsed once."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; line 0 and no file when that is not known."""

    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    classes: dict[str, int]
    functions: dict[int, Function]
    """By the line Python gives their code: that of the first decorator, if there is one."""


@lru_cache(maxsize=512)
def _parsed(name: str) -> _File:
    file = _File({}, {})
    try:
        tree = ast.parse("".join(linecache.getlines(name)))
    except SyntaxError:
        return file
    for path, node in _definitions(tree, ""):
        if isinstance(node, ast.ClassDef):
            file.classes[path] = node.lineno
        else:
            file.functions[min([node.lineno, *(d.lineno for d in node.decorator_list)])] = node
    return file


def _definitions(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Classes and functions with the qualified names Python gives them."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            path = prefix + node.name
            yield path, node
            yield from _definitions(node, f"{path}." if isinstance(node, ast.ClassDef) else f"{path}.<locals>.")
        else:
            yield from _definitions(node, prefix)


def place_of(cls: type) -> Place:
    """Where a class is written; of one that was made by a call, where one of its bases is."""
    for candidate in cls.__mro__:
        file = getattr(sys.modules.get(candidate.__module__), "__file__", None)
        line = _parsed(file).classes.get(candidate.__qualname__) if file else None
        if file and line:
            return Place(file, line)
    return Place()


def tree_of(function: FunctionType) -> Function | None:
    """The syntax tree of a function; None if its source cannot be found."""
    plain = inspect.unwrap(function)
    code = plain.__code__
    tree = _parsed(code.co_filename).functions.get(code.co_firstlineno)
    return tree if tree is not None and tree.name == code.co_name else None
