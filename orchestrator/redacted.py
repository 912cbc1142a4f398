"""Messages without their secrets: fields declared `Field(repr=False)`, or of pydantic's secret types.

What pydantic is told to keep out of a `repr` stays out of tests and pages. The same value is replaced by the same
stand-in wherever it occurs, so that what belonged together still does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo


class Redaction:
    """Replaces secrets; keep one for all that belongs to one test or page."""

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}

    def text(self, cls: type[BaseModel], body: str) -> str:
        """A body of this class as JSON text without secrets, and without what was a secret elsewhere before."""
        return json.dumps(self._known(self._of([cls], json.loads(body or "{}"))), ensure_ascii=False)

    def prose(self, text: str) -> str:
        """A text for people without any secret seen so far, wherever that stands in it."""
        if not self._stand_ins:
            return text
        secrets = sorted(self._stand_ins, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, secrets)), lambda found: self._stand_ins[found[0]], text)

    def _known(self, value: Any) -> Any:
        """The same without the text of any secret seen so far."""
        match value:
            case str():
                return self._stand_ins.get(value, value)
            case list():
                return [self._known(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
            case dict():
                return {name: self._known(item) for name, item in cast("dict[str, Any]", value).items()}
            case _:
                return value

    def _of(self, annotations: Iterable[Any], value: Any) -> Any:
        """A value of one of these types."""
        types = list(members(annotations))
        match value:
            case list():
                inner = [one for member in types for one in get_args(member)]
                return [self._of(inner, item) for item in value]  # pyright: ignore[reportUnknownVariableType]
            case dict():
                models = [member for member in types if _is_model(member)]
                inner = [args[-1] for member in types if (args := get_args(member))]
                items = cast("dict[str, Any]", value).items()
                return {name: self._entry(_fields(models, name), inner, item) for name, item in items}
            case _:
                return value

    def _entry(self, fields: list[FieldInfo], inner: list[Any], value: Any) -> Any:
        if any(map(hidden, fields)):
            return self._hidden(value)
        return self._of([*(field.annotation for field in fields), *inner], value)

    def _hidden(self, value: Any) -> Any:
        match value:
            case bool() | None | "":
                return value
            case int() | float():
                return 0
            case str():
                known = self._stand_ins.get(value)
                return known or self._stand_ins.setdefault(value, _stand_in(value, len(self._stand_ins) + 1))
            case list():
                return [self._hidden(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
            case _:
                return {name: self._hidden(item) for name, item in cast("dict[str, Any]", value).items()}


def _stand_in(secret: str, number: int) -> str:
    try:
        UUID(secret)
    except ValueError:
        return f"redacted-{number}"
    return str(UUID(int=number))


def _fields(models: Iterable[type[BaseModel]], name: str) -> list[FieldInfo]:
    """The fields that stand under this name in JSON."""
    return [
        field
        for model in models
        for own, field in model.model_fields.items()
        if name in (field.serialization_alias or field.alias or own, own)
    ]


def members(annotations: Iterable[Any]) -> Iterator[Any]:
    """The types of which one holds: unions and root models taken apart."""
    for one in annotations:
        if get_origin(one) in (Union, UnionType):
            yield from members(get_args(one))
        elif get_origin(one) is Annotated:
            yield from members(get_args(one)[:1])
        elif _is_model(one) and issubclass(one, RootModel):
            yield from members([one.model_fields["root"].annotation])
        else:
            yield one


def hidden(field: FieldInfo) -> bool:
    """Whether what a field holds is a secret."""
    return not field.repr or _is_secret(field.annotation)


def hides(cls: type[BaseModel], path: Iterable[str]) -> bool:
    """Whether what stands at this path in the JSON of a class is a secret, or inside of one."""
    annotations: list[Any] = [cls]
    for name in path:
        types = list(members(annotations))
        fields = _fields([one for one in types if _is_model(one)], name)
        if any(map(hidden, fields)):
            return True
        annotations = [*(field.annotation for field in fields), *(a[-1] for one in types if (a := get_args(one)))]
    return False


def _is_secret(annotation: Any) -> bool:
    """Whether a secret type stands anywhere in it, models aside."""
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, (Secret, SecretStr, SecretBytes)):
        return True
    return any(map(_is_secret, get_args(annotation)))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel)
