"""One message that holds many: how it is written and read. Pure.

Its body is a JSON array of `{"properties": {...}, "headers": {...}, "body": ...}`, one for each item, with the names of
the wire format. What is empty is left out, so is the content type, which is `application/json`; the timestamp is in
seconds since 1970, as AMQP has it. A body is the very bytes that would have travelled alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from pydantic_core import to_json

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
_SURELY_SHORT: Final = _MAX_TEXT_BYTES // 4  # characters, of at most four bytes
_FIELD: Final = re.compile(r'[ \t\n\r]*([{,])[ \t\n\r]*"([^"\\]*)"[ \t\n\r]*:[ \t\n\r]*')
_OPEN: Final = re.compile(r"[ \t\n\r]*\[")
_CLOSE: Final = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*([,\]])")
_VALUES: Final = json.JSONDecoder()
# Of a body only the extent is needed: numbers are not made of its digits, which may be thousands.
_EXTENTS: Final = json.JSONDecoder(parse_int=str, parse_float=str)


def item_of(envelope: Envelope) -> bytes | None:
    """A message as an item; None when it must travel alone, because not every reader could have it back unchanged."""
    body = envelope.body
    if envelope.content_type != JSON or body != body.strip(b" \t\n\r"):
        return None
    properties: dict[str, str | int] = {name: text for name in _TEXTS if (text := getattr(envelope, name))}
    try:
        _held_to_bounds(envelope)
        if envelope.timestamp is not None:
            properties["timestamp"] = int(envelope.timestamp.timestamp())
        item = to_json({"properties": properties, "headers": dict(envelope.headers)})
        if len(item) > _MAX_PROPERTIES_BYTES:
            return None
        if not body:
            return item
        check_json(body)
    except (ValueError, TypeError):
        return None
    return b'%b,"body":%b}' % (item[:-1], body)


def batch_of(items: Sequence[bytes]) -> Envelope:
    """A message that holds these items; its id is its own, and nobody answers it."""
    return Envelope(new_id(), b"[" + b",".join(items) + b"]", content_type=BATCH)


def items_in(batch: Envelope) -> list[Envelope]:
    """The messages a batch holds, in order, as if each had come alone.

    Raises:
        DecodeError: it cannot be read as a whole, or an item is none that could have travelled alone.
    """
    try:
        items = [_envelope(fields, batch.app_id) for fields in _read(batch.body.decode())]
        if len(items) > MAX_ITEMS:
            raise ValueError(f"it holds {len(items)} items, more than {MAX_ITEMS}")
    except (ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"the batch cannot be read: {error}", message_id=batch.message_id) from None
    return items


def _held_to_bounds(envelope: Envelope) -> None:
    """Refuse what a broker would refuse of a message on its own, or give back otherwise.

    Raises:
        TypeError: a text or header is none.
        ValueError: a text is too long, or a number too large.
    """
    _short([envelope.message_id, envelope.type, envelope.correlation_id, envelope.reply_to, envelope.app_id])
    _short(envelope.headers)
    for name, value in envelope.headers.items():
        if type(value) is str or value is None:
            continue
        if isinstance(value, float):
            bounded = math.isfinite(value)
        elif isinstance(value, int):
            bounded = value.bit_length() < 64
        else:
            raise TypeError(f"header {name!r} of an item is neither text nor number")
        if not bounded:
            raise ValueError(f"header {name!r} of an item is out of range")


def _short(texts: Collection[str]) -> None:
    if max(map(len, texts), default=0) <= _SURELY_SHORT:
        return
    for text in texts:
        if len(text.encode()) > _MAX_TEXT_BYTES:
            raise ValueError(f"{text[:50]!r}... has more than {_MAX_TEXT_BYTES} bytes")


# -- reading


def _read(text: str) -> list[dict[str, tuple[Any, str]]]:
    """The fields of each item: their values, and their own text."""
    at = _OPEN.match(text)
    if at is None:
        raise ValueError("it is no JSON array")
    position, items, more = at.end(), list[dict[str, tuple[Any, str]]](), True
    while more:
        fields, position = _fields(text, position)
        items.append(fields)
        end = _CLOSE.match(text, position)
        if end is None:
            raise ValueError(f"item {len(items)} does not end at character {position}")
        position, more = end.end(), end[1] == ","
    if text[position:].strip(" \t\n\r"):
        raise ValueError(f"something follows it at character {position}")
    return items


def _fields(text: str, position: int) -> tuple[dict[str, tuple[Any, str]], int]:
    fields: dict[str, tuple[Any, str]] = {}
    while (begun := _FIELD.match(text, position)) and begun[1] == ("," if fields else "{"):
        name, start = begun[2], begun.end()
        decoder = _EXTENTS if name == "body" else _VALUES
        value, position = decoder.raw_decode(text, start)
        fields[name] = value, text[start:position]
    if not fields:
        raise ValueError(f"an item is expected at character {position}")
    return fields, position


def _envelope(fields: Mapping[str, tuple[Any, str]], app_id: str) -> Envelope:
    about = "".join(text for name, (_, text) in fields.items() if name != "body")
    if len(about.encode()) > _MAX_PROPERTIES_BYTES:
        raise ValueError(f"an item has more than {_MAX_PROPERTIES_BYTES} bytes of properties and headers")
    properties, headers = _object(fields, "properties"), _object(fields, "headers")
    message_id, wire_type, correlation_id, reply_to, own_app_id = _texts_of(properties)
    if properties.get("content_type", JSON) != JSON:
        raise ValueError("an item is no application/json")
    envelope = Envelope(
        message_id,
        fields["body"][1].encode() if "body" in fields else b"",
        wire_type,
        correlation_id,
        reply_to,
        timestamp=_instant(properties.get("timestamp")),
        app_id=own_app_id or app_id,
        headers=cast("Mapping[str, HeaderValue]", headers),
    )
    _held_to_bounds(envelope)
    return envelope


def _object(fields: Mapping[str, tuple[Any, str]], name: str) -> dict[str, Any]:
    value, _ = fields.get(name, ({}, ""))
    if not isinstance(value, dict):
        raise TypeError(f"the {name} of an item are no JSON object")
    return cast("dict[str, Any]", value)


def _texts_of(properties: Mapping[str, Any]) -> list[str]:
    texts = [properties.get(name, "") for name in _TEXTS]
    for name, text in zip(_TEXTS, texts, strict=True):
        if type(text) is not str:
            raise TypeError(f"property {name!r} of an item is no text")
    return texts


def _instant(seconds: Any) -> datetime | None:
    """None when absent or absurd: it is information only."""
    try:
        return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
