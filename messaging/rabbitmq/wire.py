"""AMQP 0-9-1 as bytes: properties and the few frames of the hot path. Pure; reading never raises.

Properties are kept as the spans they were received in, so that a message which cannot be read can still
be moved to another queue unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct, error
from typing import Any, Final

BASIC_DELIVER: Final = b"\x00\x3c\x00\x3c"
BASIC_RETURN: Final = b"\x00\x3c\x00\x32"
BASIC_ACK: Final = b"\x00\x3c\x00\x50"
BASIC_NACK: Final = b"\x00\x3c\x00\x78"
CHANNEL_CLOSE: Final = b"\x00\x14\x00\x28"
CHANNEL_CLOSE_OK: Final = b"\x00\x14\x00\x29"
CONNECTION_CLOSE: Final = b"\x00\x0a\x00\x32"
CONNECTION_BLOCKED: Final = b"\x00\x0a\x00\x3c"
CONNECTION_UNBLOCKED: Final = b"\x00\x0a\x00\x3d"

METHOD_FRAME: Final = 1
HEADER_FRAME: Final = 2
BODY_FRAME: Final = 3
HEARTBEAT_FRAME: Final = 8
FRAME_OVERHEAD: Final = 8
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

FRAME: Final = Struct(">BHI")
BYTE: Final = Struct(">B")
SHORT: Final = Struct(">H")
LONG: Final = Struct(">I")
LONGLONG: Final = Struct(">Q")
_CONTENT: Final = Struct(">BHIHHQ")
_ACK: Final = Struct(">BHI4sQBB")
_DOUBLE: Final = Struct(">d")
_SIGNED: Final = Struct(">q")

# Bits of the property flags, in the order in which the values follow.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY = 15, 14, 13, 12, 11
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID, TIMESTAMP = 10, 9, 8, 7, 6
TYPE, USER_ID, APP_ID, CLUSTER_ID = 5, 4, 3, 2

_MAX_DEPTH: Final = 16
_MAX_SECONDS: Final = 253402300799  # the end of the year 9999


@dataclass(slots=True)
class Properties:
    """The properties of a message by bit, each still as bytes, and the entries of its headers."""

    fields: dict[int, bytes] = field(default_factory=dict[int, bytes])
    headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    """Name to type octet and value."""
    problem: str = ""
    """What could not even be taken apart."""

    def text(self, bit: int) -> str | None:
        """A short string; None when it is not UTF-8, empty when absent."""
        try:
            return self.fields.get(bit, b"").decode()
        except UnicodeDecodeError:
            return None

    def timestamp(self) -> datetime | None:
        """The timestamp, in seconds or, as some clients send it, milliseconds; None when absurd or absent."""
        raw = self.fields.get(TIMESTAMP)
        if raw is None:
            return None
        seconds: float = LONGLONG.unpack(raw)[0]
        if seconds > 0xFFFFFFFF:
            seconds /= 1000
        return datetime.fromtimestamp(seconds, UTC) if seconds <= _MAX_SECONDS else None

    def encoded(self) -> bytes:
        """The flags and values as they go into a content header."""
        flags, parts = 0, [b""]
        for bit in range(CONTENT_TYPE, CLUSTER_ID - 1, -1):
            if bit == HEADERS:
                if self.headers:
                    flags |= 1 << bit
                    table = b"".join(
                        part for name, value in self.headers.items() for part in (BYTE.pack(len(name)), name, value)
                    )
                    parts += LONG.pack(len(table)), table
            elif bit in self.fields:
                flags |= 1 << bit
                value = self.fields[bit]
                if bit not in _FIXED:
                    parts.append(BYTE.pack(len(value)))
                parts.append(value)
        parts[0] = SHORT.pack(flags)
        return b"".join(parts)


_FIXED: Final = {DELIVERY_MODE: 1, PRIORITY: 1, TIMESTAMP: 8}


def read_properties(raw: bytes) -> Properties:
    """Take the properties of a content header apart, as far as they can be."""
    properties = Properties()
    try:
        _read_properties(raw, properties)
    except (IndexError, error, ValueError) as problem:
        properties.problem = f"its properties cannot be taken apart: {problem}"
    return properties


def _read_properties(raw: bytes, into: Properties) -> None:
    (flags,) = SHORT.unpack_from(raw, 0)
    if flags & 1:
        raise ValueError("more than fourteen properties")
    at, end = 2, len(raw)
    for bit in range(CONTENT_TYPE, CLUSTER_ID - 1, -1):
        if not flags >> bit & 1:
            continue
        if bit == HEADERS:
            (size,) = LONG.unpack_from(raw, at)
            at += 4
            if at + size > end:
                raise ValueError("the headers are cut off")
            try:
                into.headers = _table_entries(raw, at, at + size)
            except (IndexError, error, ValueError) as problem:
                into.problem = f"its headers cannot be taken apart: {problem}"
                into.headers = {b"unreadable-headers": b"x" + LONG.pack(size) + raw[at : at + size]}
        else:
            size = _FIXED.get(bit, 0)
            if not size:
                size = raw[at]
                at += 1
            if at + size > end:
                raise ValueError("a property is cut off")
            into.fields[bit] = raw[at : at + size]
        at += size


def _table_entries(raw: bytes, at: int, end: int) -> dict[bytes, bytes]:
    entries: dict[bytes, bytes] = {}
    while at < end:
        start = at + 1 + raw[at]
        name = raw[at + 1 : start]
        at = _value_end(raw, start)
        if at > end:
            raise ValueError("a value is cut off")
        entries[name] = raw[start:at]
    return entries


# Sizes of the values by type octet; those with a length of their own are in _SIZED.
_WIDTHS: Final = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"D", 5),
    **dict.fromkeys(b"lLdT", 8),
    **dict.fromkeys(b"V\x00", 0),
}
_SIZED: Final = frozenset(b"SxAF")


def _value_end(raw: bytes, at: int) -> int:
    kind = raw[at]
    if kind in _SIZED:
        size: int = LONG.unpack_from(raw, at + 1)[0]
        return at + 5 + size
    if kind not in _WIDTHS:
        raise ValueError(f"unknown type {kind:#04x}")
    return at + 1 + _WIDTHS[kind]


_NUMBERS: Final = {
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): Struct(">i"),
    ord("i"): Struct(">I"),
    ord("l"): Struct(">q"),
    ord("L"): Struct(">q"),
    ord("f"): Struct(">f"),
    ord("d"): Struct(">d"),
}


def header_value(entry: bytes) -> str | int | float | bool | None:
    """A header as plain JSON-able value: text repaired, instants in ISO 8601, nested values as JSON text."""
    kind = entry[0]
    if kind == 0x53:  # S: by far the most frequent
        return entry[5:].decode(errors="replace")
    value = _value(entry, 0)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _value(entry: bytes, depth: int) -> Any:
    kind = entry[0]
    try:
        if kind in _NUMBERS:
            number = _NUMBERS[kind].unpack(entry[1:])[0]
            # JSON has no word for NaN and the infinities.
            return number if number - number == 0 else str(number)
        if kind == 0x74:  # t
            return entry[1] != 0
        if kind in b"Sx":
            return entry[5:].decode(errors="replace")
        if kind == 0x54:  # T
            return _instant(LONGLONG.unpack(entry[1:])[0])
        if kind == 0x44:  # D
            return str(Decimal(LONG.unpack(entry[2:])[0]).scaleb(-entry[1]))
        if kind in b"FA":
            return _nested(entry, depth + 1)
    except (IndexError, error, ValueError):
        return "<unreadable>"
    return None


def _instant(seconds: int) -> str | int:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds <= _MAX_SECONDS else seconds


def _nested(entry: bytes, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "<nested too deeply>"
    if entry[0] == 0x46:  # F
        entries = _table_entries(entry, 5, len(entry))
        return {name.decode(errors="replace"): _value(value, depth) for name, value in entries.items()}
    values: list[Any] = []
    at = 5
    while at < len(entry):
        end = _value_end(entry, at)
        values.append(_value(entry[at:end], depth))
        at = end
    return values


def header_entry(value: object) -> bytes:
    """A value as a header's type octet and bytes.

    Raises:
        TypeError: there is no such type on the wire.
        UnicodeEncodeError: text that UTF-8 cannot hold.
    """
    match value:
        case str():
            text = value.encode()
            return b"S" + LONG.pack(len(text)) + text
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            # One width for all, because not every client reads the narrow and the unsigned types.
            if -(2**31) <= value < 2**31:
                return b"I" + Struct(">i").pack(value)
            return b"l" + _SIGNED.pack(value) if -(2**63) <= value < 2**63 else header_entry(str(value))
        case float():
            return b"d" + _DOUBLE.pack(value)
        case None:
            return b"V"
        case bytes():
            return b"S" + LONG.pack(len(value)) + value
        case bytearray():
            return b"x" + LONG.pack(len(value)) + bytes(value)
        case datetime():
            return b"T" + LONGLONG.pack(max(0, int(value.timestamp())))
        case Decimal():
            return header_entry(str(value))
        case dict():
            return _sized(b"F", _table(value))  # pyright: ignore[reportUnknownArgumentType]
        case list():
            return _sized(b"A", b"".join(map(header_entry, value)))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            raise TypeError(f"a header cannot hold {type(value).__name__}")


def _table(values: Mapping[Any, Any]) -> bytes:
    return b"".join(short_string(str(name)) + header_entry(value) for name, value in values.items())


def _sized(kind: bytes, content: bytes) -> bytes:
    return kind + LONG.pack(len(content)) + content


def short_string(text: str) -> bytes:
    """A length octet and at most 255 bytes.

    Raises:
        ValueError: it is longer.
    """
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{text[:40]!r}... has {len(raw)} bytes where AMQP allows 255")
    return BYTE.pack(len(raw)) + raw


@lru_cache(maxsize=2048)
def publish_address(exchange: str, routing_key: str) -> bytes:
    """Exchange and routing key as they stand in a `Basic.Publish`. Destinations are few, so it is kept.

    Raises:
        ValueError: a name is too long.
    """
    return short_string(exchange) + short_string(routing_key)


def read_address(raw: bytes) -> tuple[str, str]:
    """Exchange and routing key as they stand one after the other in a `Basic.Deliver`, too."""
    if not raw:
        return "", ""
    middle = 1 + raw[0]
    return raw[1:middle].decode(errors="replace"), raw[middle + 1 :].decode(errors="replace")


@lru_cache(maxsize=2048)
def publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The whole frame of a `Basic.Publish`."""
    method = b"\x00\x3c\x00\x28\x00\x00" + publish_address(exchange, routing_key) + bytes((mandatory,))
    return FRAME.pack(METHOD_FRAME, channel, len(method)) + method + b"\xce"


def content_frames(channel: int, properties: bytes, body: bytes, frame_max: int) -> Iterable[bytes]:
    """The header frame and as many body frames as the negotiated size asks for."""
    yield _CONTENT.pack(HEADER_FRAME, channel, 12 + len(properties), 60, 0, len(body))
    yield properties
    room = frame_max - FRAME_OVERHEAD
    for start in range(0, len(body), room):
        part = body if len(body) <= room else body[start : start + room]
        yield b"\xce" + FRAME.pack(BODY_FRAME, channel, len(part))
        yield part
    yield b"\xce"


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """The whole frame of a `Basic.Ack`."""
    return _ACK.pack(METHOD_FRAME, channel, 13, BASIC_ACK, tag, multiple, 0xCE)


def requeue_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """The whole frame of a `Basic.Nack` that gives deliveries back to their queue."""
    return _ACK.pack(METHOD_FRAME, channel, 13, BASIC_NACK, tag, 2 + multiple, 0xCE)
