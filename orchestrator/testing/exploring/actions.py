"""What may happen in a world, as values: the action, where the process may be killed, and what it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from orchestrator.testing.exploring.broker import HANDED_OVER
from orchestrator.testing.exploring.participants import Doing
from orchestrator.testing.exploring.store import COMMITTED, WRITTEN
from orchestrator.testing.exploring.world import Sent, World


class Kind(Enum):
    """What may happen."""

    DO = "a participant takes a command"
    HANDLE = "the engine takes replies"
    EVENT = "the engine takes an event"
    LOCAL = "the engine runs the function of a local step"
    WAKE = "the engine looks for what is due"
    SIGNALS = "the engine takes what it was asked"
    RESEND = "the engine finds what did not leave"
    SWEEP = "the engine joins events and waits"
    LOCKS = "the engine grants what is asked for"
    TAKEN = "another saga holds what is asked for"
    TIME = "time passes"
    HOLD_UP = "a message is held up"
    COPY = "a message comes once more"
    TOKEN = "somebody redeems a reply token"
    ASK = "an operator asks for something"


_MID_SEND: Final = {
    WRITTEN: "before it commits",
    "engine.committed": "after it has committed, before anything is sent",
    HANDED_OVER: "after it has sent one message",
    "engine.published": "before it knows what was sent",
}
_PLACES: Final = {
    Kind.HANDLE: {
        WRITTEN: "before it commits",
        "engine.committed": "after it has committed, before it acks and sends",
        "engine.acked": "after it has acked, before it sends",
        HANDED_OVER: "after it has sent one message",
    },
    Kind.EVENT: {
        "engine.events_kept": "before it acks",
        "engine.acked": "before it tells the saga",
        **_MID_SEND,
    },
    Kind.LOCAL: {
        WRITTEN: "before it commits",
        COMMITTED: "right after something is committed",
        HANDED_OVER: "after it has sent one message",
        "engine.published": "before it knows what was sent",
    },
    Kind.WAKE: _MID_SEND,
    Kind.SIGNALS: _MID_SEND,
    Kind.RESEND: {"engine.sends_claimed": "before it sends", HANDED_OVER: "after it has sent one message"},
}
"""Where the process may be killed; one that is not reached is no action."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that may happen next; its text tells it from the others of its world."""

    kind: Kind
    text: str
    cost: str = ""
    """Which part of `Spent` it raises."""
    subject: Any = None
    doing: Doing | None = None
    kill_at: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where an action leads, and what was seen of the engine on the way."""

    world: World
    sent: tuple[Sent, ...] = ()
    committed: bool = False
    acked_too_early: bool = False
    problems: tuple[str, ...] = ()
    """What the engine could not do at all: it raised, or gave a message up."""


def killable(kind: Kind, text: str, subject: Any = None, cost: str = "") -> Iterator[Action]:
    """The action, and the same with the process killed on the way; what costs something already is not killed."""
    yield Action(kind, text, cost, subject)
    if not cost:
        for place, told in _PLACES.get(kind, {}).items():
            yield Action(kind, f"{text}, and is killed {told}", "crashes", subject, kill_at=place)
