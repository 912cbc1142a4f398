"""A state's JSON Schema as it may be shown: with marks for what is searchable and what is secret. Pure.

A default may hold a secret as well as a value may: of a secret field nothing is told but that it is one, of any other
a default only if it is a plain value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from orchestrator.redacted import hides
from orchestrator.searchable import searchable_fields

SEARCHABLE: Final = "x-searchable"
SECRET: Final = "x-secret"
_TOLD_OF_A_SECRET: Final = ("title", "type", "format")
_MAY_HOLD_VALUES: Final = ("default", "examples", "example")

_Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a state, in a few words."""

    name: str
    type: str
    required: bool
    searchable: bool
    secret: bool


def marked_schema(state: type[BaseModel]) -> dict[str, Any]:
    """The schema of a state's JSON; empty if pydantic has none for it."""
    try:
        schema = state.model_json_schema(mode="serialization")
    except PydanticUserError:
        return {}
    _Marking(state, schema).walk(schema, ())
    properties = _root(schema).get("properties", {})
    for name in searchable_fields(state):
        properties[name][SEARCHABLE] = True
    return schema


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of a marked schema, those of the state itself."""
    root = _root(schema)
    required, properties = root.get("required", ()), cast("dict[str, _Node]", root.get("properties", {}))
    return [
        Field(name, _type_of(node), name in required, SEARCHABLE in node, SECRET in node)
        for name, node in properties.items()
    ]


def _root(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the state's own fields are: elsewhere if it refers to itself."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return cast("Mapping[str, Any]", schema["$defs"][name]) if name else schema


class _Marking:
    """Goes through a schema along the paths that values of it have."""

    def __init__(self, state: type[BaseModel], schema: _Node) -> None:
        self._state, self._seen = state, set[str]()
        self._models: dict[str, _Node] = schema.get("$defs", {})

    def walk(self, node: _Node, path: tuple[str, ...]) -> None:
        for name, inner in list(node.get("properties", {}).items()):
            if hides(self._state, (*path, name)):
                node["properties"][name] = {key: inner[key] for key in _TOLD_OF_A_SECRET if key in inner} | {
                    SECRET: True
                }
            else:
                self.walk(inner, (*path, name))
        for key in _MAY_HOLD_VALUES:
            if isinstance(node.get(key), (dict, list)):
                del node[key]
        for inner, further in self._inside(node):
            self.walk(inner, (*path, *further))

    def _inside(self, node: _Node) -> Iterator[tuple[_Node, tuple[str, ...]]]:
        """The schemas that this one refers to or is made of, and how much further a value of them lies."""
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if name in self._models and name not in self._seen:
            self._seen.add(name)
            yield self._models[name], ()
        for key in ("anyOf", "oneOf", "allOf"):
            yield from ((inner, ()) for inner in cast("list[_Node]", node.get(key, [])))
        elements = [node.get("items"), node.get("additionalProperties"), *node.get("prefixItems", [])]
        elements += node.get("patternProperties", {}).values()
        yield from ((cast("_Node", inner), ("0",)) for inner in elements if isinstance(inner, dict))


def _type_of(node: Mapping[str, Any]) -> str:
    if "$ref" in node:
        return str(node["$ref"]).rpartition("/")[2]
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type_of(one) for one in node["anyOf"]))
    if node.get("type") == "array" and isinstance(node.get("items"), dict):
        return f"array of {_type_of(node['items'])}"
    return str(node.get("format") or node.get("type") or ("one of a few" if "enum" in node else "any"))
