"""Ids that are derived, never drawn: the same attempt has the same id whoever computes it."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quoted
from uuid import UUID, uuid5

from orchestrator.instance import StepKey

_NAMESPACE = UUID("6f1d3c52-7f0e-5d0b-9a3b-2a9f0c1f5e77")


def message_id(saga_id: UUID, key: StepKey, round_: int, attempt: int) -> UUID:
    """The message id of one attempt: a re-sent attempt is the same message, a retry another."""
    # A JSON array, put together by hand: an encoder would cost more than the digest.
    names = f"{_quoted(key.step)},{_quoted(key.branch)}"
    return uuid5(_NAMESPACE, f'["{saga_id}",{names},"{key.direction.value}",{round_},{attempt}]')


def child_id(parent_id: UUID, key: StepKey, round_: int) -> UUID:
    """The id of a step's child: however often it is started, it is one. A new round is another child."""
    parts = [str(parent_id), key.step, key.branch, "child", round_]
    return uuid5(_NAMESPACE, json.dumps(parts, separators=(",", ":")))


def idempotency_key(saga_id: UUID, key: StepKey, round_: int) -> str:
    """What a participant dedupes by: stable over the attempts of a round."""
    branch = f"/{key.branch}" if key.branch else ""
    return f"{saga_id}/{key.step}{branch}/{key.direction.value}#{round_}"


def new_saga_id() -> UUID:
    """A UUIDv7: time-ordered, so that new rows lie together in indexes (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    raw = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return UUID(bytes=bytes(raw))


def earliest_id(instant: datetime) -> UUID:
    """The least id of a saga that was started then: ids rise with time."""
    milliseconds = int(instant.astimezone(UTC).timestamp() * 1000)
    return UUID(bytes=milliseconds.to_bytes(6, "big") + bytes(10))
