"""Messages made up for tests: the smallest a type accepts, with what the saga's state calls by the same name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

_PLAIN: Final[Mapping[Any, Any]] = {
    str: "sample",
    int: 1,
    float: 1.0,
    bool: False,
    bytes: b"",
    Decimal: Decimal(1),
    UUID: UUID(int=1),
    datetime: datetime(2030, 1, 1, tzinfo=UTC),
    date: date(2030, 1, 1),
    timedelta: timedelta(seconds=1),
    NoneType: None,
    Any: None,
}
_EMPTY: Final[Mapping[Any, Any]] = {list: [], tuple: (), set: set(), frozenset: frozenset(), dict: {}}


class NoSample(Exception):
    """A message of this type cannot be made up; the text says which field, and why."""


def sample(message_type: type[M], state: BaseModel | None = None) -> M:
    """Make up a message.

    Args:
        message_type: its class. Fields that have a default keep it, unless the state has one of that name.
        state: a field of the same name is taken from here, if it fits.

    Raises:
        NoSample: a field is of a kind that nothing is made up for, or a validator refuses it.
    """
    values: dict[str, Any] = {}
    for name, field in message_type.model_fields.items():
        if state is not None and name in type(state).model_fields:
            values[name] = getattr(state, name)
        elif field.is_required():
            values[name] = _value(field.annotation, f"{message_type.__name__}.{name}")
    try:
        return message_type.model_validate(values)
    except ValidationError as error:
        if state is not None:
            return sample(message_type)
        raise NoSample(f"{message_type.__name__} refuses what was made up for it: {error}") from None


def _value(annotation: Any, where: str) -> Any:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _value(arguments[0], where)
    if origin in (Union, UnionType):
        return None if NoneType in arguments else _value(arguments[0], where)
    if origin is Literal:
        return arguments[0]
    if annotation in _EMPTY or origin in _EMPTY:
        return _EMPTY[origin or annotation]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return sample(annotation)
    raise NoSample(f"nothing can be made up for {where}: {annotation}")
