"""The inbox: each order is carried out once, and whoever asks again is told what was answered.

The rules of a participant, over the rows that a database keeps. They run inside the one transaction
that also holds the handler's work, so a crash leaves all of it or nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS, Limits, encode_body
from messaging.errors import MessagingError
from messaging.messages import Accepted, Failure, Reply

MAX_KEY_CHARACTERS: Final = 512
_SECONDS: Final = "deadline_seconds"


class StillWorking(MessagingError):
    """Another delivery of this order is being worked on right now; come again a little later."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the order {key!r} is still being worked on by another delivery; it comes again later")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a command, as it is stored and sent."""

    outcome: str
    """`success` or `failure`, or `accepted` for now; `retry` is never stored."""
    error_code: str = ""
    type: str = ""
    body: bytes = b""

    @classmethod
    def accepted(cls, within: timedelta) -> Answer:
        """The definitive answer comes later, within so long. What moves the deadline is its body, so it is stored."""
        return cls(wire.ACCEPTED, body=json.dumps({_SECONDS: within.total_seconds()}).encode())

    @property
    def deadline_seconds(self) -> float | None:
        """How long the sender is to wait from now on; None where this is the definitive answer."""
        return float(json.loads(self.body)[_SECONDS]) if self.outcome == wire.ACCEPTED else None


def answer_of(message: Reply | Failure | Accepted, limits: Limits = DEFAULT_LIMITS) -> Answer:
    """What a handler's result is as an answer.

    Raises:
        UnencodableMessage: no reader could take it.
    """
    if isinstance(message, Accepted):
        return Answer.accepted(message.within)
    outcome, code = (wire.FAILURE, message.error_code) if isinstance(message, Failure) else (wire.SUCCESS, "")
    return Answer(outcome, code, message.wire_name, encode_body(message, limits))


UNDONE: Final = Answer(wire.FAILURE, wire.UNDONE)
NOTHING_TO_UNDO: Final = Answer(wire.SUCCESS, wire.NOTHING_TO_UNDO)
DONE: Final = Answer(wire.SUCCESS)
"""For what nobody waits for: an event."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of a key that somebody has claimed before."""

    undone: bool
    """Claimed by a compensation that found no action: the action must not happen any more."""
    answer: Answer | None


class InboxRows(Protocol):
    """The claims of one service, seen from within one transaction."""

    def claim(self, key: str, *, undone: bool = False) -> Claim | None:
        """Claim a key; return None if it is ours now, else what is known of the earlier claim.

        While another transaction holds the key, waits a bounded time for its end.

        Raises:
            StillWorking: it has not ended in that time.
        """
        ...

    def store(self, key: str, answer: Answer) -> None:
        """Keep the answer with a key that this transaction has claimed."""
        ...


def open_order(rows: InboxRows, key: str, compensates: str = "") -> Answer | None:
    """Claim a command; return None if its handler is to run now, else the answer to give.

    A compensation claims its action's key too. `compensates` names the action's latest round; a new round is
    begun only after a `failure` of the one before, whose stored claim still answers late copies of it. So
    the rounds before the named one did not happen and cannot happen, and the named key alone decides.

    Args:
        rows: the inbox in the transaction in which the handler will run.
        key: the command's idempotency key.
        compensates: on a compensation, the action's idempotency key.

    Raises:
        StillWorking: the order, or the action it compensates, is being worked on elsewhere.
    """
    earlier = rows.claim(key)
    if earlier is not None:
        return UNDONE if earlier.undone else _stored(key, earlier)
    if compensates and not _happened(rows, compensates):
        rows.store(key, NOTHING_TO_UNDO)
        return NOTHING_TO_UNDO
    return None


def open_event(rows: InboxRows, key: str) -> bool:
    """Claim an event; return whether its handler is to run now, false for a copy of one that was handled."""
    if rows.claim(key) is not None:
        return False
    rows.store(key, DONE)
    return True


def _happened(rows: InboxRows, action_key: str) -> bool:
    action = rows.claim(action_key, undone=True)
    if action is None or action.undone:
        return False
    return _stored(action_key, action).outcome in (wire.SUCCESS, wire.ACCEPTED)  # accepted: it may still happen


def _stored(key: str, claim: Claim) -> Answer:
    if claim.answer is None:
        raise StillWorking(key)
    return claim.answer
