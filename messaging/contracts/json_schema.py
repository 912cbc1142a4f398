"""JSON Schemas of message classes, and how to rewrite one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from pydantic.errors import PydanticUserError

from messaging.errors import MessageDefinitionError
from messaging.messages import Message

Json: TypeAlias = dict[str, Any]

_NAMED: Final = {"properties", "patternProperties", "dependentSchemas", "$defs"}
"""Keywords below which schemas stand by names of the author's."""
_VALUES: Final = {"default", "examples", "const", "enum", "required", "discriminator"}
"""Keywords below which there are no schemas."""


def schema_of(message: type[Message]) -> Json:
    """The JSON Schema, draft 2020-12, of a message's body.

    Raises:
        MessageDefinitionError: a field has no form in JSON Schema.
    """
    try:
        return message.model_json_schema(mode="validation")
    except PydanticUserError as error:
        raise MessageDefinitionError(message, f"has no JSON Schema: {error.message}") from error


def rewritten(schema: Mapping[str, Any], change: Callable[[Json], Json]) -> Json:
    """Change a schema and all below it, innermost first; what authors named is left as it is."""
    return change({keyword: _below(keyword, value, change) for keyword, value in schema.items()})


def _below(keyword: str, value: Any, change: Callable[[Json], Json]) -> Any:
    if keyword in _VALUES:
        return value
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        if keyword in _NAMED:
            return {name: rewritten(schema, change) for name, schema in mapping.items()}
        return rewritten(mapping, change)
    if isinstance(value, list):
        items = cast("list[Any]", value)  # type: ignore[redundant-cast] # pyright sees it as unknown
        return [_below("", item, change) for item in items]
    return value
