"""Messages without their secrets: fields declared `Field(repr=False)`, or of pydantic's secret types.

What pydantic is told to keep out of a `repr` stays out of tests. The same value is replaced by the same stand-in
wherever it occurs, so that what belonged together still does.
"""

from __future__ import annotations

import json
from typing import Any, cast, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo


class Redaction:
    """Replaces secrets; keep one for all that belongs to one test."""

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}

    def text(self, cls: type[BaseModel], body: str) -> str:
        """A body of this class as JSON text without secrets, and without what was a secret elsewhere before."""
        return json.dumps(self._known(self._of(cls, json.loads(body or "{}"))), ensure_ascii=False)

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

    def _of(self, cls: type[BaseModel], value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            fields[field.serialization_alias or field.alias or name] = field
        return {name: self._field(fields.get(name), item) for name, item in cast("dict[str, Any]", value).items()}

    def _field(self, field: FieldInfo | None, value: Any) -> Any:
        if field is None:
            return value
        if not field.repr or _is_secret(field.annotation):
            return self._hidden(value)
        return self._inside(field.annotation, value)

    def _inside(self, annotation: Any, value: Any) -> Any:
        """What models inside a field keep secret."""
        models = [one for one in (annotation, *get_args(annotation)) if _is_model(one)]
        if not models:
            return value
        if isinstance(value, list):
            return [self._of(models[0], item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, dict) and get_origin(annotation) is dict:
            return {name: self._of(models[0], item) for name, item in cast("dict[str, Any]", value).items()}
        return self._of(models[0], value)

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


def _is_secret(annotation: Any) -> bool:
    return any(one in (SecretStr, SecretBytes) for one in (annotation, *get_args(annotation)))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
