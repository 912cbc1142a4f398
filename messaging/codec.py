"""Bodies: a message as plain UTF-8 JSON and back, with everything refused that some reader cannot hold.

Written and read bodies keep the same rules: at most so many bytes and levels, no NaN or Infinity, no
NUL character and no lone surrogate in any text. A hostile body costs one bounded pass, never a crash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json

from messaging.errors import DecodeError, MessageDefinitionError, UnencodableMessage, UnknownMessageType
from messaging.messages import Message

M = TypeVar("M", bound=BaseModel)

_DEEPEST: Final = 190  # the JSON parser's own bound is 200
# The closing quote is optional, so that a hostile body of open quotes is read once and not once per quote.
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a body may be at most. Nesting is counted in brackets: `[[1]]` has depth 2."""

    max_body_bytes: int = 1024 * 1024
    max_depth: int = 64

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1 or not 1 <= self.max_depth <= _DEEPEST:
            raise ValueError(f"max_body_bytes must be at least 1 and max_depth 1 to {_DEEPEST}, not {self}")


DEFAULT_LIMITS: Final = Limits()


class MessageRegistry:
    """Which class a wire name stands for."""

    def __init__(self, classes: Iterable[type[Message]] = ()) -> None:
        self._classes: dict[str, type[Message]] = {}
        for cls in classes:
            self.register(cls)

    def register(self, cls: type[Message]) -> None:
        """Take a class in; again is harmless.

        Raises:
            MessageDefinitionError: another class has this wire name.
        """
        known = self._classes.setdefault(cls.wire_name, cls)
        if known is not cls:
            raise MessageDefinitionError(
                cls,
                f"({cls.__module__}) has the wire name {cls.wire_name!r}, which is already that of "
                f"{known.__name__} ({known.__module__}). Give one of them another: class "
                f'{cls.__name__}(..., name="...")',
            )

    def find(self, wire_name: str) -> type[Message] | None:
        """Return the class of this wire name, if one is registered."""
        return self._classes.get(wire_name)

    def get(self, wire_name: str, *, message_id: str = "", queue: str = "") -> type[Message]:
        """Return the class of this wire name.

        Raises:
            UnknownMessageType: none is registered; the text carries the ids given.
        """
        known = self._classes.get(wire_name)
        if known is None:
            raise UnknownMessageType(wire_name, message_id=message_id, queue=queue)
        return known

    def __contains__(self, wire_name: str) -> bool:
        return wire_name in self._classes


def encode_body(message: BaseModel, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Write a message, or any model, as JSON that `decode_body` and every database takes back.

    Raises:
        UnencodableMessage: it holds NaN, Infinity, a NUL character, a lone surrogate, a value that is not
            of its field's type, or is over a limit.
    """
    try:
        body = type(message).__pydantic_serializer__.to_json(message, by_alias=True, warnings="error")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise UnencodableMessage(_name_of(message), _first_line(error)) from error
    # The serializer writes null for what is not finite, so only a body with a null is looked at closely.
    problem = _size_problem(body, limits) or _text_problem(body)
    if not problem and b"null" in body and _holds_non_finite(message.model_dump()):
        problem = "it holds NaN or Infinity, which JSON cannot carry"
    if problem:
        raise UnencodableMessage(_name_of(message), problem)
    return body


def decode_body(cls: type[M], body: bytes, limits: Limits = DEFAULT_LIMITS, *, message_id: str = "") -> M:
    """Read a body as this class; unknown fields are ignored.

    Raises:
        DecodeError: it is not JSON within the limits, or not this class. The text names fields, never values.
    """
    problem = _edge_problem(body, limits)
    if problem:
        raise DecodeError(problem, message_id=message_id)
    try:
        return cls.model_validate_json(body)
    except ValidationError as error:
        raise DecodeError(
            f"the body is not a {getattr(cls, 'wire_name', cls.__name__)!r}: {_fields_of(error)}",
            message_id=message_id,
        ) from None
    except RecursionError as error:
        raise DecodeError(f"the body cannot be read: {error}", message_id=message_id) from None


def parse_json(body: bytes, limits: Limits = DEFAULT_LIMITS, *, message_id: str = "") -> Any:
    """Read a body without knowing its class.

    Raises:
        DecodeError: it is not UTF-8, not JSON, over a limit, or holds NaN, Infinity, NUL or a lone surrogate.
    """
    problem = _size_problem(body, limits) or _text_problem(body)
    if problem:
        raise DecodeError(problem, message_id=message_id)
    value, problem = _parsed(body)
    if problem:
        raise DecodeError(problem, message_id=message_id)
    return value


def check_json(body: bytes, limits: Limits = DEFAULT_LIMITS, *, message_id: str = "") -> None:
    """Refuse at the edge what could not be stored or read later.

    Raises:
        DecodeError: as `parse_json`.
    """
    parse_json(body, limits, message_id=message_id)


def _edge_problem(body: bytes, limits: Limits) -> str:
    """What a typed reader would let pass: sizes, NUL, and NaN in fields that are ignored or untyped."""
    problem = _size_problem(body, limits) or _text_problem(body)
    if not problem and (b"NaN" in body or b"Infinity" in body):
        problem = _parsed(body)[1]
    return problem


def _parsed(body: bytes) -> tuple[Any, str]:
    try:
        return from_json(body, allow_inf_nan=False, cache_strings=False), ""
    except ValueError as error:
        return None, _why_not_json(body, str(error))


def _why_not_json(body: bytes, found: str) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"the body is not UTF-8: {error.reason} at byte {error.start}"
    if b"NaN" in body or b"Infinity" in body:
        return f"the body is not JSON (it may hold NaN or Infinity): {found}"
    if "hex escape" in found or "surrogate" in found:
        return f"the body holds text that is not Unicode, a lone surrogate: {found}"
    return f"the body is not JSON: {found}"


def _size_problem(body: bytes, limits: Limits) -> str:
    if len(body) > limits.max_body_bytes:
        return f"the body has {len(body)} bytes, more than the limit of {limits.max_body_bytes}"
    if _is_deeper_than(limits.max_depth, body):
        return f"the body is nested deeper than the limit of {limits.max_depth}"
    return ""


def _is_deeper_than(limit: int, body: bytes) -> bool:
    """Whether JSON nests deeper, found without recursion: each pass takes the innermost brackets away."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    brackets = _STRING.sub(b"", body).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    # Unbalanced brackets that are left over are no JSON; the parser says so when they are few.
    return brackets.count(b"[") > limit or b"[]" in brackets


def _text_problem(body: bytes) -> str:
    if b"\\u0000" in body and _ESCAPED_NUL.search(body):
        return "it holds a NUL character, which databases refuse in text"
    return ""


def _holds_non_finite(value: Any) -> bool:
    rest: list[Any] = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, Mapping):
            rest.extend(cast("Mapping[object, object]", item).values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            rest.extend(cast("Iterable[object]", item))
    return False


def _fields_of(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}" for detail in details[:5]]
    return "; ".join(shown) + (f"; and {len(details) - 5} more" if len(details) > 5 else "")


def _first_line(error: Exception) -> str:
    text = str(error)
    if "surrogates not allowed" in text:
        return "it holds a lone surrogate, which is no Unicode text"
    return (text.splitlines() or [type(error).__name__])[0]


def _name_of(message: BaseModel) -> str:
    return str(getattr(message, "wire_name", type(message).__name__))
