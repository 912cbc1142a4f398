"""What differs between two values of JSON, by path: `lines[0].quantity`. Pure.

Objects are compared by name and lists by position, however deep; anything else is one value. What is of another type is
another value, so `1`, `1.0` and `true` differ. Done in their order, the differences turn the one value into the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

Keys: TypeAlias = tuple[str | int, ...]

_LONGEST: Final = 300
_PLAIN: Final = re.compile(r"[^\W\d][\w-]*\Z")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that was added, removed or changed; `keys` leads to it, and `path` is the same as text."""

    kind: Literal["added", "removed", "changed"]
    path: str
    keys: Keys
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        """For people, in one line: `total: 4 → 5`."""
        match self.kind:
            case "added":
                return f"{self.path} = {value_text(self.new)}"
            case "removed":
                return f"{self.path} removed, was {value_text(self.old)}"
            case "changed":
                return f"{self.path}: {value_text(self.old)} → {value_text(self.new)}"


def value_text(value: object) -> str:
    """A value as JSON; of a long one the beginning, and how long it is."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def differences(old: object, new: object) -> list[Difference]:
    """What has to be done to `old`, in this order, so that it is `new`."""
    return list(_between(old, new, ()))


def path_of(keys: Keys) -> str:
    """As text; of a value as a whole it is `$`."""
    return "".join(map(_part, keys)).removeprefix(".") or "$"


def _part(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN.match(key) else f"[{json.dumps(key, ensure_ascii=False)}]"


def _between(old: object, new: object, keys: Keys) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _of_objects(cast("dict[str, Any]", old), cast("dict[str, Any]", new), keys)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _of_lists(old, new, keys)  # pyright: ignore[reportUnknownArgumentType]
    elif not _one(old, new):
        yield Difference("changed", path_of(keys), keys, old, new)


def _one(old: Any, new: Any) -> bool:
    return type(old) is type(new) and bool(old == new)


def _of_objects(old: dict[str, Any], new: dict[str, Any], keys: Keys) -> Iterator[Difference]:
    for name in old:
        if name in new:
            yield from _between(old[name], new[name], (*keys, name))
        else:
            yield _removed((*keys, name), old[name])
    yield from (_added((*keys, name), new[name]) for name in new if name not in old)


def _of_lists(old: list[Any], new: list[Any], keys: Keys) -> Iterator[Difference]:
    for position, (before, after) in enumerate(zip(old, new, strict=False)):
        yield from _between(before, after, (*keys, position))
    yield from (_removed((*keys, position), old[position]) for position in _backwards(len(new), len(old)))
    yield from (_added((*keys, position), new[position]) for position in range(len(old), len(new)))


def _backwards(first: int, end: int) -> Iterable[int]:
    """The last one first, so that each stands where it says when its turn comes."""
    return reversed(range(first, end))


def _removed(keys: Keys, old: object) -> Difference:
    return Difference("removed", path_of(keys), keys, old=old)


def _added(keys: Keys, new: object) -> Difference:
    return Difference("added", path_of(keys), keys, new=new)
