"""Envelopes to AMQP properties and back, and what is changed when a received message moves on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from pamqp.commands import Basic

from messaging.dead_letter_notes import LOST_HEADERS, Notes, is_note
from messaging.envelope import Envelope, HeaderValue
from messaging.rabbitmq import wire
from messaging.rabbitmq.wire import LONG, LONGLONG, SHORT, Properties, short_string

DELIVERY_ATTEMPT: Final = b"x-attempt"
"""How often a message was delivered before it was put off; absent on the first delivery."""
_FIRST_EXCHANGE: Final = b"x-attempt-exchange"
_FIRST_ROUTING_KEY: Final = b"x-attempt-routing-key"
_OURS: Final = frozenset((DELIVERY_ATTEMPT, _FIRST_EXCHANGE, _FIRST_ROUTING_KEY))
"""What a message carries to its next attempt; no header of its sender's."""

_NEEDED: Final = (
    (wire.CONTENT_TYPE, "content_type"),
    (wire.CORRELATION_ID, "correlation_id"),
    (wire.REPLY_TO, "reply_to"),
    (wire.MESSAGE_ID, "message_id"),
    (wire.TYPE, "type"),
)
# A broker refuses these from anybody but their owner, lets the message die of them, or makes copies of it.
_KEPT_AS_HEADERS: Final = {
    wire.EXPIRATION: b"original-expiration",
    wire.USER_ID: b"original-user-id",
    wire.CLUSTER_ID: b"original-cluster-id",
}
_COPIES: Final = {b"CC": b"original-cc", b"BCC": b"original-bcc"}


def encoded(envelope: Envelope, app_id: str) -> bytes:
    """The properties of a message of ours: persistent, and said to be from `app_id` unless it says otherwise.

    Raises:
        ValueError: a property is longer than AMQP allows or is no text that UTF-8 can hold.
    """
    flags = 1 << wire.DELIVERY_MODE
    parts = [b"", b"", b"", b"\x02"]
    if envelope.content_type:
        flags |= 1 << wire.CONTENT_TYPE
        parts[1] = _known_string(envelope.content_type)
    if envelope.headers:
        flags |= 1 << wire.HEADERS
        parts[2] = _encoded_headers(envelope.headers)
    if envelope.correlation_id:
        flags |= 1 << wire.CORRELATION_ID
        parts.append(short_string(envelope.correlation_id))
    if envelope.reply_to:
        flags |= 1 << wire.REPLY_TO
        parts.append(_known_string(envelope.reply_to))
    if envelope.message_id:
        flags |= 1 << wire.MESSAGE_ID
        parts.append(short_string(envelope.message_id))
    if envelope.timestamp is not None:
        flags |= 1 << wire.TIMESTAMP
        parts.append(LONGLONG.pack(max(0, int(envelope.timestamp.timestamp()))))
    if envelope.type:
        flags |= 1 << wire.TYPE
        parts.append(_known_string(envelope.type))
    if sender := envelope.app_id or app_id:
        flags |= 1 << wire.APP_ID
        parts.append(_known_string(sender))
    parts[0] = SHORT.pack(flags)
    return b"".join(parts)


_known_string = lru_cache(maxsize=4096)(short_string)  # names, of which there are few


@lru_cache(maxsize=4096)
def _known_name(name: str) -> bytes:
    return short_string(name)


def _encoded_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    parts = [b""]
    for name, value in headers.items():
        parts.append(_known_name(name))
        if type(value) is str:
            text = value.encode()
            parts += b"S", LONG.pack(len(text)), text
        else:
            parts.append(wire.header_entry(value))
    table = b"".join(parts)
    return LONG.pack(len(table)) + table


def decoded(properties: Properties, body: bytes) -> tuple[Envelope, int, str]:
    """A received message as envelope, with its attempt, and why it cannot be read, else an empty text."""
    fields, problem = properties.fields, properties.problem
    texts: dict[str, str] = {}
    for bit, name in _NEEDED:
        raw = fields.get(bit)
        if raw is None:
            continue
        try:
            texts[name] = raw.decode()
        except UnicodeDecodeError:
            texts[name] = raw.decode(errors="replace")
            problem = problem or f"its property {name} is not UTF-8: {raw[:100]!r}"
    headers: dict[str, HeaderValue] = {}
    attempt = 1
    for key, entry in properties.headers.items():
        if key == DELIVERY_ATTEMPT:
            attempt = _attempt(wire.header_value(entry))
        elif key not in _OURS:
            headers[key.decode(errors="replace")] = wire.header_value(entry)
    app_id = fields.get(wire.APP_ID, b"").decode(errors="replace")
    envelope = Envelope(
        texts.get("message_id", ""),
        body,
        texts.get("type", ""),
        texts.get("correlation_id", ""),
        texts.get("reply_to", ""),
        texts.get("content_type", ""),
        properties.timestamp(),
        app_id,
        headers,
    )
    return envelope, attempt, problem


_AIORMQ_NAMES: Final = {
    wire.CONTENT_TYPE: "content_type",
    wire.CONTENT_ENCODING: "content_encoding",
    wire.CORRELATION_ID: "correlation_id",
    wire.REPLY_TO: "reply_to",
    wire.EXPIRATION: "expiration",
    wire.MESSAGE_ID: "message_id",
    wire.TYPE: "message_type",
    wire.USER_ID: "user_id",
    wire.APP_ID: "app_id",
}


def from_aiormq(received: Basic.Properties) -> Properties:
    """What aiormq has decoded, as bytes again."""
    properties = Properties()
    for bit, name in _AIORMQ_NAMES.items():
        if text := getattr(received, name):
            properties.fields[bit] = str(text).encode()
    if received.delivery_mode:
        properties.fields[wire.DELIVERY_MODE] = bytes((received.delivery_mode,))
    if received.priority is not None:
        properties.fields[wire.PRIORITY] = bytes((received.priority,))
    if received.timestamp is not None:
        properties.fields[wire.TIMESTAMP] = wire.header_entry(received.timestamp)[1:]
    headers: Mapping[str, object] = received.headers or {}
    properties.headers = {name.encode(): wire.header_entry(value) for name, value in headers.items()}
    return properties


def _attempt(value: HeaderValue) -> int:
    return max(1, value) if isinstance(value, int) else 1


def put_off(properties: Properties, attempt: int, address: bytes) -> bytes:
    """The properties of a message on its way back to its queue, to be delivered as this attempt.

    Args:
        properties: those it came with.
        attempt: the next.
        address: the exchange and routing key it came with; it remembers the first it ever had.
    """
    exchange, routing_key = first_address(properties, address)
    moving = _moving(properties)
    moving.headers[DELIVERY_ATTEMPT] = wire.header_entry(attempt)
    _remember_address(moving, exchange, routing_key)
    return moving.encoded()


def _remember_address(moving: Properties, exchange: str, routing_key: str) -> None:
    moving.headers[_FIRST_EXCHANGE] = wire.header_entry(exchange)
    moving.headers[_FIRST_ROUTING_KEY] = wire.header_entry(routing_key)


def first_address(properties: Properties, address: bytes) -> tuple[str, str]:
    """The exchange and routing key a message was published with, before it was ever put off."""
    known = properties.headers.get(_FIRST_EXCHANGE), properties.headers.get(_FIRST_ROUTING_KEY)
    if known[0] is None or known[1] is None:
        return wire.read_address(address)
    return str(wire.header_value(known[0])), str(wire.header_value(known[1]))


def buried(properties: Properties, notes: Notes, *, max_bytes: int = 1 << 17) -> bytes:
    """The properties of a dead letter: all it had, and the notes.

    Should that be more than `max_bytes`, it loses the headers it had: a dead letter must not fail.
    """
    moving = _moving(properties)
    for ours in _OURS:
        moving.headers.pop(ours, None)
    added = notes.headers()
    for name, value in added.items():
        moving.headers[name.encode()] = wire.header_entry(value)
    encoded = moving.encoded()
    if len(encoded) > max_bytes:
        kept = {name: entry for name, entry in moving.headers.items() if name.decode(errors="replace") in added}
        kept[LOST_HEADERS.encode()] = wire.header_entry(len(moving.headers) - len(kept))
        encoded = Properties(moving.fields, kept).encoded()
    return encoded


def revived(properties: Properties, exchange: str, routing_key: str) -> bytes:
    """The properties of a dead letter on its way back to its queue, as a first attempt: all it had, without the notes.

    Args:
        properties: those of the dead letter.
        exchange: where it was published before it died, for the notes should it die again.
        routing_key: with which key.
    """
    moving = _moving(properties)
    for name in [*moving.headers]:
        if name in _OURS or is_note(name.decode(errors="replace")):
            del moving.headers[name]
    _remember_address(moving, exchange, routing_key)
    return moving.encoded()


def _moving(properties: Properties) -> Properties:
    """A copy without what would hinder or multiply it, and without the broker's notes of earlier moves."""
    moving = Properties(dict(properties.fields), {})
    for key, entry in properties.headers.items():
        if not _is_brokers_note(key):
            moving.headers[_COPIES.get(key, key)] = entry
    for bit, name in _KEPT_AS_HEADERS.items():
        if (value := moving.fields.pop(bit, None)) is not None:
            moving.headers[name] = wire.header_entry(value)
    moving.fields[wire.DELIVERY_MODE] = b"\x02"
    return moving


def _is_brokers_note(header: bytes) -> bool:
    # With its own notes in place, a broker that sees a message pass a queue twice takes it for a cycle and drops it.
    return header == b"x-delivery-count" or header.startswith((b"x-death", b"x-first-death-", b"x-last-death-"))
