"""Copies of frozen values with other fields: as `dataclasses.replace`, at a third of its price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, TypeVar

T = TypeVar("T")

_set: Final = object.__setattr__
_values_of: Final[dict[type[Any], Callable[[Any], tuple[Any, ...]]]] = {}


def copied(value: T, **changes: Any) -> T:
    """A copy of a frozen, slotted dataclass with these fields changed; nothing may be computed when it is made.

    Raises:
        AttributeError: it has no such field.
    """
    cls = type(value)
    copy = cls(*(_values_of.get(cls) or _prepared(cls))(value))
    for name, changed in changes.items():
        _set(copy, name, changed)
    return copy


def _prepared(cls: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    names = [field.name for field in fields(cls)]
    assert len(names) > 1, "attrgetter gives no tuple for one"
    _values_of[cls] = attrgetter(*names)
    return _values_of[cls]
