"""Messages of older versions, lifted to what the class is today."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS, Limits, decode_body, parse_json
from messaging.envelope import Envelope
from messaging.errors import DecodeError
from messaging.messages import Message
from messaging.printable import without_values

M = TypeVar("M", bound=Message)


def decode_message(cls: type[M], envelope: Envelope, limits: Limits = DEFAULT_LIMITS) -> M:
    """Read a message as this class, of whatever version it was sent.

    Raises:
        DecodeError: it is not JSON within the limits, not this class, or cannot be lifted to it.
    """
    return decode_body(cls, body_of_today(cls, envelope, limits), limits, message_id=envelope.message_id)


def body_of_today(cls: type[Message], envelope: Envelope, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The body as the class' own version has it; as it came when it is of that version or a newer one.

    Raises:
        DecodeError: it is older and cannot be lifted.
    """
    if cls.schema_version == 1:
        return envelope.body
    version = _version_of(envelope)
    if version >= cls.schema_version:
        return envelope.body
    body = parse_json(envelope.body, limits, message_id=envelope.message_id)
    for older in range(version, cls.schema_version):
        body = _lifted(cls, body, older, envelope.message_id)
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


def _version_of(envelope: Envelope) -> int:
    told = envelope.headers.get(wire.SCHEMA_VERSION, 1)
    if isinstance(told, int) and not isinstance(told, bool) and told >= 1:
        return told
    raise DecodeError(f"its {wire.SCHEMA_VERSION} {told!r} is no version", message_id=envelope.message_id)


def _lifted(cls: type[Message], body: Any, version: int, message_id: str) -> Any:
    if not isinstance(body, dict):
        raise DecodeError(f"the body is not a {cls.wire_name!r}: it is no object", message_id=message_id)
    try:
        return cls.upcast(cast("dict[str, Any]", body), version)
    except Exception as error:
        problem = (
            f"{cls.__name__}.upcast raised {type(error).__name__} for version {version}: {without_values(str(error))}"
        )
        raise DecodeError(problem, message_id=message_id) from error
