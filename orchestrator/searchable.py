"""Fields of a saga's state that it can be found by: `customer: Annotated[str, Searchable]`. Pure.

Each is kept beside the saga as one text, the value as the state's JSON has it: a string without its quotes, numbers,
`true`, `false` and `null` as JSON writes them, so instants, dates, decimals, ids and the values of enums as pydantic
does. What is longer than 255 characters is kept as its beginning and a digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.errors import SearchRefused
from orchestrator.redacted import hidden, members

MOST_KEPT: Final = 255
"""Characters of a value; also those of a path."""
SearchValue: TypeAlias = str | int | date | Decimal | Enum | UUID | None
"""What a field may be compared with; `bool` is an `int`, `datetime` a `date`."""

_DIGEST: Final = 64
_NAME: Final = r"[^\W\d][\w-]*"
_PATH: Final = re.compile(rf"{_NAME}(\.{_NAME})*\Z")
_SCALARS: Final = (str, int, date, Decimal, UUID, type(None))


class _Mark:
    """The class of `Searchable`."""

    def __repr__(self) -> str:
        return "Searchable"


Searchable: Final = _Mark()
"""Marks a field of a state: `customer: Annotated[str, Searchable]`."""


# -- the definition


def searchable_fields(state: type[BaseModel]) -> tuple[str, ...]:
    """The marked fields of a state, by the names its JSON has.

    Raises:
        ValueError: a mark stands where it has no effect, or on what cannot be searched; the text follows a class.
    """
    fields = state.model_fields
    for own, field in fields.items():
        if _marked_inside(field.annotation):
            raise ValueError(f"marks a part of field {own}. Mark it whole: {own}: Annotated[str | None, Searchable]")
    marked = {own: field for own, field in fields.items() if _is_marked(field.metadata)}
    for own, field in marked.items():
        problem = _problem_of(own, field)
        if problem:
            raise ValueError(f"marks field {own} as Searchable, {problem}")
    return tuple(_name_of(own, field) for own, field in marked.items())


def _name_of(own: str, field: FieldInfo) -> str:
    return field.serialization_alias or field.alias or own


def _is_marked(metadata: Iterable[object]) -> bool:
    return any(one is Searchable for one in metadata)


def _marked_inside(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated and _is_marked(annotation.__metadata__):
        return True
    return any(map(_marked_inside, get_args(annotation)))


def _problem_of(own: str, field: FieldInfo) -> str:
    name = _name_of(own, field)
    if hidden(field):
        return "and it is a secret, which must not be copied. Remove one of the two"
    if field.exclude:
        return "and it is not stored (exclude=True). Remove one of the two"
    if len(name) > MOST_KEPT or "." in name or not _PATH.match(name):
        return f"and its name in JSON is {name!r}. Use letters, digits, _ and -, the first one no digit"
    odd = next((one for one in members([field.annotation]) if not _is_scalar(one)), None)
    if odd is not None:
        called = getattr(odd, "__name__", odd)
        return f"and {called} has no one text. Mark str, int, bool, date, datetime, Decimal, UUID or an Enum of these"
    return ""


def _is_scalar(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return all(isinstance(one.value if isinstance(one, Enum) else one, _SCALARS) for one in get_args(annotation))
    named = getattr(annotation, "__supertype__", None)
    if named is not None:
        return _is_scalar(named)
    if not isinstance(annotation, type):
        return False
    if issubclass(annotation, Enum):
        return all(isinstance(one.value, _SCALARS) for one in annotation)
    return issubclass(annotation, _SCALARS)


# -- what is kept


def kept_values(fields: Iterable[str], state: str) -> dict[str, str]:
    """What is kept of a state, by field; fields that its JSON does not have are left out."""
    body = json.loads(state)
    return {name: kept_text(text_of(body[name])) for name in fields if name in body}


def changed_values(fields: tuple[str, ...], before: str, after: str) -> tuple[tuple[str, str | None], ...]:
    """What is to be kept anew since a state has changed; None where nothing is any more."""
    if not fields or before == after:
        return ()
    old, new = kept_values(fields, before), kept_values(fields, after)
    return tuple((name, new.get(name)) for name in fields if old.get(name) != new.get(name))


def all_values(fields: Iterable[str], before: str, after: str) -> tuple[tuple[str, str | None], ...]:
    """All that is to be kept of a state, None for what another definition may have kept of the state before."""
    kept: dict[str, str | None] = {**dict.fromkeys(json.loads(before)), **kept_values(fields, after)}
    return tuple(kept.items())


def filled_values(state: type[BaseModel], fields: Iterable[str], text: str) -> dict[str, str]:
    """What is kept of a state that may be older than its class: fields that it does not have are at their defaults."""
    named = {_name_of(own, field): field for own, field in state.model_fields.items()}
    plain = {name: named[name] for name in fields if not named[name].is_required() and not named[name].default_factory}
    defaults = {name: kept_text(searched_text(field.default)) for name, field in plain.items()}
    return {**defaults, **kept_values(fields, text)}


def text_of(value: object) -> str:
    """A value of JSON as one text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def kept_text(text: str) -> str:
    """The same, bounded."""
    if len(text) <= MOST_KEPT:
        return text
    return text[: MOST_KEPT - _DIGEST] + hashlib.sha256(text.encode()).hexdigest()


# -- what is asked


def asked(where: Mapping[str, SearchValue]) -> dict[str, str]:
    """What is looked for, as text, by path.

    Raises:
        SearchRefused: a path is none, or a value cannot be compared.
    """
    return {checked_path(path): searched_text(value, path) for path, value in where.items()}


def asked_in_words(conditions: Iterable[str]) -> dict[str, str]:
    """The same, of conditions such as `customer=c-17`.

    Raises:
        SearchRefused: one is none, or one path is there twice.
    """
    found: dict[str, str] = {}
    for condition in conditions:
        path, equals, value = condition.partition("=")
        if not equals:
            raise SearchRefused(f"{condition!r} is no condition. Write FIELD=VALUE, such as customer=c-17")
        if path in found:
            raise SearchRefused(f"{path} is asked for twice, and it has one value. Say it once")
        found |= asked({path: value})
    return found


def checked_path(path: str) -> str:
    """A path into a state: `customer`, `address.city`.

    Raises:
        SearchRefused: it is none.
    """
    if len(path) > MOST_KEPT or not _PATH.match(path):
        text = f"{path[:MOST_KEPT]!r} is no field of a state. Write its name in the state's JSON"
        raise SearchRefused(f"{text}, with a dot before what is inside of it: customer, address.city")
    return path


def searched_text(value: object, path: str = "") -> str:
    """A value as it is compared.

    Raises:
        SearchRefused: it has no text, or one that no state can have.
    """
    try:
        text = text_of(cast("object", to_jsonable_python(value)))
        text.encode()
    except (PydanticSerializationError, ValueError) as error:
        raise SearchRefused(f"{path or 'a field'} cannot be compared with a {type(value).__name__}: {error}") from error
    if "\0" in text:
        raise SearchRefused(f"{path or 'a field'} cannot be compared with a text that has a NUL")
    return text
