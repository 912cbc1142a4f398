"""What is written on a dead letter, and how it is read: why it is one, and where it came from. Pure.

A reason is at most 255 characters, a detail (a traceback, mostly) at most four kilobytes: brokers bound what
headers may have, and a dead letter must not fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from messaging.envelope import Envelope, HeaderValue
from messaging.transport import (
    DEAD_LETTER_ATTEMPTS,
    DEAD_LETTER_DETAIL,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_ROUTING_KEY,
    DEAD_LETTER_TIME,
)

MAX_REASON_CHARACTERS: Final = 255
MAX_DETAIL_BYTES: Final = 4096
LOST_HEADERS: Final = "dead-letter-lost-headers"
_OUR_HEADERS: Final = "dead-letter-"
_BROKERS_HEADERS: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count")
_CUT: Final = "\n[...]\n"
_HEAD_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one dead letter, as its transport knows them when it dies."""

    reason: str
    detail: str
    attempts: int
    queue: str
    """Its full name."""
    exchange: str
    routing_key: str

    def headers(self) -> dict[str, str | int]:
        """The headers to be written, within their bounds and in UTF-8."""
        return {
            DEAD_LETTER_REASON: bounded_reason(self.reason),
            DEAD_LETTER_DETAIL: bounded_detail(self.detail),
            DEAD_LETTER_TIME: datetime.now(UTC).isoformat(),
            DEAD_LETTER_ATTEMPTS: self.attempts,
            DEAD_LETTER_QUEUE: self.queue,
            DEAD_LETTER_EXCHANGE: self.exchange,
            DEAD_LETTER_ROUTING_KEY: self.routing_key,
        }


def bounded_reason(reason: str) -> str:
    """A reason in one line, within its bound."""
    return " ".join(_encodable(reason).split())[:MAX_REASON_CHARACTERS]


def bounded_detail(detail: str) -> str:
    """A detail within its bound. Cut in the middle: a traceback tells where it began and how it ended."""
    raw = _encodable(detail).encode()
    if len(raw) <= MAX_DETAIL_BYTES:
        return raw.decode()
    tail = MAX_DETAIL_BYTES - _HEAD_BYTES - len(_CUT)
    return raw[:_HEAD_BYTES].decode(errors="ignore") + _CUT + raw[-tail:].decode(errors="ignore")


def _encodable(text: str) -> str:
    """Text that UTF-8 and every database can hold."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody could use, with why."""

    envelope: Envelope
    """As it was when it died: what a replay sends."""
    queue: str
    """Where it died, as the code knows it: the queue that a replay sends it to."""
    reason: str
    detail: str = ""
    """More about it; of a handler that gave up, the traceback."""
    died_at: datetime | None = None
    attempts: int | None = None
    """How often it was tried; None where nobody has counted."""
    exchange: str = ""
    routing_key: str = ""
    """How it was published: a message straight to a queue has no exchange, and the queue's full name as its key."""
    lost_headers: int = 0
    """How many headers it had to give up, because the notes did not fit beside them."""
    problem: str = ""
    """Why it cannot be read; else empty."""
    place: Any = field(default=None, repr=False, compare=False)
    """Where its transport finds it again, within one look."""

    @property
    def id(self) -> str:
        """The message id; where it has none, one made from its body."""
        return self.envelope.message_id or f"body-{sha256(self.envelope.body).hexdigest()[:16]}"


def dead_letter(envelope: Envelope, queue: str, *, problem: str = "", place: Any = None) -> DeadLetter:
    """Read what was taken from a queue of dead letters, whether a transport of ours or the broker put it there.

    Args:
        envelope: with the notes among its headers.
        queue: whose dead letters, as the code knows it.
        problem: why it cannot be read.
        place: for the transport.
    """
    headers = envelope.headers
    bare = replace(envelope, headers=without_notes(headers))
    by_broker = _brokers_notes(headers)
    if by_broker:
        letter = _put_aside_by_broker(bare, queue, by_broker)
    else:
        letter = DeadLetter(
            bare,
            queue,
            envelope.text_header(DEAD_LETTER_REASON) or "unknown",
            envelope.text_header(DEAD_LETTER_DETAIL),
            _instant(envelope.text_header(DEAD_LETTER_TIME)),
            _number(headers.get(DEAD_LETTER_ATTEMPTS)),
            envelope.text_header(DEAD_LETTER_EXCHANGE),
            envelope.text_header(DEAD_LETTER_ROUTING_KEY) or envelope.text_header(DEAD_LETTER_QUEUE),
        )
    return replace(letter, lost_headers=_number(headers.get(LOST_HEADERS)) or 0, problem=problem, place=place)


def without_notes(headers: Mapping[str, HeaderValue]) -> dict[str, HeaderValue]:
    """The headers a message had before it died, by our hands or the broker's."""
    return {name: value for name, value in headers.items() if not is_note(name)}


def is_note(header: str) -> bool:
    """Whether a header tells of a death."""
    return header.startswith((_OUR_HEADERS, *_BROKERS_HEADERS))


def _put_aside_by_broker(envelope: Envelope, queue: str, notes: Mapping[str, Any]) -> DeadLetter:
    reason = str(notes.get("reason", "unknown")).replace("_", "-")
    return DeadLetter(
        envelope,
        queue,
        reason,
        f"put aside by the broker, {notes.get('count', 1)} times: {reason} in queue {notes.get('queue')}",
        _instant(str(notes.get("time", ""))),
        None,
        str(notes.get("exchange", "")),
        str(next(iter(notes["routing-keys"]), "")),
    )


def _brokers_notes(headers: Mapping[str, HeaderValue]) -> Mapping[str, Any]:
    """The broker's note of the latest death. Our own transports take such notes off what they put aside themselves."""
    try:
        deaths: Any = json.loads(str(headers.get("x-death", "")))
        return {**deaths[0], "routing-keys": [*deaths[0].get("routing-keys", ())]}
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}


def _number(value: HeaderValue) -> int | None:
    return value if isinstance(value, int) else None


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
