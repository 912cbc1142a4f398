"""CloudEvents 1.0: attributes as headers beside ours, and events whose body holds attributes and data.

CloudEvents binds itself to AMQP 1.0, not to RabbitMQ's 0-9-1. Written are the headers of the HTTP binding
(`ce-type`), which most tools know; read are those of both bindings.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import quote, unquote

from messaging import envelope as wire
from messaging.codec import Limits, parse_json
from messaging.envelope import Envelope, HeaderValue
from messaging.errors import DecodeError
from messaging.ids import derived_id
from messaging.transport import Outgoing

STRUCTURED: Final = "application/cloudevents+json"
_PREFIXES: Final = ("ce-", "cloudEvents:", "cloudEvents_")
_OF_HTTP: Final = _PREFIXES[0]
_NOT_QUOTED: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_REQUIRED: Final = ("id", "source", "type")
_TRACE: Final = (wire.TRACEPARENT, wire.TRACESTATE)


@dataclass(frozen=True, slots=True)
class CloudEvents:
    """Events that leave carry `ce-*` headers as well; commands and replies are none.

    Args:
        source: who sends, as CloudEvents has it: a URI or the path of one, such as `/shop/payments`.
    """

    source: str

    def __call__(self, outgoing: Outgoing) -> Outgoing:
        """Add the headers."""
        envelope, destination = outgoing.envelope, outgoing.destination
        if destination.mandatory or not destination.exchange or not envelope.type:
            return outgoing
        attributes = {"specversion": "1.0", "id": envelope.message_id, "source": self.source, "type": envelope.type}
        if envelope.timestamp is not None:
            attributes["time"] = envelope.timestamp.isoformat()
        added = {_OF_HTTP + name: quote(value, safe=_NOT_QUOTED) for name, value in attributes.items()}
        return replace(outgoing, envelope=replace(envelope, headers={**envelope.headers, **added}))


def is_structured(envelope: Envelope) -> bool:
    """Whether the body holds an event's attributes together with its data."""
    return envelope.content_type.partition(";")[0].strip().lower() == STRUCTURED


def from_structured(envelope: Envelope, limits: Limits) -> Envelope:
    """Take attributes and data apart.

    Raises:
        DecodeError: the body is no CloudEvent.
    """
    event = parse_json(envelope.body, limits, message_id=envelope.message_id)
    if not isinstance(event, dict):
        raise DecodeError("the body is no CloudEvent: it is no object", message_id=envelope.message_id)
    attributes = cast("dict[str, Any]", event)
    body = _data_of(attributes, envelope.message_id)
    texts = {name: str(value) for name, value in attributes.items() if isinstance(value, (str, int))}
    return _plain(envelope, texts, body)


def from_binary(envelope: Envelope) -> Envelope | None:
    """Read the attributes from the headers; None when there are none."""
    attributes = dict(_attributes(envelope.headers))
    return _plain(envelope, attributes, envelope.body) if "type" in attributes else None


def _attributes(headers: Mapping[str, HeaderValue]) -> Iterator[tuple[str, str]]:
    for header, value in headers.items():
        prefix = next((prefix for prefix in _PREFIXES if header.startswith(prefix)), "")
        if prefix and value is not None:
            text = str(value)
            yield header.removeprefix(prefix), unquote(text) if prefix == _OF_HTTP else text


def _data_of(attributes: dict[str, Any], message_id: str) -> bytes:
    encoded = attributes.pop("data_base64", None)
    if encoded is None:
        return json.dumps(attributes.pop("data", {}), ensure_ascii=False).encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        problem = f"the body is no CloudEvent: its data_base64 cannot be read: {error}"
        raise DecodeError(problem, message_id=message_id) from None


def _plain(envelope: Envelope, attributes: Mapping[str, str], body: bytes) -> Envelope:
    """What the attributes say, as properties of ours. An event is told from others by source and id together."""
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing or attributes.get("specversion") != "1.0":
        problem = f"it has no {missing[0]}" if missing else f"its specversion is {attributes.get('specversion')!r}"
        raise DecodeError(f"the message is no CloudEvent 1.0: {problem}", message_id=envelope.message_id)
    headers: dict[str, HeaderValue] = {_OF_HTTP + name: value for name, value in attributes.items()}
    headers |= {name: attributes[name] for name in _TRACE if name in attributes}
    return replace(
        envelope,
        message_id=derived_id(attributes["source"], attributes["id"]),
        body=body,
        type=attributes["type"],
        content_type=wire.JSON,
        timestamp=_instant(attributes.get("time", "")) or envelope.timestamp,
        headers={**headers, **envelope.headers},
    )


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else None
