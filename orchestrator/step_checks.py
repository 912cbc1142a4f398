"""The rules a class of steps must keep, checked when it is created: the error names class and remedy."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NoReturn

from messaging.retry import Retry
from orchestrator.errors import SagaDefinitionError
from orchestrator.plan import overrides

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_NAME_RULE: Final = "Use 1 to 64 of the characters A-Z a-z 0-9 _ . -"
_MOST_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Kind:
    """What a class of this kind has, by name, that its author may have written otherwise."""

    hooks: tuple[str, ...]
    """Plain functions."""
    functions: tuple[str, ...] = ()
    """Coroutine functions."""
    durations: tuple[str, ...] = ()
    durations_or_none: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    """How many at once."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """With those that are understood."""
    undo: str = ""
    """The method that undoes what it did; such a step is tried again by policies, and may be the pivot or retriable."""
    outcome_is_known: bool = False
    """Whether a step that failed has not happened, the pivot too."""


def check_step(cls: type[Any], kinds: Mapping[type[Any], Kind], *, locking: type[Any]) -> None:
    """Check what can be seen from a class of steps alone.

    Args:
        cls: the author's class.
        kinds: by the class that those of this kind are based on.
        locking: what all classes are based on that may name locks.

    Raises:
        SagaDefinitionError: the class contradicts itself.
    """
    where = f"step {cls.__name__}"
    check_name(where, cls.name, f"has the name {cls.name!r}")
    if locking in cls.__mro__:
        _check_locks(where, cls, locking)
    elif named := next((name for name in ("locks", "lock_timeout", "on_locked") if hasattr(cls, name)), ""):
        refuse(
            where,
            f"has {named}, but a Step, a LocalStep or a SubSaga alone holds locks. Name them in one before it: "
            "what a saga holds it holds until it has ended, for its items too",
        )
    base = next((base for base in cls.__mro__ if base in kinds), None)
    if base is None:
        return
    kind = kinds[base]
    check_hooks(where, cls, kind.hooks)
    _check_functions(where, cls, kind.functions)
    check_durations(where, cls, *kind.durations)
    check_durations(where, cls, *kind.durations_or_none, optional=True)
    _check_numbers(where, cls, *kind.numbers)
    for name, words in kind.words.items():
        check_word(where, cls, name, words)
    if kind.undo:
        _check_policies(where, cls)
        _check_role(where, cls, base, kind)


def refuse(where: str, problem: str) -> NoReturn:
    """Raise the error.

    Raises:
        SagaDefinitionError: always.
    """
    raise SagaDefinitionError(where, problem)


def check_name(where: str, name: str, problem: str) -> None:
    """Refuse, with the problem, a name that rows cannot hold."""
    if not _NAME.match(name):
        refuse(where, f"{problem}. {_NAME_RULE}")


def check_hooks(where: str, cls: type, names: Iterable[str]) -> None:
    """Refuse hooks that are coroutine functions."""
    for name in names:
        if inspect.iscoroutinefunction(getattr(cls, name)):
            refuse(where, f"has an async {name}(). Hooks only look at the state: write a plain def")


def _check_functions(where: str, cls: type, names: Iterable[str]) -> None:
    for name in names:
        if not inspect.iscoroutinefunction(getattr(cls, name)):
            refuse(where, f"has a plain {name}(). It works on an AsyncSession: write async def {name}")


def check_durations(where: str, cls: type, *names: str, optional: bool = False) -> None:
    """Refuse what is no positive `timedelta`, nor None if that is allowed."""
    for name in names:
        value = getattr(cls, name)
        if value is None and optional:
            continue
        if not isinstance(value, timedelta):
            refuse(where, f"has {name} = {value!r}. Write a timedelta, such as timedelta(seconds=30)")
        if value <= timedelta(0):
            article = "an" if name[0] in "aeiou" else "a"
            refuse(where, f"has {article} {name} that is not positive ({value})")


def _check_numbers(where: str, cls: type, *names: str) -> None:
    for name in names:
        value: object = getattr(cls, name)
        if not isinstance(value, int) or not 1 <= value <= _MOST_AT_ONCE:
            refuse(where, f"has {name} = {value!r}. Write a number from 1 to {_MOST_AT_ONCE}")


def _check_policies(where: str, cls: type) -> None:
    for name in ("retry", "compensation_retry"):
        if not isinstance(getattr(cls, name), Retry):
            refuse(where, f"has {name} = {getattr(cls, name)!r}. Write a policy, such as Retry(max_attempts=3)")
    check_word(where, cls, "on_exhausted", ("compensate", "block"))


def check_word(where: str, cls: type, name: str, words: tuple[str, ...]) -> None:
    """Refuse a word that is none of these."""
    if getattr(cls, name) not in words:
        refuse(where, f"has {name} = {getattr(cls, name)!r}. Use one of: {', '.join(words)}")


def _check_role(where: str, cls: type[Any], base: type[Any], kind: Kind) -> None:
    undoable = overrides(cls, base, kind.undo)
    if cls.pivot and cls.retriable:
        refuse(where, "is both pivot and retriable. The pivot comes once; what follows it is retriable")
    if (cls.pivot or cls.retriable) and undoable:
        refuse(where, f"defines {kind.undo}(), but nothing is undone at or after the pivot. Remove one of the two")
    known_not_to_happen = kind.outcome_is_known and cls.pivot
    if (cls.pivot or cls.retriable) and _says_compensate(cls, base) and not known_not_to_happen:
        refuse(where, 'cannot have on_exhausted = "compensate" at or after the pivot. It blocks; remove the line')
    if undoable and cls.nothing_to_undo:
        refuse(where, f"says nothing_to_undo and defines {kind.undo}(). Remove one of the two")


def _says_compensate(cls: type[Any], base: type[Any]) -> bool:
    own = cls.__mro__[: cls.__mro__.index(base)]
    return cls.on_exhausted == "compensate" and any("on_exhausted" in vars(one) for one in own)


def _check_locks(where: str, cls: type[Any], locking: type[Any]) -> None:
    check_hooks(where, cls, ("locks",))
    check_durations(where, cls, "lock_timeout", optional=True)
    check_word(where, cls, "on_locked", ("wait", "fail"))
    if not overrides(cls, locking, "locks"):
        return
    if cls.on_locked == "wait" and cls.lock_timeout is None:
        refuse(where, 'names locks and would wait for them without end. Set lock_timeout, or on_locked = "fail"')
