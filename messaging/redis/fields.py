"""Envelopes to the fields of a stream's entry and back. Pure; reading never raises."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from messaging.envelope import Destination, Envelope, HeaderValue
from messaging.transport import (
    DEAD_LETTER_ATTEMPTS,
    DEAD_LETTER_DETAIL,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_ROUTING_KEY,
    DEAD_LETTER_TIME,
)

BODY: Final = b"body"
HEADERS: Final = b"headers"
TIMESTAMP: Final = b"timestamp"
ATTEMPT: Final = b"attempt"
HANDLING: Final = b"handling"
PUT_OFF: Final = b"put-off"
EXCHANGE: Final = b"exchange"
ROUTING_KEY: Final = b"routing-key"

_TEXTS: Final = {
    b"message-id": "message_id",
    b"type": "type",
    b"correlation-id": "correlation_id",
    b"reply-to": "reply_to",
    b"content-type": "content_type",
    b"app-id": "app_id",
}
# Fields of their own, so that what is dead-lettered can be copied by the server as it came.
_NOTES: Final = {
    name.encode(): name
    for name in (
        DEAD_LETTER_REASON,
        DEAD_LETTER_DETAIL,
        DEAD_LETTER_TIME,
        DEAD_LETTER_QUEUE,
        DEAD_LETTER_EXCHANGE,
        DEAD_LETTER_ROUTING_KEY,
    )
}


def encoded(envelope: Envelope, app_id: str, destination: Destination) -> list[bytes]:
    """The fields of a message of ours, said to be from `app_id` unless it says otherwise; what is empty is left out.

    Of its destination an exchange and its key are kept: the stream says itself where else it could have come from.

    Raises:
        ValueError: a property is no text that UTF-8 can hold, or a header is NaN or infinite.
        TypeError: a header is of a type that JSON does not have.
    """
    fields: list[bytes] = []
    for name, attribute in _TEXTS.items():
        text: str = getattr(envelope, attribute) or (app_id if attribute == "app_id" else "")
        if text:
            fields += name, text.encode()
    if envelope.timestamp is not None:
        fields += TIMESTAMP, envelope.timestamp.isoformat().encode()
    if envelope.headers:
        text = json.dumps(dict(envelope.headers), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        fields += HEADERS, text.encode()
    if destination.exchange:
        fields += EXCHANGE, destination.exchange.encode(), ROUTING_KEY, destination.routing_key.encode()
    return [*fields, BODY, envelope.body]


def by_name(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    """The fields of an entry as the server lists them; of a repeated one the last."""
    return dict(zip(fields[::2], fields[1::2], strict=True))


def decoded(fields: Mapping[bytes, bytes]) -> tuple[Envelope, int, str]:
    """A received message as envelope, with its attempt, and why it cannot be read, else an empty text."""
    texts: dict[str, str] = {}
    problem = ""
    for name, attribute in _TEXTS.items():
        raw = fields.get(name, b"")
        texts[attribute] = raw.decode(errors="replace")
        if attribute != "app_id" and "�" in texts[attribute] and not _is_utf8(raw):
            problem = problem or f"its field {name.decode()} is not UTF-8: {raw[:100]!r}"
    headers, wrong = _headers(fields.get(HEADERS, b""))
    for name, header in _NOTES.items():
        if name in fields:
            headers[header] = fields[name].decode(errors="replace")
    if (attempts := fields.get(DEAD_LETTER_ATTEMPTS.encode())) is not None:
        headers[DEAD_LETTER_ATTEMPTS] = _attempt(attempts)
    if BODY not in fields:
        wrong = wrong or "it has no field 'body'"
    timestamp = _instant(fields.get(TIMESTAMP, b""))
    envelope = Envelope(body=fields.get(BODY, b""), timestamp=timestamp, headers=headers, **texts)
    return envelope, _attempt(fields.get(ATTEMPT, b"")), problem or wrong


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _headers(raw: bytes) -> tuple[dict[str, HeaderValue], str]:
    if not raw:
        return {}, ""
    try:
        headers: Any = json.loads(raw, parse_constant=str)
    except (ValueError, RecursionError) as problem:
        return {}, f"its field 'headers' is no JSON: {str(problem)[:200]}"
    if not isinstance(headers, dict):
        return {}, "its field 'headers' is no JSON object"
    return {str(name): _plain(value) for name, value in _items(headers)}, ""


def _items(headers: Any) -> Sequence[tuple[object, Any]]:
    return list(headers.items())


def _plain(value: Any) -> HeaderValue:
    if value is None or isinstance(value, str | int | float):
        return value
    return json.dumps(value, ensure_ascii=False)


def _instant(raw: bytes) -> datetime | None:
    """ISO 8601, or seconds since 1970 as other clients may write it; None when absurd or absent."""
    text = raw.decode(errors="replace")
    try:
        if text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        instant = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _attempt(raw: bytes) -> int:
    return max(1, int(raw)) if raw.isdigit() and len(raw) < 10 else 1
