"""One message that holds many: how it is written and read. Pure.

Its body is a JSON array of `{"properties": {...}, "headers": {...}, "body": ...}`, one for each item, with the names of
the wire format. What is empty is left out, so is the content type, which is `application/json`; the timestamp is in
seconds since 1970, as AMQP has it. A body is the very bytes that would have travelled alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from messaging.codec import check_json
from messaging.envelope import JSON, Envelope, HeaderValue
from messaging.errors import DecodeError
from messaging.ids import new_id

BATCH: Final = "application/vnd.sagasmith.batch+json"
"""The content type of a message that holds others."""
MAX_ITEMS: Final = 50

_TEXTS: Final = ("message_id", "type", "correlation_id", "reply_to", "app_id")
_MAX_TEXT_BYTES: Final = 255
# A whole message with these is below what every broker takes (4096 bytes), however AMQP writes them.
_MAX_PROPERTIES_BYTES: Final = 2000
_SPACES: Final = b" \t\n\r"
_SPACE: Final = re.compile(rf"[{_SPACES.decode()}]*")
_VALUES: Final = json.JSONDecoder()
# Of a body only the extent is needed: numbers are not made of its digits, which may be thousands.
_EXTENTS: Final = json.JSONDecoder(parse_int=str, parse_float=str)


def item_of(envelope: Envelope) -> bytes | None:
    """A message as an item; None when it must travel alone, because not every reader could have it back unchanged."""
    if envelope.content_type != JSON or envelope.body != envelope.body.strip(_SPACES):
        return None
    properties: dict[str, str | int] = {name: text for name in _TEXTS if (text := getattr(envelope, name))}
    if envelope.timestamp is not None:
        properties["timestamp"] = int(envelope.timestamp.timestamp())
    try:
        _held_to_bounds(envelope)
        about = f'{{"properties":{_json(properties)},"headers":{_json(dict(envelope.headers))}'.encode()
        if len(about) > _MAX_PROPERTIES_BYTES:
            return None
        if not envelope.body:
            return about + b"}"
        check_json(envelope.body)
    except (ValueError, TypeError):
        return None
    return about + b',"body":' + envelope.body + b"}"


def batch_of(items: Sequence[bytes]) -> Envelope:
    """A message that holds these items; its id is its own, and nobody answers it."""
    return Envelope(new_id(), b"[" + b",".join(items) + b"]", content_type=BATCH)


def items_in(batch: Envelope) -> list[Envelope]:
    """The messages a batch holds, in order, as if each had come alone.

    Raises:
        DecodeError: it cannot be read as a whole, or an item is none that could have travelled alone.
    """
    try:
        items = [_envelope(fields) for fields in _read(batch.body.decode())]
        if not 1 <= len(items) <= MAX_ITEMS:
            raise ValueError(f"it holds {len(items)} items, not 1 to {MAX_ITEMS}")
    except (ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"the batch cannot be read: {error}", message_id=batch.message_id) from None
    return [item if item.app_id else replace(item, app_id=batch.app_id) for item in items]


def _json(value: Mapping[str, HeaderValue]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _held_to_bounds(envelope: Envelope) -> None:
    """Refuse what a broker would refuse of a message on its own.

    Raises:
        ValueError: a text is too long or no Unicode, or a number too large.
    """
    for text in (*(getattr(envelope, name) for name in _TEXTS), *envelope.headers):
        if len(text.encode()) > _MAX_TEXT_BYTES:
            raise ValueError(f"{text[:50]!r}... has more than {_MAX_TEXT_BYTES} bytes")
    for name, value in envelope.headers.items():
        if (isinstance(value, int) and value.bit_length() > 63) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ValueError(f"header {name!r} is out of range")


# -- reading


def _read(text: str) -> list[dict[str, tuple[Any, str]]]:
    """The fields of each item: their values, and their own text."""
    at = _past(text, 0, "[")
    items: list[dict[str, tuple[Any, str]]] = []
    while not items or text[at : at + 1] == ",":
        fields, at = _fields(text, at + 1 if items else at)
        items.append(fields)
        at = _skipped(text, at)
    at = _skipped(text, _past(text, at, "]"))
    if at < len(text):
        raise ValueError(f"something follows it at character {at}")
    return items


def _fields(text: str, at: int) -> tuple[dict[str, tuple[Any, str]], int]:
    fields: dict[str, tuple[Any, str]] = {}
    at = _past(text, at, "{")
    while True:
        name, at = _VALUES.raw_decode(text, _skipped(text, at))
        if not isinstance(name, str):
            raise TypeError(f"a field of an item is named {name!r}")
        start = _skipped(text, _past(text, at, ":"))
        decoder = _EXTENTS if name == "body" else _VALUES
        value, at = decoder.raw_decode(text, start)
        fields[name] = value, text[start:at]
        at = _skipped(text, at)
        if text[at : at + 1] != ",":
            return fields, _past(text, at, "}")
        at += 1


def _skipped(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _past(text: str, at: int, sign: str) -> int:
    at = _skipped(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} is expected at character {at}")
    return at + 1


def _envelope(fields: Mapping[str, tuple[Any, str]]) -> Envelope:
    properties, headers = (_object(fields, name) for name in ("properties", "headers"))
    texts = {name: properties.get(name, "") for name in (*_TEXTS, "content_type")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise TypeError(f"property {name!r} of an item is no text")
    if texts.pop("content_type") not in ("", JSON):
        raise ValueError("an item is no application/json")
    if sum(len(text.encode()) for name, (_, text) in fields.items() if name != "body") > _MAX_PROPERTIES_BYTES:
        raise ValueError(f"an item has more than {_MAX_PROPERTIES_BYTES} bytes of properties and headers")
    for name, value in headers.items():
        if not (value is None or isinstance(value, str | int | float)):
            raise TypeError(f"header {name!r} of an item is neither text nor number")
    body = fields["body"][1].encode() if "body" in fields else b""
    envelope = Envelope(body=body, timestamp=_instant(properties.get("timestamp")), headers=headers, **texts)
    _held_to_bounds(envelope)
    return envelope


def _object(fields: Mapping[str, tuple[Any, str]], name: str) -> dict[str, Any]:
    value, _ = fields.get(name, ({}, ""))
    if not isinstance(value, dict):
        raise TypeError(f"the {name} of an item are no JSON object")
    return cast("dict[str, Any]", value)


def _instant(seconds: Any) -> datetime | None:
    """None when absent or absurd: it is information only."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
